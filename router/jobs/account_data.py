"""An account's data across all stores (accounts, sessions, jobs): listed, moved to a new pseudonym, erased."""

from __future__ import annotations

from contextlib import suppress

from router.core.errors import Problem
from router.jobs import lifecycle
from router.jobs.services import Services
from router.store.port import JobMissing, Jobs, Versioned
from router.store.record import Job
from router.store.state import JobState

_ERASE_ROUNDS = 3
"""Searches for jobs at most: a request that was let in before the erasure may still make a job while it runs."""


async def jobs_of(jobs: Jobs, account: str) -> list[Versioned]:
    """The account's jobs on record, oldest first."""
    found = []
    for job_id in reversed(await jobs.of(account)):
        with suppress(JobMissing):
            found.append(await jobs.get(job_id))
    return found


async def move_account(services: Services, before: str, after: str) -> None:
    """Keep everything under the pseudonym `after` from now on: the person signed in under a newer pepper."""
    await services.accounts.rename_account(before, after)
    if services.sign_in is not None:
        await services.sign_in.sessions.rename_account(before, after)
    for job, _ in await jobs_of(services.jobs, before):
        with suppress(JobMissing):
            await services.change(job.id, lambda job: job.with_(account=after))


async def erase_account(services: Services, account: str) -> int:
    """Erase the account: first its sessions and tokens, then its jobs. Returns how many jobs were destroyed."""
    if services.sign_in is not None:
        await services.sign_in.sessions.end_all(account)
    await services.accounts.erase(account)
    destroyed = 0
    for _ in range(_ERASE_ROUNDS):
        jobs = await jobs_of(services.jobs, account)
        for job, _ in jobs:
            with suppress(JobMissing):
                destroyed += await _end_and_forget(services, job)
        if not jobs:
            break
    await services.accounts.erase(
        account
    )  # a song that was being probed counts against the day's quota when that is done
    return destroyed


async def _end_and_forget(services: Services, job: Job) -> bool:
    """Wipe the job (keys first), then forget its record with the receipt. True when nothing is left."""
    ended = await lifecycle.end(services, job.id, JobState.CANCELLED, Problem("cancelled", "The account was erased."))
    if ended.state is not JobState.WIPED:  # it moved on meanwhile: its record must stay as long as its audio
        return False
    await services.jobs.forget(job.id)
    return True
