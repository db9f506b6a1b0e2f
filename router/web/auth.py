"""Who is asking: the guest of a router without sign-in, the person of a session, or the owner of a personal token.

A token speaks for its owner's jobs and never for the account itself: what could make more of it (tokens, sessions,
consent, erasure) needs a session. A session's cookie comes by itself, so an unsafe request that rests on it must also
say that it comes from our own page.
"""

from __future__ import annotations

from typing import NamedTuple

from fastapi import Request

from router.core.errors import Problem
from router.jobs.services import Services
from router.web import cookies

GUEST = "guest"
SIGNED_OUT = "signed_out"
SCOPES = ("jobs", "read")
"""What a token may be for: everything with jobs, or looking alone."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Account(NamedTuple):
    """All that is known of a person: a pseudonym, and how the request showed it."""

    id: str
    kind: str
    """`guest`, `person` (by a session), `token`, or `signed_out`."""
    session: str = ""
    """The session's own id, for its owner to tell it from the others."""


async def visitor_of(request: Request) -> Account:
    """Whoever asks, signed in or not. Raises Problem for a token or a request that must not be believed."""
    services: Services = request.app.state.services
    if services.door is None:
        return Account(GUEST, "guest")
    credentials = request.headers.get("authorization")
    if credentials is not None:
        return _by_token(services, request.method, credentials)
    secret = cookies.read(request, services, cookies.SESSION)
    session = services.door.sessions.find(secret) if secret else None
    if session is None:
        return Account("", SIGNED_OUT)
    if request.method not in SAFE_METHODS and not _is_from_our_page(request):
        raise Problem("foreign_origin", "A request with our cookie must say by Origin that our own page sent it.")
    return Account(session.account, "person", session.id)


async def account_of(request: Request) -> Account:
    """Who asks for jobs. Raises Problem unless it is the guest, a session or a token that covers the request."""
    visitor = await visitor_of(request)
    if visitor.kind == SIGNED_OUT:
        raise Problem("sign_in", headers={"www-authenticate": "Bearer"})
    return visitor


async def owner_of(request: Request) -> Account:
    """Who asks about the account itself. Raises Problem for tokens too."""
    account = await account_of(request)
    if account.kind == "token":
        raise Problem("session_only")
    return account


def _is_from_our_page(request: Request) -> bool:
    """The guard refuses an Origin that is not ours; here one must be there, or what browsers say in its place."""
    return "origin" in request.headers or request.headers.get("sec-fetch-site") == "same-origin"


def _by_token(services: Services, method: str, credentials: str) -> Account:
    scheme, _, secret = credentials.partition(" ")
    token = services.accounts.token_of(secret.strip()) if scheme.lower() == "bearer" and len(secret) <= 200 else None
    if token is None:
        raise Problem("bad_token", headers={"www-authenticate": 'Bearer error="invalid_token"'})
    if token.scope != "jobs" and method not in SAFE_METHODS:
        refusal = 'Bearer error="insufficient_scope", scope="jobs"'
        raise Problem("token_scope", headers={"www-authenticate": refusal})
    return Account(token.account, "token")
