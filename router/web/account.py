"""What an account has agreed to, over HTTP: on which tiers its songs may be rendered."""

from __future__ import annotations

import time

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from router.accounts import Consent
from router.house import House
from router.web.rooms import TheAccount, TheHouse
from router.web.sign_in import Account

router = APIRouter(prefix="/v1/account", tags=["account"])


class ConsentView(BaseModel):
    """Where the next job of this account may run."""

    managed_only: bool = Field(description="Only our own workers, whatever is down.")
    chosen: bool = Field(description="False while the account has never said anything: the service's default holds.")
    reason: str


class ConsentWanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    managed_only: bool


@router.get("/consent")
async def show(house: TheHouse, account: TheAccount) -> ConsentView:
    """On which tiers the next job may run, and why."""
    return consent_view(house, account)


@router.put("/consent")
async def choose(house: TheHouse, account: TheAccount, wanted: ConsentWanted) -> ConsentView:
    """Allow every tier, or our own workers only. It holds from the next job on and can be taken back at any time."""
    consent = Consent(wanted.managed_only, house.tiers_version(), int(time.time() // 60))
    house.accounts.set_consent(account.id, consent)
    return consent_view(house, account)


def consent_view(house: House, account: Account) -> ConsentView:
    consent = house.accounts.consent(account.id)
    managed_only = house.accounts.managed_only(account.id, house.tiers_version())
    if not house.accounts.trusted:
        reason = "The record of who refused which tiers was lost: only our own workers until the operator confirms."
    elif consent is None:
        reason = "The service's default: the tiers in their order."
    elif consent.managed_only:
        reason = "You chose our own workers only."
    elif managed_only:
        reason = "The list of tiers has changed since you agreed: only our own workers until you agree again."
    else:
        reason = "You agreed to every tier."
    return ConsentView(managed_only=managed_only, chosen=consent is not None, reason=reason)
