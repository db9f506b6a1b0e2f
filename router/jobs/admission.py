"""Admission control: refuses a new job that would wait too long or that no backend could take.

It asks before a byte of audio moves, so that nobody uploads a song in vain, and says when to come back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mastering.contract import JobOptions
from mastering.contract.kinds import JobKind
from router.core import clock
from router.core.errors import Problem
from router.jobs.kinds import typical_job
from router.jobs.services import Services
from router.tiers.fleet.fleet import Fleet
from router.tiers.fleet.member import FleetMember
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.choice import JobRequirements, forecast, why_not_done
from router.tiers.policy.tier import TIER_ORDER

LONGEST_ETA_S = 600.0
"""Seconds: a job that would be done later than this is refused, since no longer wait is promised (decision 0008)."""
OUTAGE_OPENINGS = 3
"""A breaker that opened so often in a row means an outage, no passing fault: half a minute of failed probes alone."""
RETURN_UNKNOWN_S = 60.0
"""Seconds said in Retry-After where an operator has taken a backend out and nobody knows until when."""


async def admit(
    services: Services, kind: JobKind[Any], options: JobOptions, size_bytes: int | None, *, managed_only: bool
) -> None:
    """Raise Problem(overloaded, no_tier) with Retry-After where a job made now would not be done in time."""
    queued = await services.queue.depth()
    need = typical_job(kind, options)._replace(managed_only=managed_only, queued=queued)
    refusal = _overload(services, need._replace(size_bytes=size_bytes or need.size_bytes))
    if refusal is not None:
        services.fleet.metrics.shed(refusal.code)
        raise refusal


def _overload(services: Services, need: JobRequirements) -> Problem | None:
    found = forecast(services.fleet.candidates(), need, services.fleet.draw)
    if found.tier is not None:
        excess_s = found.eta_s - LONGEST_ETA_S
        if excess_s <= 0:
            return None
        waiting = f"A song sent now would be done in {found.eta_s / 60:.0f} minutes; more than"
        sentence = f"{waiting} {LONGEST_ETA_S / 60:.0f} are not promised. Send it again later."
        return Problem("overloaded", sentence, retry_after_s=excess_s, eta_s=round(found.eta_s))
    back_in_s = _soonest_return_s(services.fleet, need)
    if back_in_s is None:
        return None
    allowed = [one for one in services.fleet.candidates() if not need.managed_only or one.tier == TIER_ORDER[0]]
    is_never = all(why_not_done(one, need) for one in allowed)
    what = "Ask for something else: nothing that is set up does this." if is_never else "Send the song again later."
    return Problem("no_tier", f"{found.reason} {what}", retry_after_s=back_in_s)


def _soonest_return_s(fleet: Fleet, need: JobRequirements) -> float | None:
    """Seconds until a backend may be back, where all are known to be out for a while; None where waiting is better."""
    now = clock.now()
    allowed = [s for s in fleet.members() if not need.managed_only or s.backend.tier == TIER_ORDER[0]]
    outages = [_outage(member, need, now) for member in allowed]
    if not outages or any(not outage.proven for outage in outages):
        return None
    return max(1.0, min(outage.back_in_s for outage in outages))


class _Outage(NamedTuple):
    """Whether a backend is out for longer than a passing fault, and for how many more seconds."""

    proven: bool
    back_in_s: float


def _outage(member: FleetMember, need: JobRequirements, now: float) -> _Outage:
    if why_not_done(member.candidate(now), need) is not None:  # until another version of it is deployed
        return _Outage(True, RETURN_UNKNOWN_S)
    back_in_s = member.back_in_s(now)
    match member.state(now):
        case BackendState.OPEN | BackendState.HALF_OPEN:
            return _Outage(member.breaker.openings >= OUTAGE_OPENINGS, back_in_s or 0.0)
        case (
            BackendState.QUOTA_OUT
            | BackendState.PAUSED
            | BackendState.DRAINING
            | BackendState.MAINTENANCE
            | BackendState.INCOMPATIBLE
        ):
            return _Outage(True, RETURN_UNKNOWN_S if back_in_s is None else back_in_s)
        case _:
            return _Outage(False, 0.0)
