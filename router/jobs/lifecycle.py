"""How a job ends: keys destroyed first, then the bytes, then the record says so, with a receipt.

The order is the promise. The input's key is gone before anybody can see that a job is done, failed or cancelled (the
record's step to a closed state is visible only as `ending` until the wipe is noted); whatever kill comes between, the
next start repeats the destruction, which changes nothing the second time.
"""

from __future__ import annotations

import time
from typing import Any

from mastering.contract import Report
from router.core import clock
from router.core.errors import Problem
from router.jobs import render_record
from router.jobs.services import Services
from router.spool.records import sealed_size
from router.store.record import Attempt, Job, Receipt
from router.store.state import ACTIVE, CLOSED, DONE, STEPS, JobState


async def end(
    services: Services, job_id: str, state: JobState, problem: Problem | None = None, *, generation: int | None = None
) -> Job:
    """Close the job as failed, cancelled or expired and wipe it. A job that is closed already stays as it is, and so
    does one that has a master and therefore can't fail any more, or that is past `generation`.

    A sealed job is finished first: its input goes, and only then can it be closed. Raises Missing.
    """

    owed = False

    def close(job: Job) -> Job | None:
        nonlocal owed
        owed = False
        if state not in STEPS[job.state] or generation not in (None, job.generation):
            return None
        owed = job.state in ACTIVE
        attempts = tuple(_stopped(attempt, state) for attempt in job.attempts)
        return job.to(state, error=problem.body() if problem else job.error, attempts=attempts)

    job = await services.change(job_id, close)
    if job.state is JobState.SEALED:
        await finish_sealed(services, job_id)
        job = await services.change(job_id, close)
    if job.state not in CLOSED:
        return job
    if owed:
        services.fleet.metrics.job_ended(render_record.outcome(job), clock.now() - job.created_s)
        render_record.write(job, len(job.references))
    await services.queue.withdraw(job_id)
    return await wipe(services, job)


async def wipe(services: Services, job: Job) -> Job:
    """Destroy all audio of a closed job and note the receipt."""
    await _destroy(services, job, inputs=True, outputs=True)
    if job.state is JobState.WIPED:
        return job
    now = time.time()

    def note(current: Job) -> Job | None:
        if current.state is JobState.WIPED:
            return None
        had = current.receipt
        receipt = Receipt(
            input_key_destroyed_at=had.input_key_destroyed_at or (now if current.input else None),
            outputs_key_destroyed_at=had.outputs_key_destroyed_at or (now if current.outputs else None),
        )
        ended_as = current.state
        return current.to(
            JobState.WIPED,
            ended_as=ended_as,
            input=None,
            references={},
            outputs={},
            progress=None,
            report=_without_the_course(current.report),
            receipt=receipt,
        )

    return await services.change(job.id, note)


async def finish_sealed(services: Services, job_id: str) -> Job:
    """From a committed output to a master that can be fetched: destroy the input, then say so. Safe to repeat."""
    sealed, _ = await services.jobs.get(job_id)
    await _destroy(services, sealed, inputs=True, outputs=False)
    receipt = Receipt(input_key_destroyed_at=time.time())

    opened = False

    def open_outputs(current: Job) -> Job | None:
        nonlocal opened
        opened = current.state is JobState.SEALED
        if not opened:
            return None
        return current.to(JobState.MASTERED, input=None, references={}, progress=None, receipt=receipt)

    job = await services.change(job_id, open_outputs)
    if opened:
        services.fleet.metrics.job_ended(render_record.outcome(job), clock.now() - job.created_s)
        render_record.write(job, len(sealed.references))
    return job


async def evict(services: Services, needed_bytes: int) -> int:
    """Wipe the oldest finished jobs, never a running one, until there is room for a blob of `needed_bytes`. Returns how
    many."""
    missing = services.spool.missing_bytes(needed_bytes)
    if not missing:  # the usual case, and to look at every job on record for each output takes milliseconds
        return 0
    evicted = 0
    done = [job async for job, _ in services.jobs.scan() if job.state in DONE]
    if sum(map(_room_of, done)) < missing:  # nobody loses a master for a request that must be refused all the same
        return 0
    for job in sorted(done, key=lambda job: job.created_s):
        if missing <= 0:
            break
        missing -= _room_of(job)
        await end(services, job.id, JobState.EXPIRED)
        evicted += 1
    return evicted


def _without_the_course(report: Report | None) -> Report | None:
    """How a song goes from second to second may tell which song it was."""
    return report.model_copy(update={"traces": None}) if report else None


def _room_of(job: Job) -> int:
    return sum(sealed_size(blob.size_bytes) for blob in job.outputs.values())


def _stopped(attempt: Attempt, state: JobState) -> Attempt:
    """The attempt as the record keeps it: one that still ran was cut off by the job's end."""
    if attempt.ended_s is not None:
        return attempt
    return attempt.model_copy(update={"ended_s": clock.now(), "outcome": str(state)})


async def _destroy(services: Services, job: Job, *, inputs: bool, outputs: bool) -> None:
    blobs: list[Any] = []
    if inputs:
        blobs += [blob for blob in (job.input, *job.references.values()) if blob]
    if outputs:
        blobs += job.outputs.values()
    for blob in blobs:
        await services.spool.drop(blob.ref)
