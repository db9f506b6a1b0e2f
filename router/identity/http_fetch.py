"""HTTP requests to the OpenID provider: bounded in size and time, without redirects or proxies of the environment."""

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
"""Seconds for one whole request, however slowly its answer trickles."""
MAX_ANSWER_BYTES = 256 * 1024
"""Far more than any document or token of a provider has; the limit keeps memory bounded."""


class SignInRefused(Exception):
    """What came from the provider, or through the browser, is not valid. `reason` is one of a fixed list of words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProviderUnavailable(Exception):
    """The provider gives no usable answer now. `reason` is one of a fixed list of words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProviderAnswerTooLarge(httpx2.TransportError):
    """An answer beyond MAX_ANSWER_BYTES, or compressed, so that its size is not known before it is unpacked."""


@cache
def _tls_context() -> ssl.SSLContext:
    """TLS with the authorities that this machine trusts. Cached: to read them takes longer than a whole request."""
    return httpx2.create_ssl_context(trust_env=False)


class BoundedTransport(httpx2.AsyncBaseTransport):
    """A transport that reads answers up to MAX_ANSWER_BYTES and never unpacks them: none can fill the memory."""

    def __init__(self) -> None:
        self._network = httpx2.AsyncHTTPTransport(verify=_tls_context(), trust_env=False)

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


def client_options() -> dict[str, Any]:
    """Options of every HTTP client that asks the provider, Authlib's too."""
    return {"transport": BoundedTransport(), "timeout": 5.0, "follow_redirects": False, "trust_env": False}


async def request_provider(method: str, url: str, **content: Any) -> httpx2.Response:
    """The provider's whole answer, of any status. Raises SignInRefused, ProviderUnavailable."""
    try:
        async with asyncio.timeout(DEADLINE_S), httpx2.AsyncClient(**client_options()) as client:
            return await client.request(method, url, **content)
    except ProviderAnswerTooLarge:
        raise SignInRefused("too_long") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError):
        raise ProviderUnavailable("provider_silent") from None


async def get_json(url: str) -> tuple[dict[str, Any], httpx2.Response]:
    """A JSON object from the provider, and the response it came in. Raises SignInRefused, ProviderUnavailable."""
    response = await request_provider("GET", url)
    if response.status_code >= 500 or response.status_code == 429:
        raise ProviderUnavailable("provider_broken")
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError):
        found = None
    if response.status_code != 200 or not isinstance(found, dict):
        raise SignInRefused("unreadable")
    return found, response


def clock_ahead_s(response: httpx2.Response) -> float | None:
    """Seconds by which the provider's clock is ahead of ours, by its `Date` header; None where that is missing."""
    try:
        return parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError):
        return None
