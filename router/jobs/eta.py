"""When a job will be done and what it waits for, as a person sees it: queued jobs by the fleet, others by progress."""

from __future__ import annotations

import math
from typing import NamedTuple

from router.core.clock import Clock
from router.jobs import attempts
from router.store.record import Job
from router.tiers.fleet.fleet import Fleet
from router.tiers.policy.choice import forecast

FRACTION_TRUSTED = 0.1
"""Share of a render (0 … 1) from which its own progress predicts the end better than the backend's usual pace."""


class Outlook(NamedTuple):
    """When a waiting job will be done, in seconds, None while no tier can take it; and what it waits for."""

    eta_s: float | None
    reason: str
    is_free: bool = False
    """A backend could take it now."""


def queued_outlook(clock: Clock, fleet: Fleet, job: Job, ahead: int) -> Outlook:
    """The outlook at this moment of a waiting job with `ahead` jobs before it."""
    need = attempts.need_of(job, clock.now(), ahead, again=True)
    found = forecast(fleet.candidates(), need, fleet.draw)
    eta_s = round(found.eta_s, 1) if math.isfinite(found.eta_s) else None
    if attempts.lacked_spool_space(job):
        return Outlook(eta_s, "Its master found no room in the temporary store; it is tried again when there is some.")
    if found.backend is None:
        return Outlook(eta_s, found.reason)
    return Outlook(eta_s, "It waits for its turn: others are before it." if ahead else "It starts in a moment.", True)


def running_eta_s(clock: Clock, job: Job) -> float | None:
    """Seconds until a running job is done; None where its backend's pace is unknown.

    Up to FRACTION_TRUSTED by what was expected when the attempt began, then by its own progress.
    """
    if not job.attempts or (attempt := job.attempts[-1]).eta_s is None:
        return None
    elapsed_s = clock.now() - attempt.started_s
    fraction = job.progress.fraction if job.progress else 0.0
    if fraction < FRACTION_TRUSTED:
        return round(max(0.0, attempt.eta_s - elapsed_s), 1)
    return round(elapsed_s * (1 - fraction) / fraction, 1)
