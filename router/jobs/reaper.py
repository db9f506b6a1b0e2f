"""What time makes due while the router runs: expired jobs and blobs, jobs without an upload, probes to be repeated.

Each kind is one round, called again and again by a loop that no error ends; time is checked at every read too, so that
a late round shows nobody what has expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from router.core.errors import Problem
from router.core.event_log import log, log_exception
from router.jobs import lifecycle, recovery
from router.jobs.services import Services
from router.spool.port import BlobGone, Blobs
from router.store.port import JobMissing
from router.store.record import Job
from router.store.state import JobState

EVERY_S = 5.0
"""Seconds between two rounds of `expire`: how late an expired master's key may be destroyed."""
UNSENT_EVERY_S = 30.0
"""Seconds between two rounds of `end_unsent`, whose limit is minutes; each asks the spool about every open upload."""
STUCK_AFTER_S = 120.0
"""Seconds after which a job that is still unprobed is probed again: longer than any probe takes."""


async def expire_forever(services: Services) -> None:
    """Close and destroy what has expired, every EVERY_S."""
    await _repeat(EVERY_S, lambda: _logged(expire(services)))


async def end_unsent_forever(services: Services) -> None:
    """End jobs without an upload, every UNSENT_EVERY_S."""
    await _repeat(UNSENT_EVERY_S, lambda: _logged(end_unsent(services)))


async def probe_stuck_forever(services: Services) -> None:
    """Probe uploads again whose probe broke on a fault of ours: unprobed for a whole round, so nobody works on them."""
    before: set[str] = set()

    async def probe_stuck() -> None:
        nonlocal before
        now = await recovery.spooled_ids(services)
        await recovery.probe_each(services, before & now)
        before = now

    await _repeat(STUCK_AFTER_S, probe_stuck)


async def expire(services: Services) -> int:
    """Close every job and drop every blob whose time is over. Returns how many jobs were due."""
    due = await services.jobs.due(services.clock.now())
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


async def end_unsent(services: Services) -> int:
    """End the jobs that are older than the setting `unsent_ttl_s` and got no byte of audio. Returns how many."""
    ended, latest_s = 0, services.clock.now() - services.settings.unsent_ttl_s
    async for job, _ in services.jobs.scan():
        is_open = job.state is JobState.RECEIVED and services.is_ours(job)
        if not is_open or job.created_s > latest_s or await _has_sent(services.spool, job):
            continue
        minutes = services.settings.unsent_ttl_s / 60
        problem = Problem("expired", f"Nothing was sent for {minutes:.0f} minutes. Make a new job.")
        with suppress(JobMissing):
            await lifecycle.end(services, job.id, JobState.EXPIRED, problem)
            ended += 1
    return ended


async def _has_sent(spool: Blobs, job: Job) -> bool:
    """Whether a byte of the song or of a reference has arrived, or a request is sending one now."""
    blobs = [blob for blob in (job.input, *job.references.values()) if blob]
    if any(blob.size_bytes or spool.is_receiving(blob.ref) for blob in blobs):
        return True
    with suppress(BlobGone):
        return job.input is not None and (await spool.extent(job.input.ref)).size_bytes > 0
    return False


async def _logged(round_: Awaitable[int]) -> None:
    if count := await round_:
        log("wiped", reason="expired", count=count)


async def _repeat(every_s: float, round_: Callable[[], Awaitable[None]]) -> None:
    """Run the round every `every_s` seconds until cancelled. An error is logged, and the next round tries again."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await round_()
        except Exception as error:
            log_exception(error)
