"""Sign-in with a hostile OpenID provider: a good answer is accepted, every bad one is refused."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from router.core import clock, event_log
from router.identity import http_fetch
from router.identity import login as attempts
from router.identity import oidc as provider_module
from router.identity.http_fetch import MAX_ANSWER_BYTES
from router.web import cookies
from router.web.pages import sign_in as sign_in_pages
from tests.loopback import TLS
from tests.openid import (
    CLIENT_ID,
    CLIENT_SECRET,
    KID,
    FakeProvider,
    Json,
    Misbehaviour,
    ProviderResponse,
    b64,
    hs256,
    jwk_of,
    new_key,
    openid_provider,
    public_pem,
    rs256,
    settings_of,
)
from tests.served import Served, served

FOREIGN_KEY, WEAK_KEY = new_key(), new_key(1024)


@pytest.fixture(scope="module")
def provider_process() -> Iterator[FakeProvider]:
    with openid_provider() as provider:
        yield provider


@pytest.fixture
def provider(provider_process: FakeProvider) -> FakeProvider:
    provider_process.misbehave = Misbehaviour()
    provider_process.asked.clear()
    return provider_process


@pytest.fixture
async def router(tmp_path: Path, provider: FakeProvider) -> AsyncIterator[Served]:
    async with served(tmp_path, **settings_of(provider)) as router:
        yield router


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The outcomes of sign-ins that were logged."""
    told: list[str] = []
    monkeypatch.setattr(sign_in_pages, "log", lambda _, outcome: told.append(outcome))
    return told


async def begin_at_provider(router: Served) -> str:
    """Begin a sign-in; the provider's address that the browser is sent to, with its parameters."""
    response = await router.http.get("/sign-in")
    assert response.status_code == 303, response.text
    return response.headers["location"]


async def agree_at_provider(url: str) -> str:
    """Agree on the provider's page; the address that the browser is sent back to."""
    async with httpx.AsyncClient(trust_env=False, verify=TLS) as browser:
        response = await browser.get(url)
    assert response.status_code == 303, response.text
    return response.headers["location"]


async def sign_in(router: Served) -> httpx.Response:
    """A whole sign-in, as a browser does it; the last response."""
    return await router.http.get(await agree_at_provider(await begin_at_provider(router)))


def assert_not_signed_in(router: Served, response: httpx.Response, status: int = 400) -> None:
    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/html")
    assert "sid=" not in response.headers.get("set-cookie", "")
    assert "dev-sid" not in router.http.cookies
    assert router.services.sign_in is not None
    assert _rows(router) == 0


def _rows(router: Served) -> int:
    accounts, sessions = router.services.accounts._db, router.services.sign_in.sessions._db  # type: ignore[union-attr]
    rows = accounts.execute("SELECT account FROM consents UNION ALL SELECT account FROM tokens").fetchall()
    return len(rows) + len(sessions.execute("SELECT id FROM sessions").fetchall())


# Good answers -----------------------------------------------------------------------------------------------------


async def test_the_good_answer_signs_in_and_the_person_is_known_by_a_pseudonym_alone(
    router: Served, provider: FakeProvider, outcomes: list[str]
) -> None:
    response = await sign_in(router)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert outcomes == ["signed_in"]
    held = (await router.http.get("/v1/account")).json()
    assert held["kind"] == "person"
    assert held["account"].startswith("v1_")
    assert len(held["account"]) == len("v1_") + 22, "128 bits"


async def test_nothing_is_asked_of_the_provider_but_the_subject(router: Served, provider: FakeProvider) -> None:
    asked = {name: values[0] for name, values in parse_qs(urlsplit(await begin_at_provider(router)).query).items()}
    assert asked["scope"] == "openid"
    assert asked["code_challenge_method"] == "S256"
    assert set(asked) == {
        "response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge",
        "code_challenge_method",
    }  # fmt: skip
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) == 43, "256 bits each"


async def test_userinfo_is_never_asked_and_the_code_goes_with_our_secret_and_the_verifier(
    router: Served, provider: FakeProvider
) -> None:
    await sign_in(router)
    assert provider.count("/userinfo") == 0
    (form,) = [form for _, path, form in provider.asked if path == "/token"]
    assert set(form) == {"grant_type", "code", "redirect_uri", "code_verifier"}
    assert CLIENT_SECRET not in json.dumps([asked for asked in provider.asked if asked[0] == "GET"])


