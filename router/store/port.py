"""What the router asks of its state, whoever keeps it: one machine's SQLite today, a cluster's streams later.

Narrow on purpose: a versioned document per job with compare-and-set, a queue with leases, lossy hints. A store that
can do nothing but that must be enough (`memory.py` is one, and the conformance suite holds both to it).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from router.store.record import Job


class RevisionConflict(Exception):
    """Somebody else changed the job first. Read it again and decide again."""


class JobMissing(Exception):
    """No such job: it never was, or its record's time is over."""


class QueueFull(Exception):
    """The queue takes no more from this account for now."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"retry after {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Versioned(NamedTuple):
    job: Job
    revision: int


class Jobs(Protocol):
    """The truth: one document per job."""

    async def create(self, job: Job, ttl_s: float) -> Versioned:
        """Store a new job; the same id again returns what is there (same id = same job)."""
        ...

    async def get(self, job_id: str) -> Versioned:
        """The job and its revision. Raises Missing."""
        ...

    async def change(self, job: Job, expected_revision: int) -> int:
        """Replace the document if nobody else did; return the new revision. Raises Conflict, Missing.

        A job that is wiped is forgotten after WIPED_TTL_S, however long it was to be kept.
        """
        ...

    async def forget(self, job_id: str) -> None:
        """Remove the record. Nothing happens if it is gone already."""
        ...

    async def active(self, account: str) -> int:
        """How many jobs of this account are still owed a master."""
        ...

    async def refs(self, account: str) -> list[str]:
        """References of all audio that this account's jobs name, but those that are wiped."""
        ...

    async def due(self, at_s: float) -> list[str]:
        """Jobs whose time is over by `at_s` and that are not wiped."""
        ...

    def scan(self) -> AsyncIterator[Versioned]:
        """Every job on record, in no promised order; jobs that change meanwhile may be seen old or new."""
        ...


class Lease(Protocol):
    """The right to work on a queued job for a while. The store keeps its time."""

    job_id: str
    attempt: int
    """How often the job has been leased, this time included."""

    async def extend(self) -> bool:
        """Hold it longer. False: the lease was lost, somebody else may have the job."""
        ...

    async def finish(self) -> None:
        """The job needs no more work: take it off the queue."""
        ...

    async def give_back(self, delay_s: float = 0.0) -> None:
        """Let somebody take it again after `delay_s`; the turn is not counted as the account's."""
        ...


class Queue(Protocol):
    """Who is to be worked on next; each account's turn comes by the audio seconds it has had."""

    async def offer(self, job_id: str, lane: str, account: str, cost_s: float) -> None:
        """Put a job in line (again: no effect). `cost_s` is its length in audio seconds. Raises Full."""
        ...

    async def lease(self, lanes: Sequence[str], wait_s: float) -> Lease | None:
        """The next job of these lanes, or None when none came within `wait_s`."""
        ...

    async def withdraw(self, job_id: str) -> None:
        """Take a job out of the line, whoever holds it."""
        ...

    async def depth(self) -> int:
        """Jobs in line that nobody holds."""
        ...

    async def ahead_of(self, job_id: str) -> int | None:
        """How many waiting jobs are older; None when the job is not waiting. Approximate by nature."""
        ...

    async def release_all(self) -> None:
        """Give every lease back at once: called at start, when no holder can be alive."""
        ...


class Events(Protocol):
    """Lossy hints that a job has changed. Readers always read the record again."""

    is_closing: bool
    """The process is about to end: who waits for a person's sake lets go."""

    def close(self) -> None:
        """Say so, and wake all who wait."""
        ...

    async def tell(self, job_id: str) -> None: ...

    def listen(self, job_id: str) -> AbstractAsyncContextManager[Changes]:
        """Hear of one job's changes while the context is open."""
        ...


class Changes(Protocol):
    async def wait(self, timeout_s: float) -> bool:
        """True when the job may have changed since the last call, False when the time passed without a hint."""
        ...


class Store(NamedTuple):
    """The three ports together, as one implementation gives them."""

    jobs: Jobs
    queue: Queue
    events: Events
    close: Callable[[], None]


DEFAULT_LEASE_S = 20.0
WIPED_TTL_S = 600.0
"""A wiped job's record, which holds its receipt and nothing else of use, is kept this long at most: records are RAM."""
MAX_QUEUED_PER_ACCOUNT = 10
MAX_RUNNING_PER_ACCOUNT = 2


async def change_until_stored(jobs: Jobs, events: Events, job_id: str, step: JobStep, tries: int = 20) -> Versioned:
    """Read, decide, compare-and-set, and again on Conflict; then tell. `step` returns None to leave the job as it is.

    Raises Missing, whatever `step` raises, and Conflict when the job changed under every one of `tries` tries.
    """
    for _ in range(tries):
        job, revision = await jobs.get(job_id)
        changed = step(job)
        if changed is None:
            return Versioned(job, revision)
        try:
            revision = await jobs.change(changed, revision)
        except RevisionConflict:
            continue
        await events.tell(job_id)
        return Versioned(changed, revision)
    raise RevisionConflict(f"the job changed {tries} times under one step")


class JobStep(Protocol):
    def __call__(self, job: Job, /) -> Job | None: ...
