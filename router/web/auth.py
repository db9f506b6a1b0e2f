"""Authentication of a request: by a session's cookie, by a personal token, or as the guest of an open router.

A token speaks for its owner's jobs and never for the account itself: what could make more of it (tokens, sessions,
consent, erasure) needs a session. A session's cookie comes by itself, so an unsafe request that rests on it must also
say that it comes from our own page.
"""

from __future__ import annotations

from fastapi import Request

from router.core.errors import Problem
from router.identity.account import GUEST, SIGNED_OUT, Account
from router.identity.port import Accounts
from router.jobs.services import Services
from router.web import cookies

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


async def visitor_of(request: Request) -> Account:
    """The account of a request, signed in or not.

    Raises Problem for a bad token, and for an unsafe request with a cookie that another site may have sent.
    """
    services: Services = request.app.state.services
    if services.sign_in is None:
        return Account(GUEST, GUEST)
    credentials = request.headers.get("authorization")
    if credentials is not None:
        return await _by_token(services.accounts, request.method, credentials)
    secret = cookies.read_cookie(request, services, cookies.SESSION)
    session = await services.sign_in.sessions.find(secret) if secret else None
    if session is None:
        return Account("", SIGNED_OUT)
    if request.method not in SAFE_METHODS and not _is_from_our_page(request):
        raise Problem("foreign_origin", "A request with our cookie must say by Origin that our own page sent it.")
    return Account(session.account, "person", session.id)


async def counted_account(request: Request) -> str | None:
    """The account that the request's valid credentials name, for its rate limits; None for strangers and guests."""
    try:
        visitor = await visitor_of(request)
    except Problem:
        return None
    return visitor.id if visitor.kind in ("person", "token") else None


async def account_of(request: Request) -> Account:
    """The account whose jobs a request is about: the guest, a session's or a token's. Raises Problem for nobody's."""
    visitor = await visitor_of(request)
    if visitor.kind == SIGNED_OUT:
        raise Problem("sign_in", headers={"www-authenticate": "Bearer"})
    return visitor


async def owner_of(request: Request) -> Account:
    """The account of a request about the account itself. Raises Problem for tokens too."""
    account = await account_of(request)
    if account.kind == "token":
        raise Problem("session_only")
    return account


def _is_from_our_page(request: Request) -> bool:
    """Whether Origin (the guard refuses a foreign one) or Sec-Fetch-Site says that a page of ours sent the request."""
    return "origin" in request.headers or request.headers.get("sec-fetch-site") == "same-origin"


async def _by_token(accounts: Accounts, method: str, credentials: str) -> Account:
    scheme, _, secret = credentials.partition(" ")
    is_ours = scheme.lower() == "bearer" and len(secret) <= 200
    token = await accounts.token_of(secret.strip()) if is_ours else None
    if token is None:
        raise Problem("bad_token", headers={"www-authenticate": 'Bearer error="invalid_token"'})
    if token.scope != "jobs" and method not in SAFE_METHODS:
        refusal = 'Bearer error="insufficient_scope", scope="jobs"'
        raise Problem("token_scope", headers={"www-authenticate": refusal})
    return Account(token.account, "token")
