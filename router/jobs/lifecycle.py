"""The end of a job: its encryption keys are destroyed first, then the bytes, then the record says so, with a receipt.

The order is a promise (P05). The input's key is gone before anybody can see that a job is done, failed or cancelled:
the record's step to a closed state is shown as `ending` until the wipe is noted. Whenever the process is killed, the
next start repeats the destruction, which changes nothing the second time.
"""

from __future__ import annotations

import time
from typing import Any

from mastering.contract.kinds import job_kinds
from router.core.errors import Problem
from router.jobs import render_record
from router.jobs.services import Services
from router.spool.port import Blobs
from router.store.record import Attempt, Job, Receipt
from router.store.state import ACTIVE, CLOSED, STEPS, JobState


async def end(
    services: Services, job_id: str, state: JobState, problem: Problem | None = None, *, generation: int | None = None
) -> Job:
    """Close the job as failed, cancelled or expired (`state`) and wipe it; the job as it is afterwards.

    A job stays as it is when it is closed already, when it has a master and therefore can't fail any more, or when
    another attempt than `generation` has it. A sealed job is finished first: its input goes, and only then can it be
    closed. Raises JobMissing.
    """
    was_active = False

    def close(job: Job) -> Job | None:
        nonlocal was_active
        was_active = False
        if state not in STEPS[job.state] or generation not in (None, job.generation):
            return None
        was_active = job.state in ACTIVE
        attempts = tuple(_interrupted(attempt, state, services.clock.now()) for attempt in job.attempts)
        return job.to(state, error=problem.body() if problem else job.error, attempts=attempts)

    job = await services.change(job_id, close)
    if job.state is JobState.SEALED:
        await finish_sealed(services, job_id)
        job = await services.change(job_id, close)
    if job.state not in CLOSED:
        return job
    if was_active:
        services.fleet.metrics.job_ended(
            job.kind, render_record.outcome_code(job), services.clock.now() - job.created_s
        )
        render_record.write(job, len(job.references))
    await services.queue.withdraw(job_id)
    return await wipe(services, job)


async def wipe(services: Services, job: Job) -> Job:
    """Destroy all audio of a closed job and note the receipt. Safe to repeat."""
    await _destroy(services.spool, job, inputs=True, outputs=True)
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
            report=_lasting_report(current),
            receipt=receipt,
        )

    return await services.change(job.id, note)


async def finish_sealed(services: Services, job_id: str) -> Job:
    """Destroy the input of a job whose outputs are complete, then mark it mastered. Safe to repeat.

    Raises JobMissing.
    """
    sealed, _ = await services.jobs.get(job_id)
    await _destroy(services.spool, sealed, inputs=True, outputs=False)
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
        services.fleet.metrics.job_ended(
            job.kind, render_record.outcome_code(job), services.clock.now() - job.created_s
        )
        render_record.write(job, len(sealed.references))
    return job


def _note_end(services: Services, job: Job, references: int) -> None:
    """Count the job and write its render record, once, at its step to the end."""
    taken_s = services.clock.now() - job.created_s
    services.fleet.metrics.job_ended(job.kind, render_record.outcome_code(job), taken_s)
    render_record.write(job, references)


def _lasting_report(job: Job) -> dict[str, Any] | None:
    """What its kind lets be kept of the report when the audio is gone; nothing where the kind is not known any more."""
    kind = job_kinds().get(job.kind)
    return kind.lasting_report(job.report) if kind and job.report else None


def _interrupted(attempt: Attempt, state: JobState, now_s: float) -> Attempt:
    """The attempt with its end: one that still ran is closed with the job's own end as its outcome."""
    if attempt.ended_s is not None:
        return attempt
    return attempt.model_copy(update={"ended_s": now_s, "outcome": str(state)})


async def _destroy(spool: Blobs, job: Job, *, inputs: bool, outputs: bool) -> None:
    blobs: list[Any] = []
    if inputs:
        blobs += [blob for blob in (job.input, *job.references.values()) if blob]
    if outputs:
        blobs += job.outputs.values()
    for blob in blobs:
        await spool.drop(blob.ref)
