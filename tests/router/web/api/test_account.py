"""Sessions, tokens and the account: what each may do, what is stored of it, and how it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from router.core import clock
from router.identity import pseudonyms as peppers_module
from router.identity import sessions as sessions_module
from router.tiers.fake import FakeBackend
from router.web import dependencies
from router.web.api import events
from router.web.api.credentials import MOST_TOKENS
from tests.loopback import TLS
from tests.openid import FakeProvider, Misbehaviour, openid_provider, settings_of
from tests.people import person, sign_in_with
from tests.probes import until
from tests.served import Served, served
from tests.services import MASTER, SONG, mastering


@pytest.fixture(scope="module")
def provider_process() -> Iterator[FakeProvider]:
    with openid_provider() as provider:
        yield provider


@pytest.fixture
def provider(provider_process: FakeProvider) -> FakeProvider:
    provider_process.misbehave = Misbehaviour()
    return provider_process


@pytest.fixture
async def router(tmp_path: Path, provider: FakeProvider) -> AsyncIterator[Served]:
    async with served(tmp_path, [FakeBackend("a", [mastering()])], **settings_of(provider)) as router:
        yield router


@pytest.fixture
async def ann(router: Served, provider: FakeProvider) -> AsyncIterator[httpx.AsyncClient]:
    async with person(router, provider, "ann") as browser:
        yield browser


@pytest.fixture
async def bob(router: Served, provider: FakeProvider) -> AsyncIterator[httpx.AsyncClient]:
    async with person(router, provider, "bob") as browser:
        yield browser


TUS = {"tus-resumable": "1.0.0", "content-type": "application/offset+octet-stream", "upload-offset": "0"}


def bytes_of_files(*folders: Path) -> bytes:
    """The content of every file under the folders."""
    return b"".join(path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


def problem(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def new_token(browser: httpx.AsyncClient, scope: str = "jobs") -> dict[str, Any]:
    response = await browser.post("/v1/account/tokens", json={"scope": scope})
    assert response.status_code == 201, response.text
    return dict(response.json())


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def end_sessions_of_the_owner(router: Served, job_id: str) -> None:
    assert router.services.sign_in is not None
    await router.services.sign_in.sessions.end_all((await router.services.jobs.get(job_id)).job.account)


# Authentication --------------------------------------------------------------------------------------------------


async def test_a_stranger_is_told_to_sign_in_before_a_byte_of_audio_moves(router: Served) -> None:
    created = await router.http.post("/v1/jobs")
    assert problem(created) == (401, "sign_in")
    assert created.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/jobs/x/audio", "/v1/jobs/x/references/1"):
        head = f"PUT {path} HTTP/1.1\r\nhost: 127.0.0.1:{router.port}\r\ncontent-length: 400000000\r\n\r\n"
        reader, writer = await router.raw(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 401 " in answer.partition(b"\r\n")[0]
        assert b"connection: close" in answer.lower()
        writer.close()
    assert [found async for found in router.services.jobs.scan()] == []


async def test_every_address_of_the_api_but_what_tells_nothing_of_anybody_asks_who_is_there(router: Served) -> None:
    described = (await router.http.get("/openapi.json")).json()["paths"]
    assert len(described) > 10
    open_to_all = {("get", "/v1/options"), ("get", "/v1/health"), ("options", "/v1/uploads"), ("get", "/privacy.json")}
    for path, methods in described.items():
        for method in set(methods) & {"get", "head", "post", "put", "patch", "delete", "options"}:
            headers = {
                "tus-resumable": "1.0.0",
                "content-type": "application/offset+octet-stream",
                "upload-offset": "0",
            }
            address = path.format(job_id="x", number=1, output_format="wav24", session_id="x", token_id="x")
            body = b'{"managed_only": true}' if path.endswith("consent") else b""
            if body:
                headers["content-type"] = "application/json"
            response = await router.http.request(method, address, headers=headers, content=body)
            assert (response.status_code == 401) == ((method, path) not in open_to_all), (method, path)


@pytest.mark.parametrize("shown", ["session", "token"])
async def test_who_waits_for_a_master_gets_none_when_the_session_was_ended_or_the_token_revoked(
    router: Served, ann: httpx.AsyncClient, shown: str
) -> None:
    job = (await ann.post("/v1/jobs")).json()
    token = await new_token(ann)
    client, headers = (router.http, bearer(token["secret"])) if shown == "token" else (ann, {})
    address = f"/v1/jobs/{job['id']}"
    both = [
        asyncio.create_task(client.get(path, headers={"prefer": "wait=20", **headers}))
        for path in (address, f"{address}/outputs/wav24")
    ]
    await until(lambda: router.app.state.streams._open.total() == 2)
    if shown == "token":
        assert (await ann.delete(f"/v1/account/tokens/{token['id']}")).is_success
    else:
        await end_sessions_of_the_owner(router, job["id"])
    await router.services.jobs.forget(job["id"])  # there is nothing more to wait for
    await router.services.events.publish(job["id"])
    for waiting in both:
        assert (await waiting).status_code == 401


@pytest.mark.parametrize("shown", ["session", "token"])
async def test_a_stream_ends_when_the_session_was_ended_or_the_token_revoked(
    router: Served, ann: httpx.AsyncClient, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.02)
    job = (await ann.post("/v1/jobs")).json()
    token = await new_token(ann)
    client, headers = (router.http, bearer(token["secret"])) if shown == "token" else (ann, {})
    wanted = {"accept": "text/event-stream", **headers}
    async with client.stream("GET", f"/v1/jobs/{job['id']}", headers=wanted) as stream, asyncio.timeout(20):
        lines = stream.aiter_lines()
        while not (await anext(lines)).startswith(":"):  # the first heartbeat: the stream goes on while it may
            pass
        if shown == "token":
            assert (await ann.delete(f"/v1/account/tokens/{token['id']}")).is_success
        else:
            await end_sessions_of_the_owner(router, job["id"])
        rest = [line async for line in lines]
    assert not any(line.startswith("data:") for line in rest)


async def test_pages_and_descriptions_are_open_and_leave_no_record(router: Served) -> None:
    before = _stored_rows(router)
    for path in ("/", "/account", "/docs", "/openapi.json", "/privacy", "/v1/options", "/errors/sign_in", "/sign-in"):
        response = await router.http.get(path)
        assert response.status_code in (200, 303), path
    assert (await router.http.get("/v1/options")).json()["account"]["kind"] == "signed_out"
    assert _stored_rows(router) == before


def _stored_rows(router: Served) -> list[Any]:
    assert router.services.sign_in is not None
    tables = [(router.services.accounts._db, name) for name in ("consents", "tokens", "usage")]
    tables += [(router.services.sign_in.sessions._db, name) for name in ("sessions", "spent")]
    return [db.execute(f"SELECT * FROM {name}").fetchall() for db, name in tables]  # noqa: S608 — our own names


async def test_the_cookie_is_for_this_host_alone_and_out_of_scripts_reach(
    tmp_path: Path, provider: FakeProvider
) -> None:
    public = "https://master.example"
    async with served(tmp_path, public_url=public, **settings_of(provider)) as router:
        host = {"host": "master.example"}
        asked = await router.http.get("/sign-in", headers=host)
        login = asked.headers["set-cookie"]
        assert login.startswith("__Host-login=")
        assert set(login.split("; ")[1:]) == {"Path=/", "HttpOnly", "SameSite=Lax", "Secure", "Max-Age=600"}
        async with httpx.AsyncClient(trust_env=False, verify=TLS) as other_site:
            answer = (await other_site.get(asked.headers["location"])).headers["location"]
        assert answer.startswith(f"{public}/sign-in/callback?")
        back = await router.http.get(answer.removeprefix(public), headers={**host, "cookie": login.partition(";")[0]})
        session, gone = back.headers.get_list("set-cookie")
        assert session.startswith("__Host-sid=")
        assert set(session.split("; ")[1:]) == {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"}
        assert len(session.partition("=")[2].partition(";")[0]) == 43, "256 bits"
        assert gone.startswith("__Host-login=;")
        assert "Max-Age=0" in gone


async def test_a_session_begun_anew_replaces_the_one_that_the_browser_brought(
    router: Served, provider: FakeProvider, ann: httpx.AsyncClient
) -> None:
    """Session fixation: a session id that somebody planted before the login is not signed in by it."""
    planted = ann.cookies["dev-sid"]
    await sign_in_with(ann, provider, "ann")
    assert ann.cookies["dev-sid"] != planted
    old = await router.http.get("/v1/account", headers={"cookie": f"dev-sid={planted}"})
    assert problem(old) == (401, "sign_in")
    assert len((await ann.get("/v1/account/sessions")).json()) == 1


async def test_a_request_with_the_cookie_must_say_that_our_page_sent_it(router: Served, ann: httpx.AsyncClient) -> None:
    cookie = {"cookie": f"dev-sid={ann.cookies['dev-sid']}"}
    own = f"http://127.0.0.1:{router.port}"
    for headers in ({}, {"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        for method, path in (("DELETE", "/v1/account"), ("POST", "/v1/jobs"), ("POST", "/sign-out")):
            response = await router.http.request(method, path, headers={**cookie, **headers})
            assert problem(response) == (403, "foreign_origin"), headers
    for headers in ({"origin": own}, {"sec-fetch-site": "same-origin"}):
        assert (await router.http.post("/v1/jobs", headers={**cookie, **headers})).status_code == 201
    assert (await router.http.get("/v1/account", headers=cookie)).status_code == 200, "to look is harmless"


async def test_sign_out_ends_the_session_and_clears_what_the_page_kept(router: Served, ann: httpx.AsyncClient) -> None:
    cookie = {"cookie": f"dev-sid={ann.cookies['dev-sid']}"}
    response = await ann.post("/sign-out")
    assert response.status_code == 204
    assert response.headers["clear-site-data"] == '"storage"'
    assert "dev-sid" not in ann.cookies
    assert problem(await router.http.get("/v1/account", headers=cookie)) == (401, "sign_in")


async def test_sign_out_everywhere_ends_every_session_of_the_account_and_no_other(
    router: Served, provider: FakeProvider, ann: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    async with person(router, provider, "ann") as phone:
        listed = (await ann.get("/v1/account/sessions")).json()
        assert [entry["is_this_one"] for entry in listed].count(True) == 1
        assert (await ann.delete("/v1/account/sessions")).json() == {"ended": 2}
        assert problem(await phone.get("/v1/account")) == (401, "sign_in")
    assert (await bob.get("/v1/account")).status_code == 200


async def test_one_session_can_be_ended_from_another_but_nobody_elses(
    router: Served, provider: FakeProvider, ann: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    async with person(router, provider, "ann") as phone:
        (other,) = [s for s in (await ann.get("/v1/account/sessions")).json() if not s["is_this_one"]]
        assert problem(await bob.delete(f"/v1/account/sessions/{other['id']}")) == (404, "not_found")
        assert (await ann.delete(f"/v1/account/sessions/{other['id']}")).status_code == 200
        assert problem(await phone.get("/v1/account")) == (401, "sign_in")


async def test_a_session_ends_when_nobody_used_it_and_however_it_was_used(
    ann: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, real = 0.0, clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + passed)
    while passed < sessions_module.LONGEST_S - sessions_module.IDLE_S:
        passed += sessions_module.IDLE_S - 60
        assert (await ann.get("/v1/account/consent")).status_code == 200
    passed = sessions_module.LONGEST_S
    assert problem(await ann.get("/v1/account/consent")) == (401, "sign_in")


async def test_an_idle_session_has_ended(ann: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + sessions_module.IDLE_S)
    assert problem(await ann.get("/v1/account")) == (401, "sign_in")


async def test_a_restart_signs_nobody_out_and_the_file_holds_no_secret(tmp_path: Path) -> None:
    store = sessions_module.LocalSessions(tmp_path / "sessions.sqlite", clock.MachineClock())
    secret = await store.begin("an-account")
    store.close()
    again = sessions_module.LocalSessions(tmp_path / "sessions.sqlite", clock.MachineClock())
    found = await again.find(secret)
    assert found is not None
    assert found.account == "an-account"
    assert await again.find(secret[:-1]) is None
    assert secret.encode() not in bytes_of_files(tmp_path)
    await again.end_all("an-account")
    assert b"an-account" not in bytes_of_files(tmp_path)
    again.close()


async def test_the_oldest_of_too_many_sessions_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, moments = (
        sessions_module.LocalSessions(tmp_path / "sessions.sqlite", clock.MachineClock()),
        iter(range(1_000_000)),
    )
    monkeypatch.setattr(clock, "now", lambda: float(next(moments)))
    first, *others = [await store.begin("a") for _ in range(sessions_module.MOST_PER_ACCOUNT + 1)]
    assert await store.find(first) is None
    assert all([await store.find(secret) for secret in others])
    store.close()


# Tokens ---------------------------------------------------------------------------------------------------------


async def test_a_token_masters_a_song_without_a_cookie_or_an_origin(router: Served, ann: httpx.AsyncClient) -> None:
    token = await new_token(ann)
    assert token["secret"].startswith("mr_")
    headers = bearer(token["secret"])
    job = (await router.http.post("/v1/jobs", headers=headers)).json()
    sent = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG, headers=headers)
    assert sent.status_code == 202
    assert (await ann.get(f"/v1/jobs/{job['id']}")).status_code == 200, "it is the owner's own job"
    listed = (await ann.get("/v1/account/tokens")).json()
    assert [(entry["id"], "secret" in entry) for entry in listed] == [(token["id"], False)]


async def test_router_submit_takes_a_token_from_the_environment_and_says_where_to_get_one(
    router: Served, ann: httpx.AsyncClient, tmp_path: Path
) -> None:
    song, master = tmp_path / "song.wav", tmp_path / "master.wav"
    song.write_bytes(SONG)
    token = await new_token(ann)

    async def submit(**environment: str) -> tuple[int | None, str]:
        url = f"http://127.0.0.1:{router.port}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router", "submit", str(song), "-o", str(master), "--url", url),
            env={**os.environ, **environment},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        return process.returncode, said.decode()

    code, said = await submit()
    assert (code, "ROUTER_TOKEN" in said, len(said.splitlines())) == (3, True, 1)
    assert (await submit(ROUTER_TOKEN=token["secret"]))[0] == 0
    assert master.read_bytes() == MASTER
    assert (await submit(ROUTER_TOKEN="mr_made-up"))[0] == 3


async def test_a_token_that_may_look_may_do_nothing_else(router: Served, ann: httpx.AsyncClient) -> None:
    headers = bearer((await new_token(ann, "read"))["secret"])
    job = (await ann.post("/v1/jobs")).json()
    assert (await router.http.get(f"/v1/jobs/{job['id']}", headers=headers)).status_code == 200
    for method, path in (
        ("POST", "/v1/jobs"),
        ("DELETE", f"/v1/jobs/{job['id']}"),
        ("PUT", f"/v1/jobs/{job['id']}/audio"),
    ):
        refused = await router.http.request(method, path, headers=headers)
        assert problem(refused) == (403, "token_scope")
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]


@pytest.mark.parametrize("scope", ["jobs", "read"])
async def test_no_token_opens_the_account(router: Served, ann: httpx.AsyncClient, scope: str) -> None:
    token = await new_token(ann, scope)
    headers = bearer(token["secret"])
    for path in ("/v1/account", "/v1/account/consent", "/v1/account/sessions", "/v1/account/tokens"):
        assert problem(await router.http.get(path, headers=headers)) == (403, "session_only")
    if scope == "jobs":
        for method, path in (
            ("DELETE", "/v1/account"), ("DELETE", "/v1/account/sessions"), ("POST", "/v1/account/tokens"),
            ("DELETE", f"/v1/account/tokens/{token['id']}"), ("POST", "/sign-out"),
        ):  # fmt: skip
            assert problem(await router.http.request(method, path, headers=headers)) == (403, "session_only")


@pytest.mark.parametrize(
    "credentials",
    ["Bearer mr_made-up", "Bearer", "Basic bXI6eA==", "mr_made-up", "Bearer " + "x" * 5000, ""],
)
async def test_a_wrong_token_is_refused_even_beside_a_good_cookie(
    router: Served, ann: httpx.AsyncClient, credentials: str
) -> None:
    response = await ann.get("/v1/jobs/x", headers={"authorization": credentials})
    assert problem(response) == (401, "bad_token")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_a_revoked_token_is_worth_nothing_and_only_its_owner_revokes_it(
    router: Served, ann: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    token = await new_token(ann)
    address = f"/v1/account/tokens/{token['id']}"
    assert problem(await bob.delete(address)) == (404, "not_found")
    assert (await router.http.post("/v1/jobs", headers=bearer(token["secret"]))).status_code == 201
    assert (await ann.delete(address)).status_code == 204
    assert problem(await router.http.post("/v1/jobs", headers=bearer(token["secret"]))) == (401, "bad_token")


async def test_there_is_an_end_to_tokens(ann: httpx.AsyncClient) -> None:
    for _ in range(MOST_TOKENS):
        await new_token(ann)
    assert problem(await ann.post("/v1/account/tokens")) == (409, "too_many_tokens")


# Each other's jobs ----------------------------------------------------------------------------------------------


async def test_anothers_job_is_the_same_404_as_one_that_never_was(
    router: Served, ann: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    job = (await ann.post("/v1/jobs")).json()["id"]
    for method, rest in (
        ("GET", ""), ("DELETE", ""), ("PUT", "/audio"), ("PATCH", "/audio"), ("DELETE", "/audio"),
        ("PUT", "/references/1"), ("GET", "/outputs/wav24"),
    ):  # fmt: skip
        theirs, nobodys = [
            await bob.request(method, f"/v1/jobs/{name}{rest}", headers=TUS) for name in (job, "A" * len(job))
        ]
        assert problem(theirs) == (404, "not_found"), (method, rest)
        assert theirs.content == nobodys.content
        assert {k: v for k, v in theirs.headers.items() if k != "date"} == {
            k: v for k, v in nobodys.headers.items() if k != "date"
        }
    assert (await ann.get(f"/v1/jobs/{job}")).json()["state"] == "received"


async def test_anothers_job_is_refused_after_the_same_time_as_one_that_never_was(
    router: Served, ann: httpx.AsyncClient, bob: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured on a fake clock that only the reading of a large record and the waiting move."""
    job = (await ann.post("/v1/jobs")).json()["id"]
    now_s, real = 100.0, router.services.jobs.get

    async def get(job_id: str) -> Any:
        nonlocal now_s
        now_s += 0.004 if job_id == job else 0.0001
        return await real(job_id)

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += max(0.0, seconds)

    monkeypatch.setattr(router.services.jobs, "get", get)
    monkeypatch.setattr(dependencies, "clock", SimpleNamespace(now=lambda: now_s))
    monkeypatch.setattr(dependencies, "asyncio", SimpleNamespace(sleep=sleep))

    async def took() -> list[float]:
        times = []
        for name in (job, "A" * len(job)):
            began_s = now_s
            assert (await bob.get(f"/v1/jobs/{name}")).status_code == 404
            times.append(round(now_s - began_s, 6))
        return times

    assert await took() == [dependencies.NOT_FOUND_S, dependencies.NOT_FOUND_S]
    monkeypatch.setattr(dependencies, "NOT_FOUND_S", 0.0)
    assert await took() == [0.004, 0.0001], "the control: without the wait the time tells"


