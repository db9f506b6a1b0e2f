"""The router that a command speaks to: its address and the token for it, checked before anything is sent, and what is
said when it gives no answer."""

from __future__ import annotations

import socket
from contextlib import suppress
from urllib.parse import urlsplit

from router.core.command_error import CommandError

EXAMPLE = "http://127.0.0.1:8080"


def checked_url(url: str, option: str = "--url") -> str:
    """The address of a router: scheme, host and port. Raises CommandError, which shows none that holds a password."""
    wrong = _what_is_wrong(url)
    if wrong:
        raise CommandError(f"{option}: {wrong}. Write it like {EXAMPLE}.", exit_code=2)
    return url.rstrip("/")


def _what_is_wrong(url: str) -> str | None:
    if not url.isprintable() or " " in url or not url:
        return "the address is empty" if not url else "the address holds a space or a control character"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 — a property that refuses
    except ValueError as error:
        return f"the address is none ({str(error).lower()})"
    if parts.scheme not in ("http", "https"):
        return "the address begins with neither http:// nor https://"
    if parts.username is not None or parts.password is not None:
        return "the address holds a name or a password, which a router does not take; a token goes into ROUTER_TOKEN"
    if not parts.hostname or parts.port == 0:
        return "the address names no host" if not parts.hostname else "port 0 is none to connect to"
    if parts.path not in ("", "/") or parts.query or parts.fragment or url.endswith(("?", "#")):
        return "the address goes on after the host and the port"
    with suppress(UnicodeError):
        parts.hostname.encode("idna")
        return None
    return "the address names a host that can't exist"


def checked_token(token: str | None) -> str | None:
    """The token alone; None where there is none. Raises CommandError, which does not show it."""
    if not token:
        return None
    if token.lower().startswith("bearer"):
        raise CommandError("ROUTER_TOKEN: give the token alone, without the word Bearer before it.", exit_code=2)
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise CommandError(
            "ROUTER_TOKEN holds a space, a line break or a letter beyond ASCII, so it is no token.", exit_code=2
        )
    return token


def why_no_answer(url: str, error: BaseException) -> str:
    """Why nothing came from a router, as a sentence without its full stop."""
    cause: BaseException | None = error
    for _ in range(8):  # httpx raises its own from httpcore's, and that from the socket's
        if cause is None:
            break
        if isinstance(cause, socket.gaierror):
            return f"there is no host {urlsplit(url).hostname}, or this machine can't look it up"
        cause = cause.__cause__ or cause.__context__
    return f"no router answers at {url} ({type(error).__name__})"
