"""The two cookies of this service: the session's, and the login's for the minutes of the sign-ins that are under way.

Browsers enforce the prefix `__Host-`: such a cookie comes from this host alone, over TLS, for every path. On a
developer's loopback without TLS it can't be had, and the names say so: `dev-sid` and `dev-login`.

Neither is set in a frame of another site: nobody can sign in there (`pages.sign_in`), and browsers keep the cookies of
a tab of its own from the frame anyway.
"""

from __future__ import annotations

from fastapi import Request, Response

from router.identity.login import LIFETIME_S, MOST_ATTEMPTS
from router.jobs.services import Services

SESSION, LOGIN = "sid", "login"
MOST_CHARS = {SESSION: 128, LOGIN: MOST_ATTEMPTS * 102}
"""Longest value that is read of each cookie; a session's has 43 characters, the login's about 62 for each attempt."""


def cookie_name(services: Services, kind: str) -> str:
    """The cookie's name: with the prefix `__Host-` where the router is reached over TLS."""
    return f"__Host-{kind}" if _has_tls(services) else f"dev-{kind}"


def read_cookie(request: Request, services: Services, kind: str) -> str | None:
    """The cookie's value as the browser sent it; None for none, or for a longer one than any of ours."""
    value = request.cookies.get(cookie_name(services, kind))
    return value if value and len(value) <= MOST_CHARS[kind] else None


def set_cookie(response: Response, services: Services, kind: str, value: str) -> None:
    """Set the cookie: the session's until the browser is closed, the login's for its lifetime."""
    response.headers.append("set-cookie", _header_value(services, kind, value, LIFETIME_S if kind == LOGIN else None))


def delete_cookie(response: Response, services: Services, kind: str) -> None:
    """Have the browser delete the cookie. A router without sign-in never set one."""
    if services.sign_in is not None:
        response.headers.append("set-cookie", _header_value(services, kind, "", 0))


def _header_value(services: Services, kind: str, value: str, lifetime_s: int | None) -> str:
    parts = [f"{cookie_name(services, kind)}={value}", "Path=/", "HttpOnly", "SameSite=Lax"]
    if _has_tls(services):
        parts.append("Secure")
    if lifetime_s is not None:
        parts.append(f"Max-Age={lifetime_s}")
    return "; ".join(parts)


def _has_tls(services: Services) -> bool:
    return services.sign_in is None or services.sign_in.is_https
