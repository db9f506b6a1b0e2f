"""All that is held of an account, wherever it lies: found, moved to a new pseudonym, erased."""

from __future__ import annotations

from contextlib import suppress

from router.core.errors import Problem
from router.jobs import lifecycle
from router.jobs.services import Services
from router.store.port import JobMissing, Versioned
from router.store.record import Job
from router.store.state import JobState

_ROUNDS = 3
"""A request that was let in before the erasure may still make a job while it runs: look again."""


async def jobs_of(services: Services, account: str) -> list[Versioned]:
    """The account's jobs on record, oldest first."""
    found = [versioned async for versioned in services.jobs.scan() if versioned.job.account == account]
    return sorted(found, key=lambda versioned: versioned.job.created_s)


async def move(services: Services, before: str, after: str) -> None:
    """The person signed in under a newer pepper: everything is kept under the pseudonym `after` from now on."""
    services.accounts.move(before, after)
    if services.door is not None:
        services.door.sessions.move(before, after)
    for job, _ in await jobs_of(services, before):
        with suppress(JobMissing):
            await services.change(job.id, lambda job: job.with_(account=after))


async def erase(services: Services, account: str) -> int:
    """Forget the account: first every way in, then what it has. Returns how many jobs were destroyed."""
    if services.door is not None:
        services.door.sessions.end_all(account)
    services.accounts.erase(account)
    destroyed = 0
    for _ in range(_ROUNDS):
        jobs = await jobs_of(services, account)
        for job, _ in jobs:
            with suppress(JobMissing):
                destroyed += await _destroy(services, job)
        if not jobs:
            break
    services.accounts.erase(account)  # a song that was being looked at counts against the day's share when it is done
    return destroyed


async def _destroy(services: Services, job: Job) -> bool:
    """Keys first, as always; then the record, receipt and all. True when nothing is left."""
    ended = await lifecycle.end(services, job.id, JobState.CANCELLED, Problem("cancelled", "The account was erased."))
    if ended.state is not JobState.WIPED:  # it moved on meanwhile: its record must stay as long as its audio
        return False
    await services.jobs.forget(job.id)
    return True