async def test_a_clock_that_is_twenty_seconds_off_is_forgiven(router: Served, provider: FakeProvider) -> None:
    ahead = {"iat": time.time() + 20, "nbf": time.time() + 20}
    provider.misbehave.claims = lambda claims: {**claims, **ahead}
    assert (await sign_in(router)).headers["location"] == "/"


async def test_an_audience_of_one_in_a_list_is_the_same_audience(router: Served, provider: FakeProvider) -> None:
    provider.misbehave.claims = lambda claims: {**claims, "aud": [CLIENT_ID], "azp": CLIENT_ID}
    assert (await sign_in(router)).headers["location"] == "/"


async def test_a_provider_may_change_its_keys(router: Served, provider: FakeProvider) -> None:
    await sign_in(router)
    before = provider.count("/jwks")
    old, provider.key = provider.key, new_key()
    provider.misbehave.keys = lambda keys: [{**keys[0], "kid": "key-2"}]
    provider.misbehave.header = lambda header: {**header, "kid": "key-2"}
    try:
        assert (await sign_in(router)).headers["location"] == "/"
        assert provider.count("/jwks") == before + 1, "asked once more, because the key was unknown"
    finally:
        provider.key = old


# Bad answers ------------------------------------------------------------------------------------------------------


def _claim(name: str, value: object) -> Callable[[Json], Json]:
    return lambda claims: {**claims, name: value}


def _without(name: str) -> Callable[[Json], Json]:
    return lambda claims: {key: value for key, value in claims.items() if key != name}


def _in(name: str, seconds: float) -> Callable[[Json], Json]:
    return lambda claims: {**claims, name: int(time.time() + seconds)}


def _alg(name: str) -> Callable[[Json], Json]:
    return lambda header: {**header, "alg": name}


def _lists(*names: str) -> Callable[[Json], Json]:
    return lambda found: {**found, "id_token_signing_alg_values_supported": ["RS256", *names]}


def _tampered(token: str) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(_unb64(payload))
    return f"{header}.{b64(json.dumps({**claims, 'sub': 'somebody else'}).encode())}.{signature}"


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


