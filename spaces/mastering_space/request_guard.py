"""The outermost ASGI layer: checks every request, dispatches it, and adds the security headers to every response.

In front of Gradio's own layers, so that audio never passes its compression, its cache or its file routes. Of Gradio's
routes only those that a call of /master needs are let through; all others (uploads, files, proxies, monitoring) are
404. Pure ASGI.
"""

from __future__ import annotations

import hmac
import re
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mastering_space.problems import refused

KEY_HEADER = "x-mastering-key"
MAX_CALL_BYTES = 64 * 1024
"""Bytes of a call's body at most: an id and the settings."""
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'self' https://huggingface.co",
    ]
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}

_AUDIO_ROUTES = re.compile(r"/v1/.*")
_PAGE = re.compile(r"/|/static/.*|/favicon\.ico")
_GRADIO_INFO = re.compile(r"/config/?|/gradio_api/(info/?|startup-events|heartbeat/[^/]+|reset/?)")
_GRADIO_CALL = re.compile(r"/gradio_api/(queue/join|queue/data|cancel|call/master/?|call/master/[0-9a-f]+)")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SpaceRequestGuard:
    """Dispatches a request to the audio routes, the page or Gradio, or refuses it."""

    def __init__(self, gradio: ASGIApp, routes: ASGIApp, page: ASGIApp, key: SecretStr | None) -> None:
        self._gradio, self._routes, self._page = gradio, routes, page
        self._key = key.get_secret_value().encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._gradio(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._application_for(scope)(scope, receive, send_with_headers)

    def _application_for(self, scope: Scope) -> ASGIApp:
        path, headers = scope["path"], Headers(scope=scope)
        if scope["method"] not in _SAFE_METHODS and _is_foreign(headers):
            return refused(403, "This page may only be used from its own address.")
        if _PAGE.fullmatch(path):
            return self._page
        if not (_AUDIO_ROUTES.fullmatch(path) or _GRADIO_CALL.fullmatch(path) or _GRADIO_INFO.fullmatch(path)):
            return refused(404, "There is nothing at this address.")
        if not _GRADIO_INFO.fullmatch(path) and not self._holds_key(headers):
            return refused(401, f"This Space wants its key, in the header {KEY_HEADER}.")
        if _AUDIO_ROUTES.fullmatch(path):
            return self._routes
        stated = headers.get("content-length", "0" if scope["method"] in _SAFE_METHODS else "")
        if not stated.isdecimal() or int(stated[:20]) > MAX_CALL_BYTES:
            return refused(413, f"A call has at most {MAX_CALL_BYTES} bytes and says how many.")
        return self._gradio

    def _holds_key(self, headers: Headers) -> bool:
        return self._key is None or hmac.compare_digest(headers.get(KEY_HEADER, "").encode(), self._key)


def _is_foreign(headers: Headers) -> bool:
    """Whether a browser says that another site's page sent this. Behind a proxy only the host can be compared."""
    origin = headers.get("origin")
    if origin is None:
        return False
    own = {headers.get("host"), headers.get("x-forwarded-host")}
    return urlsplit(origin).netloc not in own
