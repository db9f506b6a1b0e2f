"""The store's port: jobs' records, the queue and change notifications, for any implementation.

Narrow on purpose: a versioned document per job with compare-and-set, a queue with leases, lossy notifications. A store
that can do nothing but that must be enough: `testing.memory` is one, and the conformance suite runs on it too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from router.store.record import Job, new_id


class RevisionConflict(Exception):
    """Another writer changed the job first: read it again and decide again."""


class JobMissing(Exception):
    """There is no record of the job: it never existed, or its record has expired."""


class QueueFull(Exception):
    """The account has as many jobs in the queue as it may."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"retry after {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Versioned(NamedTuple):
    """A job's record and its revision, which each change raises."""

    job: Job
    revision: int


class Jobs(Protocol):
    """The jobs' records: one document each, changed by compare-and-set."""

    async def create(self, job: Job, ttl_s: float) -> Versioned:
        """Store a new job for `ttl_s` seconds; for an id that exists, return what is stored and change nothing."""
        ...

    async def get(self, job_id: str) -> Versioned:
        """The job and its revision. Raises JobMissing."""
        ...

    async def change(self, job: Job, expected_revision: int) -> int:
        """Replace the document if its revision is as expected; the new revision. Raises RevisionConflict, JobMissing.

        The record of a wiped job is removed after WIPED_TTL_S, however long it was to be kept.
        """
        ...

    async def forget(self, job_id: str) -> None:
        """Remove the record, if there is one."""
        ...

    async def active(self, account: str) -> int:
        """How many jobs of this account are in a state of `state.ACTIVE`."""
        ...

    async def of(self, account: str) -> list[str]:
        """Ids of this account's jobs on record, the newest first."""
        ...

    async def refs(self, account: str) -> list[str]:
        """Spool references of all audio of this account's jobs that are not wiped."""
        ...

    async def due(self, at_s: float) -> list[str]:
        """Ids of the jobs that have expired by `at_s` and are not wiped."""
        ...

    def scan(self) -> AsyncIterator[Versioned]:
        """Every job on record, in any order; one that changes meanwhile may be seen old or new."""
        ...


class Owner(NamedTuple):
    """The holder of a lease: a router, and which of its starts it is."""

    router: str
    """The router's name, the same after every restart."""
    incarnation: str
    """An id of the process: another one after every restart."""


class Lease(Protocol):
    """The right to work on a queued job until it runs out. The store keeps the time."""

    job_id: str
    attempt: int
    """How often the job has been leased, this time included."""

    async def extend(self) -> bool:
        """Renew it for its full length. False: it was lost, and another worker may have the job."""
        ...

    async def finish(self) -> None:
        """Remove the job from the queue: it needs no more work."""
        ...

    async def release(self, delay_s: float = 0.0) -> None:
        """Let the job be leased again after `delay_s`; what it cost the account is refunded."""
        ...


class Queue(Protocol):
    """The queue of jobs: the account that has had the fewest audio seconds comes first (fair share)."""

    async def enqueue(self, job_id: str, lane: str, account: str, cost_s: float) -> None:
        """Add a job; one that is in the queue stays as it is. `cost_s` is its length of audio. Raises QueueFull."""
        ...

    async def lease(self, lanes: Sequence[str], wait_s: float, owner: Owner) -> Lease | None:
        """Lease the next job of these lanes to `owner`; None when there was none within `wait_s`."""
        ...

    async def withdraw(self, job_id: str) -> None:
        """Remove a job from the queue, leased or not."""
        ...

    async def depth(self) -> int:
        """How many jobs are in the queue and not leased."""
        ...

    async def ahead_of(self, job_id: str) -> int | None:
        """How many waiting jobs were queued before it, whatever their turn; None for a job that does not wait."""
        ...

    async def release(self, owner: Owner) -> None:
        """Release the leases that earlier processes of the router `owner.router` held. It calls this when it starts:
        by then those processes are dead."""
        ...


class JobEvents(Protocol):
    """Notifications that a job has changed. They may be lost, and carry nothing: the reader reads the record again."""

    is_closing: bool
    """The process is about to end: connections that only wait for a change should end."""

    def close(self) -> None:
        """Set `is_closing` and wake all subscribers."""
        ...

    async def publish(self, job_id: str) -> None:
        """Notify the job's subscribers."""
        ...

    def subscribe(self, job_id: str) -> AbstractAsyncContextManager[JobSubscription]:
        """Subscribe to one job's changes while the context is open."""
        ...


class JobSubscription(Protocol):
    """One reader's subscription to one job."""

    async def wait(self, timeout_s: float) -> bool:
        """True when the job may have changed since the last call, False when none came in `timeout_s`."""
        ...


class Store(NamedTuple):
    """The three ports together. An implementation's `open_store` is an asynchronous context: its end closes them."""

    jobs: Jobs
    queue: Queue
    events: JobEvents


class JobStep(Protocol):
    """A pure function from a job to the changed job, or None for no change."""

    def __call__(self, job: Job, /) -> Job | None: ...


DEFAULT_LEASE_S = 20.0
"""A dead worker's job waits so long for another; a holder extends the lease four times as often."""
WIPED_TTL_S = 600.0
"""A wiped job's record, which holds its receipt and nothing else of use, is kept this long at most: records are RAM."""
MAX_QUEUED_PER_ACCOUNT = 10
MAX_RUNNING_PER_ACCOUNT = 2
"""So that one account, however many jobs it has, leaves backends to the others."""


async def change_until_stored(jobs: Jobs, events: JobEvents, job_id: str, step: JobStep, tries: int = 20) -> Versioned:
    """Change a job by `step` with compare-and-set, again where another writer came first, and notify subscribers.

    `step` gets the job and returns the changed one, or None to leave it. Raises JobMissing, whatever `step` raises, and
    RevisionConflict when another writer came first in each of `tries`.
    """
    for _ in range(tries):
        job, revision = await jobs.get(job_id)
        changed = step(job)
        if changed is None:
            return Versioned(job, revision)
        changed = changed.with_(version=job.version + 1, writer=new_id())
        try:
            revision = await jobs.change(changed, revision)
        except RevisionConflict:
            continue
        await events.publish(job_id)
        return Versioned(changed, revision)
    raise RevisionConflict(f"the job changed {tries} times under one step")
