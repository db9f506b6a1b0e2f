"""Verify each request's signature before its route. Without keys, which only a loopback address allows, all pass."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mastering.protocol.signing import Keys, SignatureRefused, SignatureVerifier

_KEYS = "mastering.keys"


class SignatureMiddleware:
    """ASGI middleware: an unsigned request is a 401. `authority`: the worker's public name behind a proxy."""

    def __init__(self, app: ASGIApp, verifier: SignatureVerifier, authority: str | None = None) -> None:
        self._app = app
        self._verifier = verifier
        self._authority = authority

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        query = scope["query_string"].decode("latin-1")
        url = f"{scope['scheme']}://{self._authority or headers.get('host', '')}{scope['path']}?{query}".removesuffix(
            "?"
        )
        try:
            scope[_KEYS] = self._verifier.verify(scope["method"], url, headers, time.monotonic())
        except SignatureRefused as refusal:
            body = {"title": "unauthorized", "status": 401, "code": "unauthorized", "detail": str(refusal)}
            await JSONResponse(body, 401, {"connection": "close"}, "application/problem+json")(scope, receive, send)
            return
        await self._app(scope, receive, send)


def keys_of(scope: Scope) -> Keys:
    """The keys that seal the two bodies of this exchange."""
    keys: Keys = scope[_KEYS]
    return keys
