"""`router doctor` and the commands for peppers, run as processes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.identity import pseudonyms
from router.identity.accounts import Consent, LocalAccounts
from tests import warm_start
from tests.openid import CLIENT_ID, CLIENT_SECRET, FakeProvider, Misbehaviour, ProviderResponse, openid_provider

REDIRECT = "http://127.0.0.1:8080/sign-in/callback"


@pytest.fixture(scope="module")
def provider_process() -> Iterator[FakeProvider]:
    with openid_provider() as provider:
        yield provider


@pytest.fixture
def provider(provider_process: FakeProvider) -> FakeProvider:
    provider_process.misbehave = Misbehaviour()
    return provider_process


def router(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    own = {"state_dir": str(folder / "state"), "ram_dir": str(folder / "ram"), **settings}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")}
    environment |= {f"ROUTER_{name.upper()}": value for name, value in own.items()}
    return warm_start.run("router", arguments, environment)


def doctor(
    folder: Path, provider: FakeProvider | None = None, **settings: str
) -> tuple[int, dict[str, list[str]], str]:
    """Exit code, sentences by result, and everything printed."""
    if provider is not None:
        named = {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT_ID, "oidc_client_secret": CLIENT_SECRET}
        settings = {**named, **settings}
    ended = router(folder, "doctor", **settings)
    assert "Traceback" not in ended.stderr
    lines = re.findall(r"^(ok|note|FAILED) +(.*)$", ended.stdout, re.MULTILINE)
    found: dict[str, list[str]] = {"ok": [], "note": [], "FAILED": []}
    for verdict, sentence in lines:
        found[verdict].append(sentence)
    return ended.returncode, found, ended.stdout + ended.stderr


def test_without_credentials_it_says_step_by_step_how_to_get_them(tmp_path: Path) -> None:
    code, found, said = doctor(tmp_path)
    assert (code, found["FAILED"]) == (0, [])
    steps = [int(number) for number in re.findall(r"^ (\d)\. ", said, re.MULTILINE)]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert REDIRECT in said
    assert "ROUTER_OIDC_CLIENT_SECRET" in said


def test_the_redirect_uri_follows_the_public_address(tmp_path: Path) -> None:
    _, found, said = doctor(tmp_path, public_url="https://master.example")
    assert "https://master.example/sign-in/callback" in said
    assert any("https" in sentence for sentence in found["ok"])


def test_a_set_up_that_works_is_found_to_work_and_nothing_is_made(tmp_path: Path, provider: FakeProvider) -> None:
    code, found, said = doctor(tmp_path, provider)
    assert (code, found["FAILED"]) == (0, []), said
    assert len(found["ok"]) == 8
    assert found["note"] == [f"The provider must have this redirect URI on record: {REDIRECT}"]
    assert CLIENT_SECRET not in said
    assert not (tmp_path / "state").exists()


def test_an_address_that_is_open_to_others_needs_sign_in(tmp_path: Path) -> None:
    code, found, _ = doctor(tmp_path, host="0.0.0.0")  # noqa: S104 — to be refused
    assert (code, len(found["FAILED"])) == (1, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"oidc_client_id": "x"}, "come together"),
        ({"oidc_issuer": "http://accounts.google.com"}, "https:// is needed"),
        ({"oidc_client_id": "x", "oidc_client_secret": "y", "host": "0.0.0.0"}, "public_url is needed"),  # noqa: S104
        ({"public_url": "http://master.example"}, "public_url"),
    ],
)
def test_settings_that_can_not_be_are_named_in_one_line(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    ended = router(tmp_path, "doctor", **settings)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_googles_client_ids_have_a_form(tmp_path: Path) -> None:
    _, found, _ = doctor(
        tmp_path, oidc_client_id="mastering", oidc_client_secret="x", host="127.0.0.1", https_proxy="http://127.0.0.1:9"
    )
    assert any("none of Google's" in sentence for sentence in found["FAILED"])


def test_a_provider_that_does_not_know_us_is_noticed(tmp_path: Path, provider: FakeProvider) -> None:
    _, found, _ = doctor(tmp_path, provider, oidc_client_id="somebody-else")
    assert [sentence.split(":")[0] for sentence in found["FAILED"]] == [
        "The provider refuses this client id or redirect URI",
        "The provider refuses the client's secret. Copy it again.",
    ]
    code, found, _ = doctor(tmp_path, provider, oidc_client_secret="a wrong one")
    assert (code, found["FAILED"]) == (1, ["The provider refuses the client's secret. Copy it again."])


def test_a_provider_that_is_away_or_another_is_noticed(tmp_path: Path, provider: FakeProvider) -> None:
    _, found, _ = doctor(tmp_path, provider, oidc_issuer="http://127.0.0.1:9")
    assert any("gives no answer" in sentence for sentence in found["FAILED"])
    provider.misbehave.discovery = lambda described: {**described, "issuer": "https://accounts.google.com"}
    _, found, _ = doctor(tmp_path, provider)
    assert any("discovery_of_another_issuer" in sentence for sentence in found["FAILED"])


def test_a_clock_that_is_wrong_is_noticed(
    tmp_path: Path, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = provider.discovery

    def late() -> ProviderResponse:
        answer = right()
        return ProviderResponse(answer.body, headers={**answer.headers, "date": "Sat, 01 Jan 2000 00:00:00 GMT"})

    monkeypatch.setattr(provider, "discovery", late)
    code, found, _ = doctor(tmp_path, provider)
    assert code == 1
    assert re.fullmatch(r"This clock is \d+ s ahead of the provider's; 30 are allowed\.", found["FAILED"][0])


async def test_a_pepper_that_others_can_read_or_that_is_not_the_accounts_own_is_noticed(
    tmp_path: Path, provider: FakeProvider
) -> None:
    state = tmp_path / "state"
    known = pseudonyms.load_peppers(state, None)
    store = LocalAccounts(state)
    await store.expect_peppers(known.fingerprints())
    store.close()
    assert doctor(tmp_path, provider)[0] == 0
    (state / "pepper").chmod(0o644)
    assert "chmod 600" in doctor(tmp_path, provider)[1]["FAILED"][0]
    (state / "pepper").unlink()
    assert "The pepper is lost" in doctor(tmp_path, provider)[1]["FAILED"][0]
    assert "lacks the pepper 1" in doctor(tmp_path, provider, pepper=f"1:{'ab' * 32}")[1]["FAILED"][0]
    assert "no pepper that can be used" in doctor(tmp_path, provider, pepper="1:short")[1]["FAILED"][0]


def test_a_store_that_is_lost_or_damaged_is_noticed_and_left_as_it_is(tmp_path: Path) -> None:
    state = tmp_path / "state"
    LocalAccounts(state).close()
    file = state / "accounts.sqlite"
    file.write_bytes(b"\x5a" * 5000)
    code, found, _ = doctor(tmp_path)
    assert (code, "damaged" in found["FAILED"][0]) == (1, True)
    assert file.read_bytes() == b"\x5a" * 5000
    LocalAccounts(state).close()
    assert "router accounts confirm" in doctor(tmp_path)[1]["FAILED"][0]


async def test_a_pepper_is_rotated_and_the_old_ones_retired_with_who_never_came_back(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = pseudonyms.load_peppers(state, None)
    assert router(tmp_path, "accounts", "rotate-pepper").returncode == 0
    both = pseudonyms.load_peppers(state, None)
    assert [*both.versions] == [2, 1]
    assert both.versions[1] == first.versions[1]
    assert (state / "pepper").stat().st_mode & 0o777 == 0o600
    gone, here = both.pseudonyms("i", "gone")[1], both.pseudonyms("i", "here")[0]
    store = LocalAccounts(state)
    await store.expect_peppers(both.fingerprints())
    for account in (gone, here):
        await store.set_consent(account, Consent(True, "managed", 1))
    store.close()
    ended = router(tmp_path, "accounts", "retire-peppers")
    assert (ended.returncode, "Pepper 1: 1 rows erased." in ended.stdout) == (0, True)
    after = pseudonyms.load_peppers(state, None)
    store = LocalAccounts(state)
    assert await store.expect_peppers(after.fingerprints()), "what was retired is not missed"
    assert (await store.is_trusted(), await store.consent(gone)) == (True, None)
    assert await store.consent(here) is not None
    store.close()
    refused = router(tmp_path, "accounts", "rotate-pepper", pepper=f"1:{'ab' * 32}")
    assert (refused.returncode, "ROUTER_PEPPER" in refused.stderr) == (2, True)
