"""What a start finds left over, and what time makes due: recovery, expiry, and files nobody owns."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from router.core import clock
from router.core.errors import Problem
from router.core.event_log import log, log_exception
from router.jobs import intake, lifecycle
from router.jobs.services import Services
from router.spool.port import BlobGone
from router.store.port import JobMissing
from router.store.record import Job
from router.store.state import ACTIVE, CLOSED, JobState

EVERY_S = 5.0
UNSENT_EVERY_S = 30.0
FORGOTTEN_AFTER_S = 120.0
"""Longer than any probe takes."""


async def recover(services: Services) -> int:
    """Bring every job that a dead router left into a state that goes on by itself. Returns how many go on.

    Running jobs are queued again at once, sealed ones lose their input and can be fetched, closed ones are wiped;
    an upload that had arrived in full, though its client never heard so, goes to the probe.
    """
    await services.queue.release_all()
    resumed = 0
    async for job, _ in services.jobs.scan():
        try:
            resumed += await _resume(services, job)
        except JobMissing:
            continue
        except Exception as error:
            # One record that can't be brought on must not keep the others down.
            log_exception(error)
    await services.spool.reconcile(await _owned(services))
    return resumed


async def _resume(services: Services, job: Job) -> bool:
    if job.state is JobState.SEALED:
        await lifecycle.finish_sealed(services, job.id)
    elif job.state in CLOSED:
        await services.queue.withdraw(job.id)
        await lifecycle.wipe(services, job)
    elif job.state in (JobState.QUEUED, JobState.RUNNING):
        await services.change(job.id, _requeued)
        await intake.enqueue(services, job)
    elif job.state is JobState.RECEIVED and job.input:
        with suppress(BlobGone):  # `sweep` says that its time is over
            size_bytes, complete = await services.spool.extent(job.input.ref)
            if complete:
                await services.change(job.id, lambda job: intake.spooled(job, size_bytes))
    return job.state in ACTIVE


def _requeued(job: Job) -> Job | None:
    if job.state is not JobState.RUNNING:
        return None
    *before, last = job.attempts
    cut = last.model_copy(update={"ended_s": clock.now(), "outcome": "interrupted", "detail": "the router restarted"})
    return job.to(JobState.QUEUED, progress=None, attempts=(*before, cut))


async def probe_interrupted(services: Services) -> None:
    """Uploads that were complete but not yet looked at when the last router died."""
    await _admit(services, await _spooled(services))


async def _admit(services: Services, job_ids: set[str]) -> None:
    for job_id in job_ids:
        try:
            await intake.admit(services, job_id)
        except (Problem, JobMissing):
            continue  # the job's record says what was wrong
        except Exception as error:
            # One that can't be looked at must not keep the others waiting; a later round tries it again.
            log_exception(error)


async def _spooled(services: Services) -> set[str]:
    return {job.id async for job, _ in services.jobs.scan() if job.state is JobState.SPOOLED}


async def _owned(services: Services) -> set[str]:
    owned: set[str] = set()
    async for job, _ in services.jobs.scan():
        owned |= {blob.ref for blob in job.blobs}
    return owned


async def sweep(services: Services) -> int:
    """Close every job whose time is over and drop every blob whose time is over. Returns how many jobs went."""
    due = await services.jobs.due(clock.now())
    for job_id in due:
        try:
            job, _ = await services.jobs.get(job_id)
            problem = None if job.report else Problem("expired", "The job did not end in the time it had.")
            await lifecycle.end(services, job_id, JobState.EXPIRED, problem)
        except JobMissing:
            continue
        except Exception as error:
            # One that can't be closed must not keep the others' audio readable; the next round tries again.
            log_exception(error)
    for ref in services.spool.expired():
        await services.spool.drop(ref)
    return len(due)


async def admit_forgotten_for_ever(services: Services) -> None:
    """Uploads whose probe broke on something of ours: still waiting after a whole round, nobody works on them."""
    before: set[str] = set()
    while True:
        await asyncio.sleep(FORGOTTEN_AFTER_S)
        try:
            now = await _spooled(services)
            await _admit(services, before & now)
            before = now
        except Exception as error:
            log_exception(error)


async def end_unsent(services: Services) -> int:
    """End the jobs that were made a while ago and of which not a byte has come. Returns how many."""
    ended, latest_s = 0, clock.now() - services.settings.unsent_ttl_s
    async for job, _ in services.jobs.scan():
        if job.state is not JobState.RECEIVED or job.created_s > latest_s or await _has_sent(services, job):
            continue
        minutes = services.settings.unsent_ttl_s / 60
        problem = Problem("expired", f"Nothing was sent for {minutes:.0f} minutes. Make a new job.")
        with suppress(JobMissing):
            await lifecycle.end(services, job.id, JobState.EXPIRED, problem)
            ended += 1
    return ended


async def _has_sent(services: Services, job: Job) -> bool:
    blobs = [blob for blob in (job.input, *job.references.values()) if blob]
    if any(blob.size_bytes or services.spool.is_taking(blob.ref) for blob in blobs):
        return True
    with suppress(BlobGone):
        return job.input is not None and (await services.spool.extent(job.input.ref)).size_bytes > 0
    return False


async def end_unsent_for_ever(services: Services) -> None:
    while True:
        await asyncio.sleep(UNSENT_EVERY_S)
        try:
            if count := await end_unsent(services):
                log("wiped", reason="expired", count=count)
        except Exception as error:
            log_exception(error)


async def reap_for_ever(services: Services) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            if count := await sweep(services):
                log("wiped", reason="expired", count=count)
        except Exception as error:
            # The next round tries again; time is also checked at every read.
            log_exception(error)