BAD_TOKENS: dict[str, tuple[Misbehaviour, str]] = {
    "empty audience": (Misbehaviour(claims=_claim("aud", "")), "bad_aud"),
    "foreign audience": (Misbehaviour(claims=_claim("aud", "another-client")), "bad_aud"),
    "several audiences": (Misbehaviour(claims=_claim("aud", [CLIENT_ID, "another-client"])), "bad_aud"),
    "an audience twice": (Misbehaviour(claims=_claim("aud", [CLIENT_ID, CLIENT_ID])), "bad_aud"),
    "no audience": (Misbehaviour(claims=_without("aud")), "bad_aud"),
    "empty subject": (Misbehaviour(claims=_claim("sub", "")), "bad_sub"),
    "no subject": (Misbehaviour(claims=_without("sub")), "bad_sub"),
    "a subject that is a number": (Misbehaviour(claims=_claim("sub", 108204268033311374519)), "bad_sub"),
    "a subject that is a list": (Misbehaviour(claims=_claim("sub", ["a"])), "bad_sub"),
    "an overlong subject": (Misbehaviour(claims=_claim("sub", "1" * 256)), "bad_sub"),
    "a subject with a NUL": (Misbehaviour(claims=_claim("sub", "a\0b")), "bad_sub"),
    "expired for a minute": (Misbehaviour(claims=_in("exp", -60)), "bad_exp"),
    "no end": (Misbehaviour(claims=_without("exp")), "bad_exp"),
    "an end that is not a number": (Misbehaviour(claims=_claim("exp", math.nan)), "bad_exp"),
    "an end that is true": (Misbehaviour(claims=_claim("exp", True)), "bad_exp"),
    "an endless end": (Misbehaviour(claims=_claim("exp", math.inf)), "bad_exp"),
    "issued in a minute": (Misbehaviour(claims=_in("iat", 60)), "bad_iat"),
    "no time of issue": (Misbehaviour(claims=_without("iat")), "bad_iat"),
    "not before in a minute": (Misbehaviour(claims=_in("nbf", 60)), "bad_nbf"),
    "alg none, listed in the metadata": (
        Misbehaviour(header=_alg("none"), sign=lambda _: b"", discovery=_lists("none")),
        "wrong_algorithm",
    ),
    "alg None": (Misbehaviour(header=_alg("None"), sign=lambda _: b""), "wrong_algorithm"),
    "no algorithm": (Misbehaviour(header=_without("alg"), sign=lambda _: b""), "malformed"),
    "an algorithm of another family": (
        Misbehaviour(header=_alg("PS256"), discovery=_lists("PS256")),
        "wrong_algorithm",
    ),
    "a critical extension": (Misbehaviour(header=_claim("crit", ["b64"])), "wrong_algorithm"),
    "a foreign key under a known name": (Misbehaviour(sign=rs256(FOREIGN_KEY)), "bad_signature"),
    "a key that the token brings": (
        Misbehaviour(header=_claim("jwk", jwk_of(FOREIGN_KEY)), sign=rs256(FOREIGN_KEY)),
        "malformed",
    ),
    "a key to be fetched elsewhere": (
        Misbehaviour(header=_claim("jku", "https://evil.example/keys"), sign=rs256(FOREIGN_KEY)),
        "bad_signature",
    ),
    "an unknown key": (Misbehaviour(header=_claim("kid", "key-9"), sign=rs256(FOREIGN_KEY)), "unknown_key"),
    "a key for encryption": (Misbehaviour(keys=lambda keys: [{**keys[0], "use": "enc"}]), "unknown_key"),
    "two keys of one name": (Misbehaviour(keys=lambda keys: [*keys, jwk_of(FOREIGN_KEY)]), "unknown_key"),
    "a weak key": (
        Misbehaviour(keys=lambda _: [jwk_of(WEAK_KEY)], sign=rs256(WEAK_KEY)),
        "weak_key",
    ),
    "changed after signing": (Misbehaviour(id_token=_tampered), "bad_signature"),
    "without its signature": (Misbehaviour(id_token=lambda t: t.rpartition(".")[0] + "."), "bad_signature"),
    "another issuer": (Misbehaviour(claims=_claim("iss", "https://accounts.google.com")), "bad_iss"),
    "an issuer with a slash more": (Misbehaviour(claims=lambda c: {**c, "iss": c["iss"] + "/"}), "bad_iss"),
    "no issuer": (Misbehaviour(claims=_without("iss")), "bad_iss"),
    "no nonce": (Misbehaviour(claims=_without("nonce")), "bad_nonce"),
    "another nonce": (Misbehaviour(claims=_claim("nonce", "of another attempt")), "bad_nonce"),
    "made for another party": (Misbehaviour(claims=_claim("azp", "another-client")), "bad_azp"),
    "of another access token": (Misbehaviour(claims=_claim("at_hash", b64(bytes(16)))), "bad_at_hash"),
    "a hash that is a number": (Misbehaviour(claims=_claim("at_hash", 7)), "bad_at_hash"),
    "huge": (Misbehaviour(claims=_claim("padding", "x" * 20_000)), "malformed"),
    "no JWT": (Misbehaviour(id_token=lambda _: "not.a.token"), "malformed"),
    "two parts": (Misbehaviour(id_token=lambda t: t.rpartition(".")[0]), "malformed"),
    "a number": (Misbehaviour(id_token=lambda _: 7), "malformed"),
    "missing": (Misbehaviour(id_token=lambda _: None), "no_id_token"),
}


@pytest.mark.parametrize("case", BAD_TOKENS)
async def test_a_bad_token_is_refused_for_what_is_bad(
    router: Served, provider: FakeProvider, outcomes: list[str], case: str
) -> None:
    misbehaviour, reason = BAD_TOKENS[case]
    provider.misbehave = dataclasses.replace(misbehaviour)
    response = await sign_in(router)
    assert outcomes == [reason]
    assert_not_signed_in(router, response)


async def test_a_token_signed_by_the_public_key_as_a_secret_is_refused(
    router: Served, provider: FakeProvider, outcomes: list[str]
) -> None:
    provider.misbehave = Misbehaviour(
        header=_alg("HS256"), sign=hs256(public_pem(provider.key)), discovery=_lists("HS256")
    )
    assert_not_signed_in(router, await sign_in(router))
    assert outcomes == ["wrong_algorithm"]


async def test_an_unknown_key_is_looked_up_once_more_and_not_oftener(router: Served, provider: FakeProvider) -> None:
    provider.misbehave = Misbehaviour(header=_claim("kid", "key-9"))
    await sign_in(router)
    assert provider.count("/jwks") == 2


