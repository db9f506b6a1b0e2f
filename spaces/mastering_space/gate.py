"""Everything that comes to the Space comes through here first: which door it may use, and what every answer carries.

Outermost of all layers, in front of Gradio's own: audio never passes its compression, its cache or its file routes.
Of Gradio only the doors that a call of /master needs are open; all others (uploads, files, proxies, monitoring) are
not there. Pure ASGI.
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
"""Of a call's body: an id and the settings."""
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
ALWAYS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}

_OURS = re.compile(r"/v1/.*")
_PAGE = re.compile(r"/|/static/.*|/favicon\.ico")
_ASKING = re.compile(r"/config/?|/gradio_api/(info/?|startup-events|heartbeat/[^/]+|reset/?)")
_CALLING = re.compile(r"/gradio_api/(queue/join|queue/data|cancel|call/master/?|call/master/[0-9a-f]+)")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """Sends a request to the audio routes, the page or Gradio, or refuses it."""

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
                for name, value in ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._door(scope)(scope, receive, send_with_headers)

    def _door(self, scope: Scope) -> ASGIApp:
        path, headers = scope["path"], Headers(scope=scope)
        if scope["method"] not in _SAFE and _is_foreign(headers):
            return refused(403, "This page may only be used from its own address.")
        if _PAGE.fullmatch(path):
            return self._page
        if not (_OURS.fullmatch(path) or _CALLING.fullmatch(path) or _ASKING.fullmatch(path)):
            return refused(404, "There is nothing at this address.")
        if not _ASKING.fullmatch(path) and not self._holds_key(headers):
            return refused(401, f"This Space wants its key, in the header {KEY_HEADER}.")
        if _OURS.fullmatch(path):
            return self._routes
        stated = headers.get("content-length", "0" if scope["method"] in _SAFE else "")
        if not stated.isdecimal() or int(stated[:20]) > MAX_CALL_BYTES:
            return refused(413, f"A call has at most {MAX_CALL_BYTES} bytes and says how many.")
        return self._gradio

    def _holds_key(self, headers: Headers) -> bool:
        return self._key is None or hmac.compare_digest(headers.get(KEY_HEADER, "").encode(), self._key)


def _is_foreign(headers: Headers) -> bool:
    """Whether a browser says that another site sent this. Behind Hugging Face's proxy only the host can be compared."""
    origin = headers.get("origin")
    if origin is None:
        return False
    own = {headers.get("host"), headers.get("x-forwarded-host")}
    return urlsplit(origin).netloc not in own
