"""HEAD, answered with the head of what GET would answer (RFC 9110 §9.3.2): FastAPI says 405 where only GET is routed.

Nothing of the body is made: a master that is only asked about is neither read nor counted as delivered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEAD_EXTENSION = "router.head"
"""The ASGI extension that tells an application that the body of its response is not sent."""


def is_head(scope: Scope) -> bool:
    """Whether a request that looks like GET is one for the head alone."""
    return _HEAD_EXTENSION in scope.get("extensions", {})


class _HeadSent(Exception):
    """Raised where the application begins the body, which nobody wants."""


class HeadRequests:
    """ASGI middleware: passes HEAD on as GET and ends after the response's head. `own` paths answer HEAD themselves."""

    def __init__(self, app: ASGIApp, own: Iterable[re.Pattern[str]] = ()) -> None:
        self._app, self._own = app, tuple(own)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        if not is_head or any(path.match(scope["path"]) for path in self._own):
            return await self._app(scope, receive, send)
        as_get = {**scope, "method": "GET", "extensions": {_HEAD_EXTENSION: {}}}

        async def send_head(message: Message) -> None:
            await send(message)
            await send({"type": "http.response.body"})
            raise _HeadSent

        try:
            await self._app(as_get, receive, send_head)
        except _HeadSent:
            pass
        finally:
            scope["route"] = as_get.get("route")  # for the access log


def paths_with_head(*routers: Router) -> list[re.Pattern[str]]:
    """The paths whose routes name HEAD."""
    routes = (route for router in routers for route in router.routes if isinstance(route, Route))
    return [route.path_regex for route in routes if route.methods and "HEAD" in route.methods]
