"""What a start finds left over, and what time makes due: recovery, expiry, and files nobody owns."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from router.core import clock
from router.core.errors import Problem
from router.core.event_log import log, log_exception
from router.jobs import intake, lifecycle
from router.jobs.services import House
from router.spool.port import Gone
from router.store.port import Missing
from router.store.record import Job
from router.store.state import ACTIVE, CLOSED, State

EVERY_S = 5.0
UNSENT_EVERY_S = 30.0
FORGOTTEN_AFTER_S = 120.0
"""Longer than any probe takes."""


async def recover(house: House) -> int:
    """Bring every job that a dead router left into a state that goes on by itself. Returns how many go on.

    Running jobs are queued again at once, sealed ones lose their input and can be fetched, closed ones are wiped;
    an upload that had arrived in full, though its client never heard so, goes to the probe.
    """
    await house.queue.release_all()
    resumed = 0
    async for job, _ in house.jobs.scan():
        try:
            resumed += await _resume(house, job)
        except Missing:
            continue
        except Exception as error:
            # One record that can't be brought on must not keep the others down.
            log_exception(error)
    await house.spool.reconcile(await _owned(house))
    return resumed


async def _resume(house: House, job: Job) -> bool:
    if job.state is State.SEALED:
        await lifecycle.finish_sealed(house, job.id)
    elif job.state in CLOSED:
        await house.queue.withdraw(job.id)
        await lifecycle.wipe(house, job)
    elif job.state in (State.QUEUED, State.RUNNING):
        await house.change(job.id, _requeued)
        await intake.enqueue(house, job)
    elif job.state is State.RECEIVED and job.input:
        with suppress(Gone):  # `sweep` says that its time is over
            size_bytes, complete = await house.spool.extent(job.input.ref)
            if complete:
                await house.change(job.id, lambda job: intake.spooled(job, size_bytes))
    return job.state in ACTIVE


def _requeued(job: Job) -> Job | None:
    if job.state is not State.RUNNING:
        return None
    *before, last = job.attempts
    cut = last.model_copy(update={"ended_s": clock.now(), "outcome": "interrupted", "detail": "the router restarted"})
    return job.to(State.QUEUED, progress=None, attempts=(*before, cut))


async def probe_interrupted(house: House) -> None:
    """Uploads that were complete but not yet looked at when the last router died."""
    await _admit(house, await _spooled(house))


async def _admit(house: House, job_ids: set[str]) -> None:
    for job_id in job_ids:
        try:
            await intake.admit(house, job_id)
        except (Problem, Missing):
            continue  # the job's record says what was wrong
        except Exception as error:
            # One that can't be looked at must not keep the others waiting; a later round tries it again.
            log_exception(error)


async def _spooled(house: House) -> set[str]:
    return {job.id async for job, _ in house.jobs.scan() if job.state is State.SPOOLED}


async def _owned(house: House) -> set[str]:
    owned: set[str] = set()
    async for job, _ in house.jobs.scan():
        owned |= {blob.ref for blob in job.blobs}
    return owned


async def sweep(house: House) -> int:
    """Close every job whose time is over and drop every blob whose time is over. Returns how many jobs went."""
    due = await house.jobs.due(clock.now())
    for job_id in due:
        try:
            job, _ = await house.jobs.get(job_id)
            problem = None if job.report else Problem("expired", "The job did not end in the time it had.")
            await lifecycle.end(house, job_id, State.EXPIRED, problem)
        except Missing:
            continue
        except Exception as error:
            # One that can't be closed must not keep the others' audio readable; the next round tries again.
            log_exception(error)
    for ref in house.spool.expired():
        await house.spool.drop(ref)
    return len(due)


async def admit_forgotten_for_ever(house: House) -> None:
    """Uploads whose probe broke on something of ours: still waiting after a whole round, nobody works on them."""
    before: set[str] = set()
    while True:
        await asyncio.sleep(FORGOTTEN_AFTER_S)
        try:
            now = await _spooled(house)
            await _admit(house, before & now)
            before = now
        except Exception as error:
            log_exception(error)


async def end_unsent(house: House) -> int:
    """End the jobs that were made a while ago and of which not a byte has come. Returns how many."""
    ended, latest_s = 0, clock.now() - house.settings.unsent_ttl_s
    async for job, _ in house.jobs.scan():
        if job.state is not State.RECEIVED or job.created_s > latest_s or await _has_sent(house, job):
            continue
        minutes = house.settings.unsent_ttl_s / 60
        problem = Problem("expired", f"Nothing was sent for {minutes:.0f} minutes. Make a new job.")
        with suppress(Missing):
            await lifecycle.end(house, job.id, State.EXPIRED, problem)
            ended += 1
    return ended


async def _has_sent(house: House, job: Job) -> bool:
    blobs = [blob for blob in (job.input, *job.references.values()) if blob]
    if any(blob.size_bytes or house.spool.is_taking(blob.ref) for blob in blobs):
        return True
    with suppress(Gone):
        return job.input is not None and (await house.spool.extent(job.input.ref)).size_bytes > 0
    return False


async def end_unsent_for_ever(house: House) -> None:
    while True:
        await asyncio.sleep(UNSENT_EVERY_S)
        try:
            if count := await end_unsent(house):
                log("wiped", reason="expired", count=count)
        except Exception as error:
            log_exception(error)


async def reap_for_ever(house: House) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            if count := await sweep(house):
                log("wiped", reason="expired", count=count)
        except Exception as error:
            # The next round tries again; time is also checked at every read.
            log_exception(error)
