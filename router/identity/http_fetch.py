"""Asking the provider over HTTP: bounded in size and time, following no redirect and no proxy of the environment."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx2

DEADLINE_S = 10.0
"""For one question, however slowly its answer trickles."""
MAX_ANSWER_BYTES = 256 * 1024


class SignInRefused(Exception):
    """What came from the provider, or through the browser, is not good. `reason` is a word of this file."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProviderUnavailable(Exception):
    """The provider can't be asked now."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProviderAnswerTooLarge(httpx2.TransportError):
    """An answer that is larger than any that we have a use for."""


@cache
def _authorities() -> ssl.SSLContext:
    """The authorities that this machine trusts: to read them takes longer than all the rest of a question."""
    return httpx2.create_ssl_context(trust_env=False)


class Bounded(httpx2.AsyncBaseTransport):
    """Answers are read to a limit and never unpacked, so that none can fill the memory."""

    def __init__(self) -> None:
        self._network = httpx2.AsyncHTTPTransport(verify=_authorities(), trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["accept-encoding"] = "identity"
        response = await self._network.handle_async_request(request)
        body = b""
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ProviderAnswerTooLarge("packed")
            async for chunk in response.stream:  # type: ignore[union-attr]
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise ProviderAnswerTooLarge("long")
        finally:
            await response.aclose()
        return httpx2.Response(response.status_code, headers=response.headers, content=body)

    async def aclose(self) -> None:
        await self._network.aclose()


def terms() -> dict[str, Any]:
    """How every client here asks, whatever library it is of."""
    return {"transport": Bounded(), "timeout": 5.0, "follow_redirects": False, "trust_env": False}


async def ask(method: str, url: str, **content: Any) -> httpx2.Response:
    """Whatever the provider answers, whole. Raises Refused, Unavailable."""
    try:
        async with asyncio.timeout(DEADLINE_S), httpx2.AsyncClient(**terms()) as client:
            return await client.request(method, url, **content)
    except ProviderAnswerTooLarge:
        raise SignInRefused("too_long") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError):
        raise ProviderUnavailable("provider_silent") from None


async def get_json(url: str) -> tuple[dict[str, Any], httpx2.Response]:
    """A JSON object of the provider's. Raises Refused, Unavailable."""
    response = await ask("GET", url)
    if response.status_code >= 500 or response.status_code == 429:
        raise ProviderUnavailable("provider_broken")
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError):
        found = None
    if response.status_code != 200 or not isinstance(found, dict):
        raise SignInRefused("unreadable")
    return found, response


def ahead_s(response: httpx2.Response) -> float | None:
    """How far the provider's clock is before ours, to the second, by its own header."""
    try:
        return parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError):
        return None
