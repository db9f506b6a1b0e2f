"""A store in memory that is built on nothing but compare-and-set of named cells.

The conformance suite runs on it beside the SQLite store: the port must be buildable from get, put-if-revision, delete
and a listing, since a cluster's key-value bucket offers no more. It keeps to the port and is not made for speed.

Two lines over 250, as the SQLite store that it mirrors.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from pydantic import BaseModel

from router.core import clock
from router.store.embedded.notify import LocalEvents
from router.store.embedded.polling import take_when_there
from router.store.port import (
    DEFAULT_LEASE_S,
    MAX_QUEUED_PER_ACCOUNT,
    MAX_RUNNING_PER_ACCOUNT,
    WIPED_TTL_S,
    JobMissing,
    Owner,
    QueueFull,
    RevisionConflict,
    Store,
    Versioned,
)
from router.store.record import Job
from router.store.state import ACTIVE, JobState


class Cell(NamedTuple):
    """A value and its revision, which counts from 1."""

    value: str
    revision: int


class Cells:
    """The only operations that this store has."""

    def __init__(self) -> None:
        self._cells: dict[str, Cell] = {}

    def get(self, key: str) -> Cell | None:
        return self._cells.get(key)

    def put_if(self, key: str, value: str, revision: int) -> bool:
        """Store `value` if the cell is at `revision` (0: it does not exist); whether it did."""
        there = self._cells.get(key)
        if (there.revision if there else 0) != revision:
            return False
        self._cells[key] = Cell(value, revision + 1)
        return True

    def delete(self, key: str) -> None:
        self._cells.pop(key, None)

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self._cells if key.startswith(prefix))


class _Record(BaseModel):
    """The value of a job's cell."""

    document: str
    forget_s: float


class _Entry(BaseModel):
    """The value of a queued job's cell."""

    job_id: str
    turn: int
    lane: str
    account: str
    cost_s: float
    ready_s: float
    leased_until_s: float = 0.0
    token: str = ""
    attempt: int = 0
    owner: Owner = Owner("", "")


@asynccontextmanager
async def open_store(
    *,
    lease_s: float = DEFAULT_LEASE_S,
    max_queued: int = MAX_QUEUED_PER_ACCOUNT,
    max_running: int = MAX_RUNNING_PER_ACCOUNT,
) -> AsyncIterator[Store]:
    """An empty store."""
    cells = Cells()
    yield Store(MemoryJobs(cells), MemoryQueue(cells, lease_s, max_queued, max_running), LocalEvents())


