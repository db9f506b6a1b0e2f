"""Signed-in people at a served router, each with a browser (cookie jar) of their own.

async with served(tmp_path, **settings_of(provider)) as router, person(router, provider, "ann") as ann:
    await ann.get("/v1/account")
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.loopback import TLS
from tests.openid import FakeProvider, Json
from tests.served import Served
from tests.services import PATIENCE_S


@asynccontextmanager
async def person(
    router: Served, provider: FakeProvider, subject: str, headers: dict[str, str] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A browser in which `subject` has signed in; it says by Origin that our own page sends its requests."""
    origin = f"http://127.0.0.1:{router.port}"
    async with httpx.AsyncClient(
        base_url=origin, trust_env=False, timeout=PATIENCE_S, headers={"origin": origin, **(headers or {})}, verify=TLS
    ) as browser:
        await sign_in_with(browser, provider, subject)
        yield browser


async def sign_in_with(browser: httpx.AsyncClient, provider: FakeProvider, subject: str) -> httpx.Response:
    """Sign in with this browser as `subject`; the last response."""
    claims_before = provider.misbehave.claims

    def for_subject(claims: Json) -> Json:
        return claims_before({**claims, "sub": subject})

    provider.misbehave.claims = for_subject
    try:
        asked = await browser.get("/sign-in")
        async with httpx.AsyncClient(trust_env=False, verify=TLS) as provider_site:
            answer = await provider_site.get(asked.headers["location"])
        return await browser.get(answer.headers["location"])
    finally:
        provider.misbehave.claims = claims_before
