"""The account over HTTP: an export of everything held of it, its consent to tiers, and its erasure."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from router.core.event_log import forget_pseudonyms
from router.http.problems import responses
from router.identity.account import Account
from router.identity.port import Consent
from router.jobs import account_data
from router.jobs.create import MANAGED_ONLY_NOT_OFFERED, refuse_managed_only
from router.jobs.services import Services
from router.web import cookies
from router.web.api.credentials import SessionView, session_views
from router.web.api.views import JobView, view
from router.web.dependencies import TheOwner, TheServices

router = APIRouter(prefix="/v1/account", tags=["account"])


class ConsentView(BaseModel):
    """Where the next job of this account may run."""

    managed_only: bool = Field(description="Only our own workers, whatever is down.")
    offered: bool = Field(description="False where this router itself runs at Hugging Face: no choice keeps it out.")
    chosen: bool = Field(description="False while the account has never said anything: the service's default holds.")
    reason: str


class ConsentWanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    managed_only: bool


class QuotaView(BaseModel):
    """Today's share of audio; a day is UTC's."""

    used_audio_s: int
    allowed_audio_s: int | None = Field(description="None: no limit is set.")


class Holdings(BaseModel):
    """All that this service holds of an account. There is no more: no name, no address, no song's title."""

    account: str = Field(description="The pseudonym: all by which we know you.")
    kind: str
    consent: ConsentView
    quota: QuotaView
    stored: dict[str, list[dict[str, Any]]] = Field(description="Every row of the durable store, as it is there.")
    sessions: list[SessionView]
    jobs: list[JobView]


@router.get("", responses=responses("session_only"))
async def export(services: TheServices, owner: TheOwner, response: Response) -> Holdings:
    """Everything we hold that belongs to this account, as JSON; nothing is left out but secrets, which we can't read
    ourselves."""
    response.headers["cache-control"] = "no-store"
    day = int(time.time() // 86_400)
    return Holdings(
        account=owner.id,
        kind=owner.kind,
        consent=await consent_view(services, owner),
        quota=QuotaView(
            used_audio_s=await services.accounts.used_audio_s(owner.id, day),
            allowed_audio_s=services.settings.daily_audio_s_per_account,
        ),
        stored=await services.accounts.export(owner.id),
        sessions=await session_views(services, owner),
        jobs=[await view(services, *found) for found in await account_data.jobs_of(services.jobs, owner.id)],
    )


class Erased(BaseModel):
    """What is gone."""

    jobs: int = Field(description="Jobs that were stopped and destroyed.")


@router.delete("", responses=responses("session_only"))
async def erase(services: TheServices, owner: TheOwner, response: Response) -> Erased:
    """Erase everything at once: jobs and their audio, sessions, tokens, consent, quota. Signing in again later begins
    anew."""
    jobs = await account_data.erase_account(services, owner.id)
    forget_pseudonyms()
    response.headers["clear-site-data"] = '"storage"'
    cookies.delete_cookie(response, services, cookies.SESSION)
    return Erased(jobs=jobs)


@router.get("/consent", responses=responses("session_only"))
async def show(services: TheServices, owner: TheOwner) -> ConsentView:
    """On which tiers the next job may run, and why."""
    return await consent_view(services, owner)


@router.put("/consent", responses=responses("session_only"))
async def choose(services: TheServices, owner: TheOwner, choice: ConsentWanted) -> ConsentView:
    """Allow every tier, or our own workers only. It holds from the next job on and can be taken back at any time."""
    refuse_managed_only(services, managed_only=choice.managed_only)
    consent = Consent(choice.managed_only, services.tiers_version(), int(time.time() // 60))
    await services.accounts.set_consent(owner.id, consent)
    return await consent_view(services, owner)


async def consent_view(services: Services, account: Account) -> ConsentView:
    consent = await services.accounts.consent(account.id)
    managed_only = await services.accounts.managed_only(account.id, services.tiers_version())
    if not services.offers_managed_only:
        reason = MANAGED_ONLY_NOT_OFFERED
    elif not await services.accounts.is_trusted():
        reason = "The record of who refused which tiers was lost: only our own workers until the operator confirms."
    elif consent is None:
        reason = "The service's default: the tiers in their order."
    elif consent.managed_only:
        reason = "You chose our own workers only."
    elif managed_only:
        reason = "The list of tiers has changed since you agreed: only our own workers until you agree again."
    else:
        reason = "You agreed to every tier."
    return ConsentView(
        managed_only=managed_only, offered=services.offers_managed_only, chosen=consent is not None, reason=reason
    )
