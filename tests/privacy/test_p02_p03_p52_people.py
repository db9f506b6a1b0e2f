"""P02, P03, P52: a person is a pseudonym that leads back to nobody, provider tokens are dropped, erasure is whole."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from router.app.asgi import make_app
from router.core.command_error import CommandError
from router.core.settings import RouterSettings
from router.identity.pseudonyms import Peppers
from router.tiers.fake import FakeBackend, Hang
from tests.openid import EMAIL, NAME, FakeProvider, openid_provider, settings_of
from tests.people import person
from tests.served import Served, served
from tests.services import PATIENCE_S, SONG, mastering

ISSUER = "https://accounts.google.com"
CANDIDATES = 1_000_000


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with openid_provider() as provider:
        yield provider


def files_of(router: Served) -> bytes:
    settings = router.services.settings
    folders = (settings.state_dir, settings.ram_dir, settings.spool_dir)
    return b"".join(path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


def _guessable_ids(subject: str) -> list[bytes]:
    """What can be computed of a subject without the pepper: hashes, and MACs under public values."""
    text = f"{ISSUER}\0{subject}".encode()
    return [
        hashlib.sha256(subject.encode()).digest()[:16],
        hashlib.sha256(text).digest()[:16],
        hmac.digest(b"", text, hashlib.sha256)[:16],
    ]


def test_p02_a_list_of_a_million_subjects_names_nobody_without_the_pepper() -> None:
    first = 10**20
    here = str(first + 777_777)
    peppers = Peppers({1: secrets.token_bytes(32)})
    (name,) = peppers.pseudonyms(ISSUER, here)
    kept = base64.urlsafe_b64decode(name.removeprefix("v1_") + "==")
    assert len(kept) == 16, "128 bits"
    subjects = (str(number) for number in range(first, first + CANDIDATES))
    assert [subject for subject in subjects if kept in _guessable_ids(subject)] == []
    nearby = (str(number) for number in range(first + 777_000, first + 778_000))
    found = [subject for subject in nearby if peppers.pseudonyms(ISSUER, subject) == [name]]
    assert found == [here], "the control: who has the pepper finds the person"


def test_p02_the_same_person_has_the_same_name_and_under_another_pepper_another() -> None:
    one, two = Peppers({1: b"1" * 32}), Peppers({1: b"2" * 32})
    assert one.pseudonyms(ISSUER, "a") == one.pseudonyms(ISSUER, "a")
    names = [p.pseudonyms(i, s)[0] for p in (one, two) for i in (ISSUER, "https://other") for s in ("a", "b")]
    assert len(set(names)) == len(names)
    assert one.pseudonyms("ab", "c") != one.pseudonyms("a", "bc"), "issuer and subject don't run into each other"


async def test_p01_p02_p03_nothing_that_the_provider_says_is_in_any_file(
    tmp_path: Path, provider: FakeProvider
) -> None:
    subject = "canary-subject-40917"
    provider.handed_out.clear()
    async with served(tmp_path, **settings_of(provider)) as router, person(router, provider, subject) as browser:
        await browser.post("/v1/jobs")
        ((code, tokens),) = provider.handed_out
        pushed = [code, *(tokens[kind] for kind in ("access_token", "refresh_token", "id_token"))]
        kept = files_of(router)
        plain = [hashlib.new(kind, subject.encode()) for kind in ("md5", "sha1", "sha256")]
        digests = [digest.digest() for digest in plain] + [digest.hexdigest().encode() for digest in plain]
        for canary in [subject.encode(), EMAIL.encode(), NAME.encode(), *map(str.encode, pushed), *digests]:
            assert canary not in kept
        account = (await browser.get("/v1/account")).json()["account"]
        assert account.encode() in kept, "the control: the pseudonym is there"


async def test_p03_no_lasting_access_is_asked_for(tmp_path: Path, provider: FakeProvider) -> None:
    provider.asked.clear()
    async with served(tmp_path, **settings_of(provider)) as router, person(router, provider, "a"):
        assert router.services.sign_in is not None
    asked = [parameters for _, path, parameters in provider.asked if path == "/authorize"]
    assert [parameters["scope"] for parameters in asked] == ["openid"]
    assert not {"access_type", "prompt", "include_granted_scopes"} & set(asked[0])
    assert provider.count("/userinfo") == 0


def test_p36_without_credentials_no_other_machine_is_listened_to() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "master.example"):  # noqa: S104 — to be refused
        with pytest.raises(CommandError, match="this machine only"):
            make_app(RouterSettings(host=host))
    for host in ("127.0.0.1", "::1", "localhost"):
        make_app(RouterSettings(host=host))


async def test_p36_a_guest_needs_no_account_and_no_cookie(tmp_path: Path) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        job = await router.over((await router.send())["id"])
        assert job["state"] == "mastered"
        assert len(router.http.cookies) == 0


async def test_p39_a_consent_is_a_row_with_its_minute_and_its_withdrawal_holds_for_the_next_job(
    tmp_path: Path, provider: FakeProvider
) -> None:
    async with served(tmp_path, **settings_of(provider)) as router, person(router, provider, "a") as browser:
        for managed_only in (False, True, False):
            await browser.put("/v1/account/consent", json={"managed_only": managed_only})
            assert (await browser.post("/v1/jobs")).json()["managed_only"] is managed_only
        account = (await browser.get("/v1/account")).json()["account"]
        with sqlite3.connect(router.services.settings.state_dir / "accounts.sqlite") as database:
            rows = database.execute("SELECT * FROM consents").fetchall()
        database.close()
        ((held, managed, version, minute),) = rows
        assert (held, managed, version) == (account, 0, router.services.tiers_version())
        assert re.fullmatch(r"\d{8}", str(minute)), "minutes since the epoch, no finer"


async def test_p52_p53_an_erasure_stops_what_runs_and_leaves_nothing_of_the_person(
    tmp_path: Path, provider: FakeProvider
) -> None:
    """Erased while one song renders, one is being uploaded and one is mastered."""
    go_on = asyncio.Event()
    backend = FakeBackend("a", [mastering(), mastering(before=[Hang()])])
    async with served(tmp_path, [backend], **settings_of(provider)) as router, person(router, provider, "a") as browser:
        account = (await browser.get("/v1/account")).json()["account"]
        done = await _job_with_song(browser)
        await _until(browser, done, "mastered")
        running = await _job_with_song(browser)
        await _until(browser, running, "running")
        coming = (await browser.post("/v1/jobs")).json()["id"]
        upload = asyncio.create_task(browser.put(f"/v1/jobs/{coming}/audio", content=_interrupted_song(go_on)))
        async with asyncio.timeout(PATIENCE_S):
            while (await browser.get(f"/v1/jobs/{coming}")).json()["upload"]["offset_bytes"] == 0:  # noqa: ASYNC110 — bounded
                await asyncio.sleep(0.01)
        assert account.encode() in files_of(router)
        assert (await browser.delete("/v1/account")).json() == {"jobs": 3}
        go_on.set()
        assert (await upload).status_code in (404, 410)
        assert router.services.spool.usage().blobs == 0
        assert [found async for found in router.services.jobs.scan()] == []
        async with asyncio.timeout(PATIENCE_S):  # the attempt that ran notices by itself that nobody waits for it
            while account.encode() in files_of(router):  # noqa: ASYNC110 — nothing tells of a file's content
                await asyncio.sleep(0.02)


async def _job_with_song(browser: httpx.AsyncClient) -> str:
    job = (await browser.post("/v1/jobs")).json()["id"]
    assert (await browser.put(f"/v1/jobs/{job}/audio", content=SONG)).status_code == 202
    return str(job)


async def _until(browser: httpx.AsyncClient, job: str, state: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await browser.get(f"/v1/jobs/{job}", headers={"prefer": "wait=1"})).json()["state"] != state:
            pass


async def _interrupted_song(go_on: asyncio.Event) -> AsyncIterator[bytes]:
    """A song whose upload stops in the middle until `go_on` is set."""
    yield SONG * 40
    await go_on.wait()
    yield SONG
