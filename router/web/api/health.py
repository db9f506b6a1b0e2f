"""Health for everybody: whether songs would be mastered now, and on which tiers. No backend, queue or number of it."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from router.tiers.policy.backend_state import UP
from router.tiers.policy.tier import TIER_ORDER, TIER_TITLES
from router.web.dependencies import TheServices

router = APIRouter(prefix="/v1", tags=["health"])


class TierHealth(BaseModel):
    name: str
    title: str
    up: bool = Field(description="It could take a song.")


class Health(BaseModel):
    """Whether the service works."""

    status: Literal["ok", "degraded", "down"] = Field(description="All tiers that are set up are up, some, or none.")
    tiers: list[TierHealth]


@router.get("/health")
async def health(services: TheServices, response: Response) -> Health:
    """Whether songs would be mastered now. 200 as long as the router answers: it keeps songs while no tier is up."""
    response.headers["cache-control"] = "no-store"
    found = services.fleet.candidates()
    set_up = [name for name in TIER_ORDER if any(one.tier == name for one in found)]
    up = {one.tier for one in found if one.state in UP}
    tiers = [TierHealth(name=name, title=TIER_TITLES[name], up=name in up) for name in set_up]
    status: Literal["ok", "degraded"] = "ok" if len(up) == len(tiers) else "degraded"
    return Health(status=status if up else "down", tiers=tiers)
