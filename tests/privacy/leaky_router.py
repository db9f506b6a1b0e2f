"""A router with its privacy measures off: the control of the sweep, which must find what such a router leaves behind.

What is switched on here is what the frameworks do by themselves or what is written in a hurry: uvicorn's access log,
formatted records of libraries, tracebacks, a middleware that logs requests for debugging; and the spool is not
encrypted. Started like the real one: `python -m tests.privacy.leaky_router serve …`.
"""

from __future__ import annotations

import logging
import sys
import traceback
from base64 import urlsafe_b64decode
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.app import server
from router.cli import main as router_command
from router.core import event_log
from router.http import access_log, security_headers
from router.identity.oidc import Provider
from router.spool import records

_real_config = server._config


class _RequestLogger:
    """Logs every request, as a developer would who looks for a bug."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            logging.getLogger("debug").warning("%s %s", scope["path"], scope["headers"])

        async def received() -> Message:
            message = await receive()
            logging.getLogger("debug").warning("%s", message.get("body", b"")[:300])
            return message

        await self._app(scope, received, send)


def _config(app: Any, *args: Any, **kwargs: Any) -> uvicorn.Config:
    config = _real_config(app, *args, **kwargs)
    config.access_log = True
    config.log_config = uvicorn.config.LOGGING_CONFIG
    config.configure_logging()
    return config


async def _logged_claims(self: Provider, metadata: Any, id_token: str) -> Any:
    """Logs what the provider sent, name and address too."""
    payload = id_token.split(".")[1]
    logging.getLogger("debug").warning("signed in: %s", urlsafe_b64decode(payload + "=="))
    return await _signed_claims(self, metadata, id_token)


def _traceback(error: BaseException) -> None:
    traceback.print_exception(error)


def _plain_seal(key: bytes, ref: str, index: int, plain: bytes | memoryview, room: memoryview, *, last: bool) -> int:
    size = _seal(key, ref, index, plain, room, last=last)
    start = records._HEADER.size
    room[start : start + len(plain)] = plain
    return size


def _plain_unseal(record: bytes | memoryview, key: bytes, ref: str, place: records.RecordPosition) -> bytes:
    return bytes(record[records._HEADER.size :][: place.plain_size])


_seal, _signed_claims = records.seal, Provider._signed_claims


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s %(message)s")
    event_log.capture_process_output = lambda book: lambda: None
    event_log.log_exception = _traceback
    security_headers.log_exception = _traceback  # type: ignore[attr-defined]
    records.seal, records.unseal = _plain_seal, _plain_unseal
    Provider._signed_claims = _logged_claims  # type: ignore[method-assign]
    access_log.AccessLog = _RequestLogger  # type: ignore[misc,assignment]
    server._config = _config
    router_command.main()


if __name__ == "__main__":
    main()