# The account ----------------------------------------------------------------------------------------------------


async def test_the_export_is_all_that_the_stores_hold_of_the_account(
    router: Served, ann: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    await ann.put("/v1/account/consent", json={"managed_only": True})
    await bob.put("/v1/account/consent", json={"managed_only": False})
    token = await new_token(ann)
    await new_token(bob)
    job = (await ann.post("/v1/jobs")).json()["id"]
    await bob.post("/v1/jobs")
    held = (await ann.get("/v1/account")).json()
    account = held["account"]
    database = router.services.accounts._db
    for table, rows in held["stored"].items():
        cursor = database.execute(f"SELECT * FROM {table} WHERE account = ?", (account,))  # noqa: S608 — our own names
        names = [column[0] for column in cursor.description]
        assert rows == [{n: v for n, v in zip(names, row, strict=True) if n != "hash"} for row in cursor]
    assert {table: len(rows) for table, rows in held["stored"].items()} == {"consents": 1, "tokens": 1, "usage": 0}
    assert held["stored"]["tokens"][0]["id"] == token["id"]
    assert [view["id"] for view in held["jobs"]] == [job]
    assert len(held["sessions"]) == 1
    assert held["consent"]["managed_only"]
    shown = (await ann.get("/v1/account")).text
    assert token["secret"] not in shown
    assert ann.cookies["dev-sid"] not in shown


async def test_erasure_leaves_nothing_of_the_account_and_everything_of_the_others(
    router: Served, provider: FakeProvider, ann: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    await ann.put("/v1/account/consent", json={"managed_only": True})
    token = await new_token(ann)
    account = (await ann.get("/v1/account")).json()["account"]
    done = (await ann.post("/v1/jobs")).json()["id"]
    await ann.put(f"/v1/jobs/{done}/audio", content=SONG)
    while (await ann.get(f"/v1/jobs/{done}", headers={"prefer": "wait=5"})).json()["state"] != "mastered":
        pass
    await ann.post("/v1/jobs", json={"size_bytes": len(SONG)})
    theirs = (await bob.post("/v1/jobs")).json()["id"]
    cookie = {"cookie": f"dev-sid={ann.cookies['dev-sid']}"}
    assert router.services.spool.usage().blobs > 0
    response = await ann.delete("/v1/account")
    assert response.json() == {"jobs": 2}
    assert problem(await router.http.get("/v1/account", headers=cookie)) == (401, "sign_in")
    assert problem(await router.http.get("/v1/options", headers=bearer(token["secret"]))) == (401, "bad_token")
    assert router.services.spool.usage().blobs == 0
    folders = (router.services.settings.state_dir, router.services.settings.ram_dir)
    assert account.encode() not in bytes_of_files(*folders)
    assert (await bob.get(f"/v1/jobs/{theirs}")).status_code == 200
    async with person(router, provider, "ann") as again:
        held = (await again.get("/v1/account")).json()
        assert (held["jobs"], held["stored"]) == ([], {"consents": [], "tokens": [], "usage": []})
        assert not held["consent"]["chosen"]


async def test_the_guest_of_a_router_without_sign_in_has_an_account_too(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        await router.http.put("/v1/account/consent", json={"managed_only": True})
        job = await router.create()
        held = (await router.http.get("/v1/account")).json()
        assert (held["kind"], [view["id"] for view in held["jobs"]]) == ("guest", [job["id"]])
        assert problem(await router.http.post("/v1/account/tokens")) == (404, "not_found")
        erased = await router.http.delete("/v1/account")
        assert erased.json() == {"jobs": 1}
        assert "set-cookie" not in erased.headers
        held = (await router.http.get("/v1/account")).json()
        assert (held["jobs"], held["consent"]["chosen"]) == ([], False)


# Pseudonyms -----------------------------------------------------------------------------------------------------


async def test_a_person_keeps_everything_when_the_pepper_is_changed(tmp_path: Path, provider: FakeProvider) -> None:
    old, new = "11" * 32, "22" * 32
    async with (
        served(tmp_path, pepper=f"1:{old}", **settings_of(provider)) as router,
        person(router, provider, "ann") as ann,
    ):
        before = (await ann.get("/v1/account")).json()["account"]
        await ann.put("/v1/account/consent", json={"managed_only": True})
        token = await new_token(ann)
    async with (
        served(tmp_path, pepper=f"2:{new},1:{old}", **settings_of(provider)) as router,
        person(router, provider, "ann") as ann,
    ):
        held = (await ann.get("/v1/account")).json()
        assert (before[:3], held["account"][:3]) == ("v1_", "v2_")
        assert held["consent"]["managed_only"]
        assert held["stored"]["tokens"][0]["id"] == token["id"]
        assert (await router.http.get("/v1/jobs/x", headers=bearer(token["secret"]))).status_code == 404
        assert await router.services.accounts.export(before) == {"consents": [], "tokens": [], "usage": []}


async def test_live_jobs_and_other_sessions_move_with_their_person(
    router: Served, provider: FakeProvider, ann: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = (await ann.post("/v1/jobs")).json()["id"]
    assert router.services.sign_in is not None
    old = router.services.sign_in.peppers.versions
    later = router.services.sign_in._replace(peppers=peppers_module.Peppers({2: b"2" * 32, **old}))
    monkeypatch.setattr(router.app.state, "services", router.services._replace(sign_in=later))
    async with person(router, provider, "ann") as phone:
        assert (await phone.get("/v1/account")).json()["account"].startswith("v2_")
        assert (await phone.get(f"/v1/jobs/{job}")).status_code == 200
        assert (await ann.get(f"/v1/jobs/{job}")).status_code == 200, "the browser that was signed in before"


async def test_a_lost_pepper_makes_every_job_managed_only_until_the_operator_confirms(
    tmp_path: Path, provider: FakeProvider
) -> None:
    async with served(tmp_path, **settings_of(provider)) as router, person(router, provider, "ann") as ann:
        await ann.put("/v1/account/consent", json={"managed_only": True})
    (tmp_path / "state" / "pepper").unlink()
    for _ in range(2):
        async with served(tmp_path, **settings_of(provider)) as router, person(router, provider, "ann") as ann:
            assert (await ann.post("/v1/jobs")).json()["managed_only"] is True
            assert not await router.services.accounts.is_trusted()
    async with served(tmp_path, **settings_of(provider)) as router, person(router, provider, "ann") as ann:
        await router.services.accounts.confirm()
        assert (await ann.post("/v1/jobs")).json()["managed_only"] is False


async def test_sessions_of_a_retired_pepper_end_at_the_start(tmp_path: Path) -> None:
    store = sessions_module.LocalSessions(tmp_path / "sessions.sqlite", clock.MachineClock())
    old, new = await store.begin("v1_person"), await store.begin("v12_person")
    await store.end_retired([2, 12])
    assert await store.find(old) is None
    assert await store.find(new) is not None
    store.close()
