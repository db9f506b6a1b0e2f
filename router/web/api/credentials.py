"""The credentials of an account over HTTP: its browser sessions, and its personal tokens for programs."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from router.core.clock import Clock
from router.core.errors import Problem
from router.http.problems import responses
from router.identity.account import Account, TokenScope
from router.identity.port import Token
from router.jobs.services import Services
from router.web import cookies
from router.web.dependencies import TheOwner, TheServices

router = APIRouter(prefix="/v1/account", tags=["account"])

MOST_TOKENS = 20
"""Tokens that an account may have: each is a row of the durable store."""


class SessionView(BaseModel):
    """A browser that is signed in. Nothing tells one from another but its times: no more is kept."""

    id: str
    began_at: datetime
    seen_at: datetime = Field(description="When it was last used, to the minute.")
    is_this_one: bool


class TokenView(BaseModel):
    """A token for programs; its secret was shown once."""

    id: str
    scope: str = Field(description="`jobs`: everything with jobs; `read`: looking alone.")
    made_at: datetime


class NewToken(TokenView):
    secret: str = Field(description="Shown this once: only its hash is kept.")


class TokenWanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    scope: TokenScope = "jobs"


class Ended(BaseModel):
    ended: int


@router.get("/sessions", responses=responses("session_only"))
async def sessions(services: TheServices, owner: TheOwner) -> list[SessionView]:
    """Where this account is signed in."""
    return await session_views(services, owner)


@router.delete("/sessions", responses=responses("session_only"))
async def sign_out_everywhere(services: TheServices, owner: TheOwner, response: Response) -> Ended:
    """End every session of the account, this one too. Tokens stay."""
    ended = await services.sign_in.sessions.end_all(owner.id) if services.sign_in else 0
    cookies.delete_cookie(response, services, cookies.SESSION)
    return Ended(ended=ended)


@router.delete("/sessions/{session_id}", responses=responses("session_only", "not_found"))
async def end_session(services: TheServices, owner: TheOwner, session_id: str) -> Ended:
    """End one session of the account."""
    if services.sign_in is None or not await services.sign_in.sessions.end(owner.id, session_id):
        raise Problem("not_found", "There is no such session; it may have ended.")
    return Ended(ended=1)


@router.get("/tokens", responses=responses("session_only"))
async def tokens(services: TheServices, owner: TheOwner) -> list[TokenView]:
    """The account's tokens, without their secrets."""
    return [TokenView(**_token_fields(token)) for token in await services.accounts.tokens(owner.id)]


@router.post("/tokens", status_code=201, responses=responses("session_only", "not_found", "too_many_tokens"))
async def make_token(
    services: TheServices, owner: TheOwner, response: Response, new: TokenWanted | None = None
) -> NewToken:
    """A new token for `Authorization: Bearer …`. It works until it is revoked."""
    if services.sign_in is None:
        raise Problem("not_found", "This router has no sign-in: whoever reaches it needs no token.")
    if len(await services.accounts.tokens(owner.id)) >= MOST_TOKENS:
        raise Problem(
            "too_many_tokens", f"An account may have {MOST_TOKENS} tokens. Revoke one first.", allowed=MOST_TOKENS
        )
    scope = (new or TokenWanted()).scope
    token, secret = await services.accounts.make_token(owner.id, scope, int(time.time() // 60))
    response.headers["cache-control"] = "no-store"
    return NewToken(secret=secret, **_token_fields(token))


@router.delete("/tokens/{token_id}", status_code=204, responses=responses("session_only", "not_found"))
async def revoke_token(services: TheServices, owner: TheOwner, token_id: str) -> Response:
    """The token is worth nothing from now on."""
    if not await services.accounts.revoke_token(owner.id, token_id):
        raise Problem("not_found", "There is no such token; it may have been revoked.")
    return Response(status_code=204)


async def session_views(services: Services, owner: Account) -> list[SessionView]:
    active = await services.sign_in.sessions.of(owner.id) if services.sign_in else []
    return [
        SessionView(
            id=s.id,
            began_at=_to_the_minute(services.clock, s.began_s),
            seen_at=_to_the_minute(services.clock, s.seen_s),
            is_this_one=s.id == owner.session,
        )
        for s in active
    ]


def _token_fields(token: Token) -> dict[str, object]:
    return {"id": token.id, "scope": token.scope, "made_at": datetime.fromtimestamp(token.minute * 60, UTC)}


def _to_the_minute(clock: Clock, at_s: float) -> datetime:
    return datetime.fromtimestamp(clock.to_epoch_s(at_s), UTC).replace(second=0, microsecond=0)