BAD_ANSWERS: dict[str, tuple[Misbehaviour, str, int]] = {
    "another issuer's answer": (
        Misbehaviour(answer=_claim("iss", "https://evil.example")), "answer_of_another_issuer", 400,
    ),
    "an answer that hides its issuer": (Misbehaviour(answer=_without("iss")), "answer_of_another_issuer", 400),
    "another state": (Misbehaviour(answer=_claim("state", "of another attempt")), "wrong_state", 400),
    "no state": (Misbehaviour(answer=_without("state")), "wrong_state", 400),
    "no code": (Misbehaviour(answer=_without("code")), "no_code", 400),
    "an overlong code": (Misbehaviour(answer=_claim("code", "x" * 5000)), "no_code", 400),
    "a code of nobody": (Misbehaviour(answer=_claim("code", "made up")), "code_refused", 400),
    "an error": (Misbehaviour(answer=_claim("error", "server_error")), "provider_error", 400),
    "a person who says no": (Misbehaviour(answer=_claim("error", "access_denied")), "declined", 400),
    "tokens behind a redirect": (
        Misbehaviour(tokens=lambda a: ProviderResponse(a.body, 307, {"location": "/userinfo"})), "no_tokens", 400,
    ),
    "tokens that are no JSON": (Misbehaviour(tokens=lambda _: ProviderResponse(b"<html>")), "no_tokens", 400),
    "tokens that are a list": (Misbehaviour(tokens=lambda _: ProviderResponse(b"[]")), "no_tokens", 400),
    "an answer without end": (
        Misbehaviour(tokens=lambda a: ProviderResponse(a.body + b" " * MAX_ANSWER_BYTES)), "too_long", 400,
    ),
    "a packed answer": (Misbehaviour(tokens=ProviderResponse.packed), "too_long", 400),
    "a broken provider": (Misbehaviour(tokens=lambda _: ProviderResponse(b"", 502)), "provider_broken", 503),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ANSWERS)
async def test_a_bad_answer_is_refused(router: Served, provider: FakeProvider, outcomes: list[str], case: str) -> None:
    misbehaviour, reason, status = BAD_ANSWERS[case]
    provider.misbehave = dataclasses.replace(misbehaviour)
    response = await sign_in(router)
    assert outcomes == [reason]
    assert_not_signed_in(router, response, status)
    assert provider.count("/userinfo") == 0, "no redirect was followed"


BAD_DISCOVERIES: dict[str, tuple[Callable[[Json], Any], str]] = {
    "another issuer": (_claim("issuer", "https://accounts.google.com"), "discovery_of_another_issuer"),
    "no endpoint": (_without("token_endpoint"), "discovery_without_endpoints"),
    "an endpoint of another scheme": (_claim("jwks_uri", "file:///etc/passwd"), "discovery_without_endpoints"),
    "a list": (lambda _: [], "unreadable"),
    "too much": (_claim("padding", "x" * MAX_ANSWER_BYTES), "too_long"),
}


@pytest.mark.parametrize("case", BAD_DISCOVERIES)
async def test_a_provider_that_describes_itself_badly_is_not_gone_to(
    router: Served, provider: FakeProvider, outcomes: list[str], case: str
) -> None:
    provider.misbehave.discovery, reason = BAD_DISCOVERIES[case]
    assert_not_signed_in(router, await router.http.get("/sign-in"))
    assert outcomes == [reason]


async def test_a_provider_that_is_away_is_said_to_be_away(
    router: Served, outcomes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router.services.sign_in.provider, "issuer", "http://127.0.0.1:9")  # type: ignore[union-attr]
    assert_not_signed_in(router, await router.http.get("/sign-in"), 503)
    assert outcomes == ["provider_silent"]


async def test_a_code_that_was_used_is_worth_nothing(router: Served, outcomes: list[str]) -> None:
    first = await agree_at_provider(await begin_at_provider(router))
    code = parse_qs(urlsplit(first).query)["code"][0]
    assert (await router.http.get(first)).headers["location"] == "/"
    router.http.cookies.clear()
    second = await agree_at_provider(await begin_at_provider(router))
    replayed = second.replace(parse_qs(urlsplit(second).query)["code"][0], code)
    response = await router.http.get(replayed)
    assert (response.status_code, outcomes) == (400, ["signed_in", "code_refused"])


