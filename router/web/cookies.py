"""The two cookies there are: one says who is signed in, one lives for the minutes of a sign-in.

Browsers take the prefix `__Host-` by its word: such a cookie comes from this host alone, over TLS, for every path. On a
developer's loopback without TLS the prefix can't be had, and the names say so: `dev-sid` and `dev-login`.

Neither goes into a frame of another site: there nobody can sign in (`entrance`), and what a tab of its own keeps is
kept from the frame by browsers anyway.
"""

from __future__ import annotations

from fastapi import Request, Response

from router.identity.login import LIFETIME_S
from router.jobs.services import Services

SESSION, LOGIN = "sid", "login"
MOST_CHARS = 128


def name_of(services: Services, kind: str) -> str:
    """What this router calls its cookie."""
    return f"__Host-{kind}" if _has_tls(services) else f"dev-{kind}"


def read(request: Request, services: Services, kind: str) -> str | None:
    """What the browser brought; None for nothing, or for more than any of ours has."""
    value = request.cookies.get(name_of(services, kind))
    return value if value and len(value) <= MOST_CHARS else None


def put(response: Response, services: Services, kind: str, value: str) -> None:
    """The session's cookie goes with the browser, the sign-in's after its minutes."""
    response.headers.append("set-cookie", _written(services, kind, value, LIFETIME_S if kind == LOGIN else None))


def drop(response: Response, services: Services, kind: str) -> None:
    """Have the browser forget it. A router without sign-in never set one."""
    if services.sign_in is not None:
        response.headers.append("set-cookie", _written(services, kind, "", 0))


def _written(services: Services, kind: str, value: str, lifetime_s: int | None) -> str:
    parts = [f"{name_of(services, kind)}={value}", "Path=/", "HttpOnly", "SameSite=Lax"]
    if _has_tls(services):
        parts.append("Secure")
    if lifetime_s is not None:
        parts.append(f"Max-Age={lifetime_s}")
    return "; ".join(parts)


def _has_tls(services: Services) -> bool:
    return services.sign_in is None or services.sign_in.is_https
