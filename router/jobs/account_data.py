"""All that is held of an account, wherever it lies: found, moved to a new pseudonym, erased."""

from __future__ import annotations

from contextlib import suppress

from router.core.errors import Problem
from router.jobs import lifecycle
from router.jobs.services import House
from router.store.port import Missing, Versioned
from router.store.record import Job
from router.store.state import State

_ROUNDS = 3
"""A request that was let in before the erasure may still make a job while it runs: look again."""


async def jobs_of(house: House, account: str) -> list[Versioned]:
    """The account's jobs on record, oldest first."""
    found = [versioned async for versioned in house.jobs.scan() if versioned.job.account == account]
    return sorted(found, key=lambda versioned: versioned.job.created_s)


async def move(house: House, before: str, after: str) -> None:
    """The person signed in under a newer pepper: everything is kept under the pseudonym `after` from now on."""
    house.accounts.move(before, after)
    if house.door is not None:
        house.door.sessions.move(before, after)
    for job, _ in await jobs_of(house, before):
        with suppress(Missing):
            await house.change(job.id, lambda job: job.with_(account=after))


async def erase(house: House, account: str) -> int:
    """Forget the account: first every way in, then what it has. Returns how many jobs were destroyed."""
    if house.door is not None:
        house.door.sessions.end_all(account)
    house.accounts.erase(account)
    destroyed = 0
    for _ in range(_ROUNDS):
        jobs = await jobs_of(house, account)
        for job, _ in jobs:
            with suppress(Missing):
                destroyed += await _destroy(house, job)
        if not jobs:
            break
    house.accounts.erase(account)  # a song that was being looked at counts against the day's share when it is done
    return destroyed


async def _destroy(house: House, job: Job) -> bool:
    """Keys first, as always; then the record, receipt and all. True when nothing is left."""
    ended = await lifecycle.end(house, job.id, State.CANCELLED, Problem("cancelled", "The account was erased."))
    if ended.state is not State.WIPED:  # it moved on meanwhile: its record must stay as long as its audio
        return False
    await house.jobs.forget(job.id)
    return True
