"""Estimates of when a job will be done, as a person sees them: queued jobs by the fleet, running ones by progress."""

from __future__ import annotations

import math

from router.core.clock import Clock
from router.jobs import attempts
from router.store.record import Job
from router.tiers.fleet.fleet import Fleet
from router.tiers.policy.choice import forecast

FRACTION_TRUSTED = 0.1
"""Share of a render (0 … 1) from which its own progress predicts the end better than the backend's usual pace."""


def queued_eta_s(clock: Clock, fleet: Fleet, job: Job, ahead: int) -> float | None:
    """Seconds until a waiting job is done, with `ahead` jobs before it; None while no tier can take it."""
    need = attempts.need_of(job, clock.now(), ahead, again=True)
    found = forecast(fleet.candidates(), need, fleet.draw)
    return round(found.eta_s, 1) if math.isfinite(found.eta_s) else None


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
