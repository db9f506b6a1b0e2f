"""When a job will be done, as far as one can tell; and whether another can be taken on at all."""

from __future__ import annotations

import math
from typing import NamedTuple

from router.core import clock
from router.core.errors import Problem
from router.jobs import attempts
from router.jobs.services import Services
from router.store.record import Job
from router.tiers.fleet.member import FleetMember
from router.tiers.policy.breaker import BackendState
from router.tiers.policy.choice import TIER_ORDER, TYPICAL, Need, outlook

LONGEST_ETA_S = 600.0
OUTAGE_OPENINGS = 3
"""A backend that opened so often in a row is down, not stumbling: half a minute of nothing but failed probes."""
NOBODY_KNOWS_S = 60.0
FRACTION_TRUSTED = 0.1


def queued_eta_s(services: Services, job: Job, ahead: int) -> float | None:
    """Seconds until a waiting job is done, with `ahead` jobs before it; None while no tier can take it."""
    need = attempts.need_of(job, clock.now(), ahead, again=True)
    found = outlook(services.fleet.candidates(), need, services.fleet.draw)
    return round(found.eta_s, 1) if math.isfinite(found.eta_s) else None


def running_eta_s(job: Job) -> float | None:
    """Seconds until a running job is done: by its own progress once that tells, before that by its backend's pace."""
    if not job.attempts or (attempt := job.attempts[-1]).eta_s is None:
        return None
    elapsed_s = clock.now() - attempt.started_s
    fraction = job.progress.fraction if job.progress else 0.0
    if fraction < FRACTION_TRUSTED:
        return round(max(0.0, attempt.eta_s - elapsed_s), 1)
    return round(elapsed_s * (1 - fraction) / fraction, 1)


async def admit(services: Services, size_bytes: int | None, *, managed_only: bool) -> None:
    """Refuse what would wait too long or find nobody, before a byte of it moves. Raises Problem with Retry-After."""
    need = TYPICAL._replace(managed_only=managed_only, queued=await services.queue.depth())
    refusal = _refusal(services, need._replace(size_bytes=size_bytes or need.size_bytes))
    if refusal is not None:
        services.fleet.metrics.shed(refusal.code)
        raise refusal


def _refusal(services: Services, need: Need) -> Problem | None:
    found = outlook(services.fleet.candidates(), need, services.fleet.draw)
    if found.tier is not None:
        excess_s = found.eta_s - LONGEST_ETA_S
        if excess_s <= 0:
            return None
        waiting = f"A song sent now would be done in {found.eta_s / 60:.0f} minutes; more than"
        sentence = f"{waiting} {LONGEST_ETA_S / 60:.0f} are not promised. Send it again later."
        return Problem("overloaded", sentence, retry_after_s=excess_s, eta_s=round(found.eta_s))
    back_in_s = _soonest_return_s(services, managed_only=need.managed_only)
    if back_in_s is None:
        return None
    return Problem("no_tier", found.reason + " Send the song again later.", retry_after_s=back_in_s)


def _soonest_return_s(services: Services, *, managed_only: bool) -> float | None:
    """Until a backend may be back when all are known to be out for longer; None when it is worth waiting in line."""
    now = clock.now()
    allowed = [s for s in services.fleet.members() if not managed_only or s.backend.tier == TIER_ORDER[0]]
    outages = [_outage(member, now) for member in allowed]
    if not outages or any(not outage.proven for outage in outages):
        return None
    return max(1.0, min(outage.back_in_s for outage in outages))


class _Outage(NamedTuple):
    proven: bool
    back_in_s: float


def _outage(member: FleetMember, now: float) -> _Outage:
    back_in_s = member.back_in_s(now)
    match member.state(now):
        case BackendState.OPEN | BackendState.HALF_OPEN:
            return _Outage(member.breaker.openings >= OUTAGE_OPENINGS, back_in_s or 0.0)
        case BackendState.QUOTA_OUT | BackendState.PAUSED | BackendState.DRAINING | BackendState.MAINTENANCE:
            return _Outage(True, NOBODY_KNOWS_S if back_in_s is None else back_in_s)
        case _:
            return _Outage(False, 0.0)