async def test_a_code_of_another_attempt_is_stopped_by_pkce(
    router: Served, provider: FakeProvider, outcomes: list[str]
) -> None:
    """A stolen code used in another attempt: only the verifier of the browser that began it redeems it."""
    stolen = parse_qs(urlsplit(await agree_at_provider(await begin_at_provider(router))).query)["code"][0]
    router.http.cookies.clear()
    own = await agree_at_provider(await begin_at_provider(router))
    response = await router.http.get(own.replace(parse_qs(urlsplit(own).query)["code"][0], stolen))
    assert outcomes == ["code_refused"]
    assert_not_signed_in(router, response)


async def test_an_attempt_comes_back_once(router: Served, outcomes: list[str]) -> None:
    back = await agree_at_provider(await begin_at_provider(router))
    cookie = router.http.cookies["dev-login"]
    await router.http.get(back)
    router.http.cookies.clear()
    again = await router.http.get(back, headers={"cookie": f"dev-login={cookie}"})
    assert (again.status_code, outcomes) == (400, ["signed_in", "used_before"])


# Several tabs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_two_tabs_sign_in_in_either_order(router: Served, outcomes: list[str], order: tuple[int, int]) -> None:
    backs = [await agree_at_provider(await begin_at_provider(router)) for _ in range(2)]
    for tab in order:
        response = await router.http.get(backs[tab])
        assert (response.status_code, response.headers.get("location")) == (303, "/")
    assert set(outcomes) == {"signed_in"}
    assert set(router.http.cookies) == {"dev-sid"}
    assert (await router.http.get("/v1/account")).json()["kind"] == "person"
    assert _rows(router) == 1, "the second sign-in took the place of the first one's session"


async def test_each_tab_goes_on_to_the_page_where_it_began(router: Served) -> None:
    begun = [await router.http.get("/sign-in", params={"then": then}) for then in ("account", "")]
    backs = [await agree_at_provider(response.headers["location"]) for response in begun]
    assert [(await router.http.get(back)).headers["location"] for back in backs] == ["/account", "/"]


@pytest.mark.parametrize("again", ["the same address", "a second code for it", "a made-up state", "a no"])
async def test_whoever_is_in_sees_the_page_and_not_a_failure(router: Served, outcomes: list[str], again: str) -> None:
    """A reload, the way back to the provider's page, a forged answer, a no in a tab that was left open."""
    at_provider = await begin_at_provider(router)
    back = await agree_at_provider(at_provider)
    other = await agree_at_provider(await begin_at_provider(router))
    await router.http.get(back)
    session = router.http.cookies["dev-sid"]
    address = {
        "the same address": back,
        "a second code for it": await agree_at_provider(at_provider),
        "a made-up state": f"{back.partition('?')[0]}?state=made-up&code=x",
        "a no": f"{other}&error=access_denied",
    }[again]
    response = await router.http.get(address)
    assert (response.status_code, response.headers.get("location")) == (303, "/")
    assert outcomes[0] == "signed_in"
    assert outcomes[1:] == [{"a made-up state": "wrong_state", "a no": "declined"}.get(again, "wrong_state")]
    assert router.http.cookies["dev-sid"] == session
    assert (await router.http.get("/v1/account")).json()["kind"] == "person"


@pytest.mark.parametrize("failure", ["a no", "a forged answer", "an answer that says a thing twice", "no state"])
async def test_an_answer_that_fails_in_one_tab_leaves_the_other_tab_its_sign_in(
    router: Served, outcomes: list[str], failure: str
) -> None:
    kept, failing = [await agree_at_provider(await begin_at_provider(router)) for _ in range(2)]
    before = router.http.cookies["dev-login"]
    path = failing.partition("?")[0]
    response = await router.http.get(
        {
            "a no": f"{failing}&error=access_denied",
            "a forged answer": f"{path}?state=made-up&code=x",
            "an answer that says a thing twice": f"{failing}&code=x",
            "no state": path,
        }[failure]
    )
    assert_not_signed_in(router, response)
    own = failure == "a no"
    assert ("set-cookie" in response.headers) == own, "what belongs to no attempt of this browser changes nothing"
    assert router.http.cookies["dev-login"] == (before.partition("~")[0] if own else before)
    assert (await router.http.get(kept)).headers.get("location") == "/"
    assert outcomes[1:] == ["signed_in"]


