"""Health for everybody: whether songs would be mastered now, and on which tiers. No backend, queue or number of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from router.jobs.services import Services
from router.tiers.policy.backend_state import UP
from router.tiers.policy.tier import TIER_ORDER, tier_title
from router.web.dependencies import TheServices

router = APIRouter(prefix="/v1", tags=["health"])


class TierHealth(BaseModel):
    name: str
    title: str
    up: bool = Field(description="It could take a song.")
    sandbox: Literal["whole", "incomplete"] | None = Field(
        description="Whether what renders songs there is kept from network, processes and files; null: it has not said."
    )


class Health(BaseModel):
    """Whether the service works."""

    status: Literal["ok", "degraded", "down"] = Field(description="All tiers that are set up are up, some, or none.")
    sandbox: Literal["whole", "incomplete"] | None = Field(description="The same of what reads uploads here.")
    tiers: list[TierHealth]


@router.get("/health")
async def health(services: TheServices, response: Response) -> Health:
    """Whether songs would be mastered now. 200 as long as the router answers: it keeps songs while no tier is up."""
    response.headers["cache-control"] = "no-store"
    found = services.fleet.candidates()
    set_up = [name for name in TIER_ORDER if any(one.tier == name for one in found)]
    up = {one.tier for one in found if one.state in UP}
    tiers = [_tier_health(services, name, name in up) for name in set_up]
    status: Literal["ok", "degraded"] = "ok" if len(up) == len(tiers) else "degraded"
    return Health(status=status if up else "down", sandbox=_sandbox([services.probe.sandbox_gaps]), tiers=tiers)


def _tier_health(services: Services, name: str, up: bool) -> TierHealth:
    healths = [member.health for member in services.fleet.members() if member.backend.tier == name]
    title = tier_title(name, (health.device for health in healths))
    return TierHealth(name=name, title=title, up=up, sandbox=_sandbox([health.sandbox_gaps for health in healths]))


def _sandbox(gaps: Sequence[tuple[str, ...] | None]) -> Literal["whole", "incomplete"] | None:
    """Of several machines: incomplete where one is."""
    if any(gaps):
        return "incomplete"
    return None if None in gaps else "whole"
