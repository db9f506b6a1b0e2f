"""People who are signed in at a served router, each with a browser of their own.

async with served(tmp_path, **settings_of(provider)) as router, person(router, provider, "ann") as ann:
    await ann.get("/v1/account")
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.openid import Json, Provider
from tests.served import Served
from tests.services import PATIENCE_S


@asynccontextmanager
async def person(router: Served, provider: Provider, subject: str) -> AsyncIterator[httpx.AsyncClient]:
    """A browser in which `subject` has signed in; it says by Origin that our own page sends its requests."""
    origin = f"http://127.0.0.1:{router.port}"
    async with httpx.AsyncClient(
        base_url=origin, trust_env=False, timeout=PATIENCE_S, headers={"origin": origin}
    ) as browser:
        await walk_in(browser, provider, subject)
        yield browser


async def walk_in(browser: httpx.AsyncClient, provider: Provider, subject: str) -> httpx.Response:
    """Sign in with this browser; the last answer."""
    said = provider.misbehave.claims

    def as_subject(claims: Json) -> Json:
        return said({**claims, "sub": subject})

    provider.misbehave.claims = as_subject
    try:
        asked = await browser.get("/sign-in")
        async with httpx.AsyncClient(trust_env=False) as other_site:
            answer = await other_site.get(asked.headers["location"])
        return await browser.get(answer.headers["location"])
    finally:
        provider.misbehave.claims = said
