"""The access log: an event for every request, with its route's template, method, status, time and a rough size.

The outermost middleware, so that refusals are logged too. Of the request itself only the method is read: the template
is that of the route which answered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.core.event_log import log, size_bucket
from router.http.connection import BODY_EXTENSION, BYTES_MOVED_KEY

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class AccessLog:
    """ASGI middleware that logs one `http` event a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, moved, status = time.monotonic(), 0, 499  # 499: the caller hung up before there was a response

        async def receive_counted() -> Message:
            nonlocal moved
            message = await receive()
            moved += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            nonlocal moved, status
            status = message.get("status", status)
            moved += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive_counted, send_counted)
        finally:
            moved += scope.get("extensions", {}).get(BODY_EXTENSION, {}).get(BYTES_MOVED_KEY, 0)
            log(
                "http",
                route=_template(scope),
                method=scope["method"] if scope["method"] in _METHODS else "other",
                status=status,
                ms=round((time.monotonic() - began) * 1000),
                size=size_bucket(moved),
            )


def templates_of(*routers: Router) -> Iterator[str]:
    """The address templates of all routes of these routers."""
    for router in routers:
        yield from (route.path for route in router.routes if isinstance(route, Route))


def _template(scope: Scope) -> str:
    route = scope.get("route")
    return route.path if isinstance(route, Route) else "none"
