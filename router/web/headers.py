"""What every response carries and every request must show: security headers, host and origin, a body that is small
where none is streamed. Pure ASGI, and the outermost of our own layers: what nobody else caught ends here, so that an
error of ours carries the same headers as everything else."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.errors import Problem
from router.logs import log_exception
from router.web import problems

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
ALWAYS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
STREAMED = re.compile(r"(PUT|PATCH) /v1/jobs/[^/]+/(audio|references/[^/]+)")
"""Audio comes by these, written to the spool as it arrives; every other body is read into memory whole."""
MAX_BODY_BYTES = 64 * 1024


class Guard:
    """Refuses foreign hosts (DNS rebinding), foreign origins on unsafe methods and large bodies where small ones are
    due; adds the headers to all answers."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        started = False
        streams = _streams(scope)
        body = _Body(receive, None if streams else MAX_BODY_BYTES)

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if streams and not body.ended:  # nobody will read the rest: let the client stop sending
                    MutableHeaders(scope=message)["connection"] = "close"
                headers = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._refusal(scope)
        app = problems.respond(problem) if problem else self._app
        try:
            await app(scope, body.receive, send_guarded)
        except Exception as error:
            log_exception(error)
            if started:
                raise
            await problems.respond(Problem("internal"))(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = _host_of(headers.get("host", ""))
        if host not in self._hosts:
            return Problem("foreign_host")
        origin = headers.get("origin")
        own = f"{scope['scheme']}://{headers.get('host', '')}"
        if scope["method"] not in SAFE_METHODS and origin is not None and origin != own:
            return Problem("foreign_origin")
        stated = headers.get("content-length", "")
        if not _streams(scope) and stated.isdecimal() and int(stated[:20]) > MAX_BODY_BYTES:
            return _too_large()
        return None


def _streams(scope: Scope) -> bool:
    return STREAMED.fullmatch(f"{scope['method']} {scope['path']}") is not None


class _Body:
    """A request's body on its way in."""

    def __init__(self, receive: Receive, most_bytes: int | None) -> None:
        self._receive, self._most_bytes = receive, most_bytes
        self._arrived = 0
        self.ended = False

    async def receive(self) -> Message:
        """The next message. Raises HTTPException, which frameworks pass on, when there are too many bytes."""
        message = await self._receive()
        self._arrived += len(message.get("body", b""))
        self.ended |= not message.get("more_body", False)
        if self._most_bytes is not None and self._arrived > self._most_bytes:
            raise HTTPException(_too_large().row.status)
        return message


def _too_large() -> Problem:
    return Problem("too_large", f"At most {MAX_BODY_BYTES} bytes are read here.", allowed_bytes=MAX_BODY_BYTES)


def _host_of(value: str) -> str:
    try:
        return urlsplit(f"//{value}").hostname or ""
    except ValueError:  # an address in brackets that is none
        return ""
