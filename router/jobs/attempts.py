"""A job's attempts on its record: what they say of its next backend, and the steps that add and close them. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mastering.contract import USER_FAULTS
from router.core.errors import Problem
from router.jobs.kinds import kind_of, options_of, requirements_of
from router.store.record import Attempt, Job
from router.store.state import JobState
from router.tiers.policy.choice import Choice, JobRequirements
from router.tiers.policy.faults import CONSEQUENCES, FaultClass, NextStep, TierFault

MAX_FAULTS = 4
"""Failed attempts after which the job fails: twice MAX_FAULTS_PER_TIER, so that a second tier had its turn."""
MAX_FAULTS_PER_TIER = 2
"""Failures on one tier's backends after which the job tries another tier."""
MAX_DEATHS = 2
"""Backends that may die while they have a job: after the second the song itself is suspected and the job fails."""
_ATTEMPTS_KEPT = 20
"""Attempts that stay on the record, which restarts of the router add to without end."""
_PASSED_TIERS = frozenset({FaultClass.TOO_BIG, FaultClass.UNSUPPORTED})
"""Faults after which the whole tier can't render this song."""
_CLASSES = {fault_class.value: fault_class for fault_class in FaultClass}


def need_of(job: Job, now_s: float, queued: int, *, again: bool = False) -> JobRequirements:
    """What the job asks of a backend. Those it brought down are avoided; `again` lifts that, for want of others."""
    ended = [(attempt, _CLASSES[attempt.outcome]) for attempt in job.attempts if attempt.outcome in _CLASSES]
    deadly = {attempt.backend for attempt, fault in ended if CONSEQUENCES[fault].death}
    blamed = Counter(
        attempt.tier for attempt, fault in ended if CONSEQUENCES[fault].counts and CONSEQUENCES[fault].spends
    )
    worn = {tier for tier, count in blamed.items() if count >= MAX_FAULTS_PER_TIER}
    kind = kind_of(job)
    too_small = {attempt.tier for attempt, fault in ended if fault in _PASSED_TIERS}
    return JobRequirements(
        **requirements_of(kind, options_of(job)),
        size_bytes=job.input.size_bytes if job.input else 0,
        duration_s=job.facts.duration_s if job.facts else 0.0,
        managed_only=job.managed_only,
        deadline_s=job.expires_s - now_s,
        queued=queued,
        avoid=frozenset() if again else frozenset(deadly),
        avoid_tiers=frozenset(too_small if again else too_small | worn),
    )


def is_retry(job: Job) -> bool:
    """Whether an attempt of this job has failed before."""
    return job.faults > 0


def lacked_spool_space(job: Job) -> bool:
    """Whether its last attempt ended because the spool lacked space."""
    return bool(job.attempts) and job.attempts[-1].outcome == FaultClass.ROOM


def with_new_attempt(job: Job, choice: Choice, started_s: float) -> Job | None:
    """The job running under a new generation, with its attempt on record; None when it is not to be run."""
    if job.state not in (JobState.QUEUED, JobState.RUNNING):
        return None
    begun = Attempt(
        number=job.generation + 1,
        generation=job.generation + 1,
        tier=choice.tier,
        backend=choice.backend,
        reason=choice.reason,
        started_s=started_s,
        eta_s=round(choice.eta_s, 1),
        device=choice.device,
    )
    # One that is open lost its lease: this machine slept, or stood still for longer than the lease.
    before = with_interrupted(job.attempts, started_s, "the router stood still for too long")
    attempts = (*before, begun)[-_ATTEMPTS_KEPT:]
    changes: dict[str, Any] = {"generation": begun.generation, "attempts": attempts, "progress": None}
    return job.with_(**changes) if job.state is JobState.RUNNING else job.to(JobState.RUNNING, **changes)


def requeued(job: Job) -> Job | None:
    """A running job back in the queue; None for any other."""
    return job.to(JobState.QUEUED, progress=None) if job.state is JobState.RUNNING else None


def faulted(job: Job, fault: TierFault, ended_s: float) -> Job:
    """The job with its last attempt closed by `fault`."""
    effect = fault.consequence
    return job.with_(
        attempts=with_last_ended(job.attempts, ended_s, fault.fault_class, fault.detail),
        faults=job.faults + effect.spends,
        deaths=job.deaths + effect.death,
        progress=None,
    )


def ending_problem(job: Job, fault: TierFault) -> Problem | None:
    """How the job ends after `fault`, or None when it may go on elsewhere."""
    if fault.consequence.next is NextStep.STOP:
        code = fault.code if fault.code in USER_FAULTS else "deadline"
        return Problem(str(code), fault.detail, **fault.numbers)
    if job.deaths >= MAX_DEATHS:
        return Problem("poison", f"Two machines failed while they had this song; the last said: {fault.detail}.")
    if job.faults >= MAX_FAULTS:
        return Problem("attempts_exhausted", f"{job.faults} attempts failed; the last: {fault.detail}.")
    return None


def is_same_attempt(current: Job, job: Job) -> bool:
    """Whether the record is still at the attempt that `job` was read for."""
    return current.state is JobState.RUNNING and current.generation == job.generation


def with_interrupted(attempts: tuple[Attempt, ...], ended_s: float, detail: str) -> tuple[Attempt, ...]:
    """The attempts with a last one that is still open closed at `ended_s` as interrupted."""
    is_open = bool(attempts) and attempts[-1].ended_s is None
    return with_last_ended(attempts, ended_s, "interrupted", detail) if is_open else attempts


def with_last_ended(attempts: tuple[Attempt, ...], ended_s: float, outcome: str, detail: str) -> tuple[Attempt, ...]:
    """The attempts with the last one closed at `ended_s`; none stay none."""
    if not attempts:
        return attempts
    last = attempts[-1].model_copy(update={"ended_s": ended_s, "outcome": outcome, "detail": detail})
    return (*attempts[:-1], last)
