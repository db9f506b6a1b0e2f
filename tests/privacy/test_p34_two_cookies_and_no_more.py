"""P34, P02: who signs in is left with the session's cookie alone, and is known by a pseudonym nobody can work back."""

from __future__ import annotations

import hashlib
from http.cookies import SimpleCookie
from pathlib import Path

from router.web import cookies
from tests.openid import SUBJECT, openid_provider, settings_of
from tests.served import served


async def test_p34_p02_a_sign_in_sets_two_cookies_and_leaves_one(tmp_path: Path) -> None:
    with openid_provider() as provider:
        async with served(tmp_path, **settings_of(provider)) as router:
            begun = await router.http.get("/sign-in")
            back = (await router.http.get(begun.headers["location"])).headers["location"]
            ended = await router.http.get(back)
            account = (await router.http.get("/v1/account")).json()["account"]
            for path in ("/", "/privacy", "/v1/options", "/account"):
                assert (await router.http.get(path)).headers.get_list("set-cookie") == []
            left = set(router.http.cookies)
    told = [*begun.headers.get_list("set-cookie"), *ended.headers.get_list("set-cookie")]
    names = {name for line in told for name in SimpleCookie(line)}
    assert names == {"dev-login", "dev-sid"}, "on plain http of loopback; __Host- by TLS"
    assert left == {"dev-sid"}
    for line in told:
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(line.split("; "))
    for digest in (hashlib.sha256, hashlib.sha1, hashlib.md5):
        assert digest(SUBJECT.encode()).hexdigest()[:16] not in account
    assert SUBJECT not in "".join(told)


def test_p34_by_tls_both_are_host_cookies_that_travel_by_tls_alone() -> None:
    class Https:
        is_https = True

    class ServicesStub:
        sign_in = Https()

    for kind in (cookies.SESSION, cookies.LOGIN):
        line = cookies._header_value(ServicesStub(), kind, "x", None)  # type: ignore[arg-type]
        assert line.startswith(f"__Host-{kind}=x; ")
        assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(line.split("; "))
