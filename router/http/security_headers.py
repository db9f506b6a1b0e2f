"""Security headers on every response, and checks on every request: host, origin, and the size of a body that is not
streamed.

Pure ASGI, just inside the access log: exceptions that nothing else caught end here, so that an `internal` error carries
the same headers as every response.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.core.errors import TABLE, Problem
from router.core.event_log import log_exception
from router.http import problems

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "media-src": "'self' blob:",
    "font-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
ALWAYS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
STRICT_TRANSPORT = {"strict-transport-security": f"max-age={2 * 365 * 24 * 3600}; includeSubDomains"}
"""Two years; sent where `public_url` is set, which is https."""
SPACE_FRAME = "https://huggingface.co"
"""The only site that may frame the page, where the router itself runs as a Space."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
"""The name that a Host header may hold, or an address in brackets, and a port (RFC 9110 §7.2): no user, no path."""
_DEFAULT_PORTS = {"http": "80", "https": "443"}
STREAMED = re.compile(r"(PUT|PATCH|POST) /v1/jobs/[^/]+/(audio|references/[^/]+)|POST /v1/uploads")
"""Requests whose body is audio, written to the spool as it arrives; every other body is read into memory whole."""
MAX_BODY_BYTES = 64 * 1024
"""Of a body that is read into memory: JSON of a few kilobytes at most."""
DRAIN_S = 1.0
"""Seconds in which the rest of an upload is read and dropped after a response that did not wait for it; then the
connection is closed."""
BODY_TIMEOUT_S = 30.0
"""Seconds until a small body must be whole; uploads have a silence limit of their own."""


class Site(NamedTuple):
    """The host names that this router answers to, and the headers that follow from where it is served."""

    hosts: frozenset[str]
    """Names it answers to, beside that of `origin`."""
    origin: str | None = None
    """Its address for people, like https://master.example, where a proxy brings them."""
    framed: bool = False
    """It is shown in the frame of a Hugging Face Space."""

    def own_origin(self, scheme: str, host: str) -> str:
        """The only Origin from which an unsafe request may come that asks for `host` (with its port)."""
        if self.origin and _plain_host(host, "https") == _plain_host(urlsplit(self.origin).netloc, "https"):
            return self.origin
        return f"{scheme}://{_plain_host(host, scheme)}"

    def answers_to(self, host: str) -> bool:
        name = _host_of(host).removesuffix(".")
        return name in self.hosts or (self.origin is not None and name == urlsplit(self.origin).hostname)

    @property
    def headers(self) -> dict[str, str]:
        headers = ALWAYS | (STRICT_TRANSPORT if self.origin else {})
        if self.framed:
            del headers["x-frame-options"]  # knows no host to allow; frame-ancestors does
            policy = _POLICY | {"frame-ancestors": SPACE_FRAME}
            headers["content-security-policy"] = "; ".join(f"{name} {value}" for name, value in policy.items())
        return headers


class RequestGuard:
    """ASGI middleware: refuses foreign hosts (DNS rebinding), foreign origins on unsafe methods (CSRF) and large bodies
    where small ones are due; adds the security headers to every response."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._site, self._headers = app, site, site.headers

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
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            elif streams and not body.ended and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.drain()
                message = {"type": "http.response.body"}
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
        hosts = headers.getlist("host")
        host = hosts[0] if hosts else ""
        if len(hosts) > 1 or (host and not _HOST.fullmatch(host)):
            return Problem("bad_request", "A request names one host, and nothing but its name and port.")
        if not self._site.answers_to(host):
            return Problem("foreign_host")
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            return Problem("unsupported_media_type", "Send the body as it is: no Content-Encoding is taken here.")
        if scope["method"] not in SAFE_METHODS and self._is_foreign(scope["scheme"], host, headers):
            return Problem("foreign_origin")
        stated = headers.get("content-length", "")
        if not _streams(scope) and stated.isdecimal() and int(stated[:20]) > MAX_BODY_BYTES:
            return _too_large()
        return None

    def _is_foreign(self, scheme: str, host: str, headers: Headers) -> bool:
        """A browser says where a request comes from, by Origin and by Sec-Fetch-Site; programs say neither."""
        origin = headers.get("origin")
        return headers.get("sec-fetch-site") in ("cross-site", "same-site") or (
            origin is not None and origin != self._site.own_origin(scheme, host)
        )


def _streams(scope: Scope) -> bool:
    return STREAMED.fullmatch(f"{scope['method']} {scope['path']}") is not None


class _Body:
    """A request's body as it is received: counts it, and sets its longest time where it is not streamed."""

    def __init__(self, receive: Receive, most_bytes: int | None) -> None:
        self._receive, self._most_bytes = receive, most_bytes
        self._due = asyncio.get_running_loop().time() + BODY_TIMEOUT_S
        self._arrived = 0
        self.ended = False

    async def receive(self) -> Message:
        """The next ASGI message. Raises HTTPException, which frameworks pass on, when there are too many bytes."""
        message = await self._next()
        self._arrived += len(message.get("body", b""))
        self.ended |= not message.get("more_body", False)
        if self._most_bytes is not None and self._arrived > self._most_bytes:
            raise HTTPException(_too_large().row.status)
        return message

    async def drain(self) -> None:
        """Read and drop what is on its way: to close before would reset the connection, and take the response away that
        the client has not read yet."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while not self.ended:
                    await self.receive()

    async def _next(self) -> Message:
        if self._most_bytes is None or self.ended:  # afterwards only the end of the connection comes
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._due):
                return await self._receive()
        except TimeoutError:
            raise HTTPException(TABLE["upload_timeout"].status) from None


def _too_large() -> Problem:
    return Problem("too_large", f"At most {MAX_BODY_BYTES} bytes are read here.", allowed_bytes=MAX_BODY_BYTES)


def _plain_host(host: str, scheme: str) -> str:
    """The host with its port as an Origin has it: without the dot of a full name, and without the usual port."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        return host.removesuffix(".").lower()
    name = name.removesuffix(".").lower()
    return name if port == _DEFAULT_PORTS[scheme] else f"{name}:{port}"


def _host_of(value: str) -> str:
    try:
        return urlsplit(f"//{value}").hostname or ""
    except ValueError:  # an address in brackets that is none
        return ""