async def test_a_provider_that_is_away_for_one_tab_drops_no_other_tabs_sign_in(
    router: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = await agree_at_provider(await begin_at_provider(router))
    with monkeypatch.context() as away:
        away.setattr(router.services.sign_in.provider, "metadata", _silent)  # type: ignore[union-attr]
        assert (await router.http.get("/sign-in")).status_code == 503
    assert (await router.http.get(back)).headers.get("location") == "/"


async def _silent() -> None:
    raise http_fetch.ProviderUnavailable("provider_silent")


async def test_a_browser_has_five_sign_ins_under_way_at_most(router: Served, outcomes: list[str]) -> None:
    backs = [await agree_at_provider(await begin_at_provider(router)) for _ in range(attempts.MOST_ATTEMPTS + 1)]
    assert len(router.http.cookies["dev-login"]) <= cookies.MOST_CHARS[cookies.LOGIN]
    assert_not_signed_in(router, await router.http.get(backs[0]))
    assert (await router.http.get(backs[1])).headers.get("location") == "/"
    assert outcomes == ["wrong_state", "signed_in"]


async def test_an_answer_in_another_browser_signs_nobody_in(router: Served, outcomes: list[str]) -> None:
    """Login CSRF: a victim who opens an attacker's own callback must not be signed in as the attacker."""
    back = await agree_at_provider(await begin_at_provider(router))
    router.http.cookies.clear()
    assert_not_signed_in(router, await router.http.get(back))
    await begin_at_provider(router)
    assert_not_signed_in(router, await router.http.get(back))
    assert outcomes == ["no_attempt", "wrong_state"]


async def test_an_attempt_ends_after_ten_minutes_and_can_not_be_made_younger(
    router: Served, outcomes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    back = await agree_at_provider(await begin_at_provider(router))
    cookie = router.http.cookies["dev-login"]
    began, _, rest = cookie.partition(".")
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + attempts.LIFETIME_S)
    assert_not_signed_in(router, await router.http.get(back, headers={"cookie": f"dev-login={cookie}"}))
    router.http.cookies.clear()
    younger = f"{int(began) + attempts.LIFETIME_S}.{rest}"
    assert_not_signed_in(router, await router.http.get(back, headers={"cookie": f"dev-login={younger}"}))
    assert outcomes == ["no_attempt", "wrong_state"]


async def test_an_answer_that_says_a_thing_twice_is_refused(router: Served, outcomes: list[str]) -> None:
    back = await agree_at_provider(await begin_at_provider(router))
    assert_not_signed_in(router, await router.http.get(f"{back}&code=another"))
    assert outcomes == ["said_twice"]


async def test_a_person_is_sent_nowhere_but_to_our_own_pages(router: Served) -> None:
    for then, expected in (("account", "/account"), ("https://evil.example", "/"), ("//evil.example", "/")):
        response = await router.http.get("/sign-in", params={"then": then})
        back = await agree_at_provider(response.headers["location"])
        assert (await router.http.get(back)).headers["location"] == expected


async def test_another_name_of_this_machine_is_led_to_the_one_that_the_provider_knows(router: Served) -> None:
    host = f"localhost:{router.port}"
    response = await router.http.get("/sign-in", headers={"host": host}, params={"then": "account"})
    assert response.headers["location"] == f"http://127.0.0.1:{router.port}/sign-in?then=account"
    assert "set-cookie" not in response.headers


async def test_without_credentials_there_is_no_sign_in_and_no_cookie(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        for method, path in (("GET", "/sign-in"), ("GET", "/sign-in/callback"), ("POST", "/sign-out")):
            response = await router.http.request(method, path)
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
            assert "set-cookie" not in response.headers


def test_the_pure_part_of_the_key_choice_takes_the_only_key_where_none_is_named() -> None:
    keys = [{"kty": "RSA", "kid": KID}]
    assert provider_module._key_of({}, keys) == keys[0]
    assert provider_module._key_of({}, [*keys, {"kty": "RSA", "kid": "key-2"}]) is None


def test_the_log_knows_every_outcome_of_a_sign_in() -> None:
    """An outcome that is not on its list would be dropped, and an operator would look for it in vain."""
    said = "".join(
        Path(module.__file__ or "").read_text("utf-8") for module in (sign_in_pages, http_fetch, provider_module)
    )
    raised = set(re.findall(r'(?:Refused|Unavailable)\([^f"]*"(\w+)"', said)) | {"signed_in"}
    tested = {reason for table in (BAD_TOKENS, BAD_DISCOVERIES) for _, reason in table.values()}
    tested |= {reason for _, reason, _ in BAD_ANSWERS.values()}
    assert len(raised) > 15
    assert raised | tested <= event_log.SIGN_INS.words
