"""From a complete upload to a queued job: the probe checks the audio before any tier sees a byte of it."""

from __future__ import annotations

import math
import time

from mastering.contract import Facts, Fault
from router.core.errors import Problem
from router.jobs import lifecycle
from router.jobs.kinds import kind_of
from router.jobs.services import Services
from router.probe.stream_tap import StreamTap
from router.spool.port import BlobGone
from router.store.port import QueueFull
from router.store.record import Job
from router.store.state import JobState

ANY_LANE, MANAGED_LANE = "any", "managed"
"""Each kind of job has two lanes in the queue: for any tier, and for jobs that only managed workers may take."""
_DAY_S = 86_400


def lane_of(kind: str, *, managed_only: bool) -> str:
    """The lane of the queue for such jobs."""
    return f"{kind}/{MANAGED_LANE if managed_only else ANY_LANE}"


def spooled(job: Job, size_bytes: int) -> Job | None:
    """The record step from `received` to `spooled` with the upload's size; None where it went on or ended meanwhile."""
    if job.state is not JobState.RECEIVED or job.input is None:
        return None
    source = job.input.model_copy(update={"size_bytes": size_bytes})
    return job.to(JobState.SPOOLED, input=source, size_bytes=size_bytes)


async def probe_and_enqueue(services: Services, job_id: str, tap: StreamTap[Facts] | None = None) -> Job:
    """Probe a spooled job's audio and queue it. Safe to repeat after a crash. `tap`: probed it as it arrived.

    Raises Problem for audio that can't be mastered or a queue that is full; the job is then failed and wiped.
    """
    job, _ = await services.jobs.get(job_id)
    if job.state is not JobState.SPOOLED:
        return job
    try:
        facts = await _probe(services, job, tap)
        await _check_quota(services, job.account, facts)
        # The record first: whoever leases the job must find it queued. A crash between the two: `recovery.recover`.
        job = await services.change(job_id, lambda job: _queued(job, facts, services.clock.now()))
        if job.state is JobState.QUEUED:
            await enqueue(services, job)
            await _count(services, job.account, facts)
    except Problem as problem:
        await lifecycle.end(services, job_id, JobState.FAILED, problem)
        raise
    return job


def _queued(job: Job, facts: Facts, now_s: float) -> Job | None:
    return job.to(JobState.QUEUED, facts=facts, queued_s=now_s) if job.state is JobState.SPOOLED else None


async def enqueue(services: Services, job: Job) -> None:
    """Put a queued job in the queue. Raises Problem(too_many_jobs) when the account has too many waiting."""
    cost_s = job.facts.duration_s if job.facts else 0.0
    try:
        await services.queue.enqueue(job.id, lane_of(job.kind, managed_only=job.managed_only), job.account, cost_s)
    except QueueFull as full:
        raise Problem(
            "too_many_jobs",
            f"{services.settings.max_queued_per_account} of your jobs are waiting,"
            " which is the most an account may have.",
            retry_after_s=full.retry_after_s,
            allowed=services.settings.max_queued_per_account,
        ) from full


async def _check_quota(services: Services, account: str, facts: Facts) -> None:
    """Raise Problem(daily_quota) when the song would exceed what the account may send in a day (UTC)."""
    allowed_s = services.settings.daily_audio_s_per_account
    if allowed_s is None:
        return
    used_s = await services.accounts.used_audio_s(account, _today())
    if used_s + facts.duration_s > allowed_s:
        raise Problem(
            "daily_quota",
            f"You have used {used_s / 60:.0f} of today's {allowed_s / 60:.0f} minutes of audio; this song has"
            f" {facts.duration_s / 60:.1f}. The count starts anew at midnight UTC.",
            retry_after_s=_DAY_S - time.time() % _DAY_S,
            used_s=used_s,
            allowed_s=allowed_s,
        )


async def _count(services: Services, account: str, facts: Facts) -> None:
    """Count the song against the day's quota. Without a quota nothing is counted: the count is durable, which costs a
    person data and a job time.
    """
    if services.settings.daily_audio_s_per_account is not None:
        await services.accounts.use_audio(account, _today(), round(facts.duration_s))


def _today() -> int:
    """Days since the epoch, UTC."""
    return int(time.time() // _DAY_S)


async def _probe(services: Services, job: Job, tap: StreamTap[Facts] | None) -> Facts:
    if job.input is None:
        raise Problem("input_lost")
    try:
        tapped = await tap.result() if tap else None
        song = services.spool.read(job.input.ref)
        facts = tapped or await services.probe.probe(song, size=job.input.size_bytes, account=job.account)
    except Fault as fault:
        raise Problem(fault.code, fault.message, **fault.numbers) from fault
    except BlobGone:
        raise Problem("gone", "The job ended while its audio was looked at.") from None
    allowed_s = min(services.settings.max_duration_s, kind_of(job).max_duration_s or math.inf)
    if facts.duration_s > allowed_s:
        allowed_min = allowed_s / 60
        raise Problem(
            "too_long",
            f"The song lasts {facts.duration_s / 60:.0f} minutes; {allowed_min:.0f} are allowed. Split it.",
            duration_s=facts.duration_s,
            allowed_s=allowed_s,
        )
    return facts