class MemoryJobs:
    """The jobs' records (`port.Jobs`)."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def _read(self, job_id: str) -> tuple[_Record, int]:
        cell = self._cells.get(f"job/{job_id}")
        record = _Record.model_validate_json(cell.value) if cell else None
        if cell is None or record is None or record.forget_s <= clock.now():
            raise JobMissing(job_id)
        return record, cell.revision

    async def create(self, job: Job, ttl_s: float) -> Versioned:
        record = _Record(document=job.model_dump_json(), forget_s=clock.now() + ttl_s)
        there = self._cells.get(f"job/{job.id}")
        is_over = there is not None and _Record.model_validate_json(there.value).forget_s <= clock.now()
        self._cells.put_if(f"job/{job.id}", record.model_dump_json(), there.revision if there and is_over else 0)
        return await self.get(job.id)

    async def get(self, job_id: str) -> Versioned:
        record, revision = self._read(job_id)
        return Versioned(Job.model_validate_json(record.document), revision)

    async def change(self, job: Job, expected_revision: int) -> int:
        record, _ = self._read(job.id)
        record.document = job.model_dump_json()
        if job.state is JobState.WIPED:
            record.forget_s = min(record.forget_s, clock.now() + WIPED_TTL_S)
        if not self._cells.put_if(f"job/{job.id}", record.model_dump_json(), expected_revision):
            raise RevisionConflict(job.id)
        return expected_revision + 1

    async def forget(self, job_id: str) -> None:
        self._cells.delete(f"job/{job_id}")

    async def active(self, account: str) -> int:
        return len([job async for job, _ in self.scan() if job.account == account and job.state in ACTIVE])

    async def of(self, account: str) -> list[str]:
        jobs = [job async for job, _ in self.scan() if job.account == account]
        return [job.id for job in sorted(jobs, key=lambda job: (-job.created_s, job.id))]

    async def refs(self, account: str) -> list[str]:
        jobs = [job async for job, _ in self.scan() if job.account == account and job.state is not JobState.WIPED]
        return [blob.ref for job in jobs for blob in job.blobs]

    async def due(self, at_s: float) -> list[str]:
        return [job.id async for job, _ in self.scan() if job.expires_s <= at_s and job.state is not JobState.WIPED]

    async def scan(self) -> AsyncIterator[Versioned]:
        for key in self._cells.keys("job/"):
            try:
                yield await self.get(key.removeprefix("job/"))
            except JobMissing:
                self._cells.delete(key)


class MemoryLease:
    """A lease of the queue below, known by its random token."""

    def __init__(self, queue: MemoryQueue, entry: _Entry) -> None:
        self._queue, self._token = queue, entry.token
        self.job_id, self.attempt = entry.job_id, entry.attempt

    async def extend(self) -> bool:
        return self._queue.update(self.job_id, self._token, until_s=clock.now() + self._queue.lease_s)

    async def finish(self) -> None:
        self._queue.remove(self.job_id, self._token)

    async def release(self, delay_s: float = 0.0) -> None:
        if self._queue.update(self.job_id, self._token, until_s=0.0, ready_s=clock.now() + delay_s):
            self._queue.refund(self.job_id)


class MemoryQueue:
    """The same order as the SQLite store's queue."""

    def __init__(self, cells: Cells, lease_s: float, max_queued: int, max_running: int) -> None:
        self._cells = cells
        self._max_queued, self._max_running = max_queued, max_running
        self._used_s: defaultdict[str, float] = defaultdict(float)
        self._turn = 0
        self._changed = asyncio.Event()
        self.lease_s = lease_s

    def _entries(self) -> list[tuple[_Entry, int]]:
        found = [self._cells.get(key) for key in self._cells.keys("queue/")]
        entries = [(_Entry.model_validate_json(cell.value), cell.revision) for cell in found if cell]
        return sorted(entries, key=lambda pair: pair[0].turn)

    def _entry(self, job_id: str) -> tuple[_Entry, int] | None:
        cell = self._cells.get(f"queue/{job_id}")
        return (_Entry.model_validate_json(cell.value), cell.revision) if cell else None

    async def enqueue(self, job_id: str, lane: str, account: str, cost_s: float) -> None:
        if self._entry(job_id):
            return
        entries = [entry for entry, _ in self._entries()]
        mine = sum(entry.account == account for entry in entries)
        if mine >= self._max_queued:
            raise QueueFull(30.0)
        if not mine:
            level = min((self._used_s[entry.account] for entry in entries), default=0.0)
            self._used_s[account] = max(self._used_s[account], level)
        self._turn += 1
        entry = _Entry(job_id=job_id, turn=self._turn, lane=lane, account=account, cost_s=cost_s, ready_s=clock.now())
        self._cells.put_if(f"queue/{job_id}", entry.model_dump_json(), 0)
        self._changed.set()

    async def lease(self, lanes: Sequence[str], wait_s: float, owner: Owner) -> MemoryLease | None:
        return await take_when_there(lambda: self._take(lanes, owner), self._changed, wait_s)

    def _take(self, lanes: Sequence[str], owner: Owner) -> MemoryLease | None:
        now = clock.now()
        entries = self._entries()
        running = Counter(entry.account for entry, _ in entries if entry.leased_until_s > now)
        ready = [
            (entry, revision)
            for entry, revision in entries
            if entry.lane in lanes
            and entry.ready_s <= now
            and entry.leased_until_s <= now
            and running[entry.account] < self._max_running
        ]
        for entry, revision in sorted(ready, key=lambda pair: (self._used_s[pair[0].account], pair[0].turn)):
            entry.leased_until_s, entry.token = now + self.lease_s, secrets.token_hex(8)
            entry.attempt, entry.owner = entry.attempt + 1, owner
            if self._cells.put_if(f"queue/{entry.job_id}", entry.model_dump_json(), revision):
                self._used_s[entry.account] += entry.cost_s
                return MemoryLease(self, entry)
        return None

    def update(self, job_id: str, token: str, *, until_s: float, ready_s: float = 0.0) -> bool:
        found = self._entry(job_id)
        if found is None or found[0].token != token or found[0].leased_until_s <= clock.now():
            return False
        entry, revision = found
        entry.leased_until_s, entry.ready_s = until_s, max(entry.ready_s, ready_s)
        self._changed.set()
        return self._cells.put_if(f"queue/{job_id}", entry.model_dump_json(), revision)

    def refund(self, job_id: str) -> None:
        """Give the account back the audio seconds of a lease that came to nothing."""
        if found := self._entry(job_id):
            self._used_s[found[0].account] -= found[0].cost_s

    def remove(self, job_id: str, token: str | None = None) -> None:
        found = self._entry(job_id)
        if found and token in (None, found[0].token):
            self._cells.delete(f"queue/{job_id}")
        here = {entry.account for entry, _ in self._entries()}
        self._used_s = defaultdict(float, {name: used for name, used in self._used_s.items() if name in here})
        self._changed.set()

    async def withdraw(self, job_id: str) -> None:
        self.remove(job_id)

    async def depth(self) -> int:
        return sum(entry.leased_until_s <= clock.now() for entry, _ in self._entries())

    async def ahead_of(self, job_id: str) -> int | None:
        now = clock.now()
        waiting = [entry.job_id for entry, _ in self._entries() if entry.leased_until_s <= now]
        return waiting.index(job_id) if job_id in waiting else None

    async def release(self, owner: Owner) -> None:
        for entry, revision in self._entries():
            if entry.owner.router == owner.router and entry.owner != owner:
                entry.leased_until_s, entry.ready_s, entry.token = 0.0, 0.0, ""
                self._cells.put_if(f"queue/{entry.job_id}", entry.model_dump_json(), revision)
        self._changed.set()
