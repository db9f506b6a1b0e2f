"""Recovery at start: brings every job that a dead router left behind into a state that goes on by itself.

What only time makes due is `router.jobs.reaper`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from mastering.contract.kinds import job_kinds
from router.core.errors import Problem
from router.core.event_log import log_exception
from router.jobs import attempts, intake, lifecycle
from router.jobs.services import Services
from router.spool.port import BlobGone
from router.store.port import JobMissing, Jobs
from router.store.record import Job
from router.store.state import ACTIVE, CLOSED, JobState


async def recover(services: Services) -> int:
    """Resume every job of this router, then drop each blob that no job owns. Returns how many are not yet done.

    Running jobs are queued again at once, sealed ones lose their input and can be fetched, closed ones are wiped. An
    upload that had arrived in full becomes `spooled`, though its client never got the answer; `probe_interrupted` goes
    on from there.
    """
    await services.queue.release(services.owner)
    resumed = 0
    async for job, _ in services.jobs.scan():
        if not services.is_ours(job):
            continue
        try:
            resumed += await _resume(services, job)
        except JobMissing:
            continue
        except Exception as error:
            # One record that can't be brought on must not keep the others down.
            log_exception(error)
    await services.spool.reconcile(await _owned_blobs(services.jobs))
    return resumed


async def probe_interrupted(services: Services) -> None:
    """Probe the uploads that were complete but not yet probed when the last router died."""
    await probe_each(services, await spooled_ids(services))


async def probe_each(services: Services, job_ids: Iterable[str]) -> None:
    """Probe and queue these spooled jobs, one after the other. Errors end on the jobs' records or in the log."""
    for job_id in job_ids:
        try:
            await intake.probe_and_enqueue(services, job_id)
        except (Problem, JobMissing):
            continue  # the job's record says what was wrong
        except Exception as error:
            # One that can't be probed must not keep the others waiting; a later round of the reaper tries it again.
            log_exception(error)


async def spooled_ids(services: Services) -> set[str]:
    """Ids of this router's jobs whose upload is complete and not yet probed."""
    found = services.jobs.scan()
    return {job.id async for job, _ in found if job.state is JobState.SPOOLED and services.is_ours(job)}


async def _resume(services: Services, job: Job) -> bool:
    """Take the job's next step; whether it is still to be mastered. Raises JobMissing."""
    if job.state is JobState.SEALED:
        await lifecycle.finish_sealed(services, job.id)
    elif job.state in CLOSED:
        await services.queue.withdraw(job.id)
        await lifecycle.wipe(services, job)
    elif job.kind not in job_kinds():
        problem = Problem("input_lost", "This router does jobs of this kind no more. Ask whoever runs it.")
        await lifecycle.end(services, job.id, JobState.FAILED, problem)
        return False
    elif job.state in (JobState.QUEUED, JobState.RUNNING):
        await services.change(job.id, lambda job: _interrupted_attempt_ended(job, services.clock.now()))
        await intake.enqueue(services, job)
    elif job.state is JobState.RECEIVED and job.input:
        with suppress(BlobGone):  # its time is over: the reaper closes it
            size_bytes, complete = await services.spool.extent(job.input.ref)
            if complete:
                await services.change(job.id, lambda job: intake.spooled(job, size_bytes))
    return job.state in ACTIVE


def _interrupted_attempt_ended(job: Job, now_s: float) -> Job | None:
    """A running job back in the queue, its attempt closed as interrupted; None for any other job."""
    if job.state is not JobState.RUNNING:
        return None
    closed = attempts.with_interrupted(job.attempts, now_s, "the router restarted")
    return job.to(JobState.QUEUED, progress=None, attempts=closed)


async def _owned_blobs(jobs: Jobs) -> set[str]:
    owned: set[str] = set()
    async for job, _ in jobs.scan():
        owned |= {blob.ref for blob in job.blobs}
    return owned
