"""The store of one machine: SQLite on RAM-backed storage. A killed router loses nothing, a reboot leaves nothing.

Calls run on the event loop: on tmpfs each takes some tens of microseconds, less than passing it to a thread. WAL with
``synchronous=OFF`` survives the death of the process; it must not survive that of the machine.

Two lines over 250: records and queue share a file, a connection and a schema.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

from pydantic import ValidationError

from router.core import clock, schema_version
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
from router.store.record import THIS_ROUTER, Job
from router.store.state import ACTIVE, JobState

_PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY;"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, revision INTEGER NOT NULL, document TEXT NOT NULL, forget_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue (
  turn INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL UNIQUE, lane TEXT NOT NULL, account TEXT NOT NULL,
  cost_s REAL NOT NULL, ready_s REAL NOT NULL, leased_until_s REAL NOT NULL DEFAULT 0,
  token TEXT NOT NULL DEFAULT '', attempt INTEGER NOT NULL DEFAULT 0,
  router TEXT NOT NULL DEFAULT '', incarnation TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS queue_by_account ON queue (account, leased_until_s);
-- For questions about all jobs at once, without parsing every document; rebuilt from them at each start.
CREATE TEMP TABLE job_index (
  id TEXT PRIMARY KEY, account TEXT NOT NULL, active INTEGER NOT NULL, due_s REAL, refs TEXT NOT NULL,
  created_s REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX temp.job_index_by_account ON job_index (account, active);
CREATE INDEX temp.job_index_by_time ON job_index (due_s);
CREATE TABLE IF NOT EXISTS turns (account TEXT PRIMARY KEY, used_s REAL NOT NULL) WITHOUT ROWID;
"""
_MIGRATIONS: schema_version.Migrations = (
    (
        f"ALTER TABLE queue ADD COLUMN router TEXT NOT NULL DEFAULT '{THIS_ROUTER}'",
        "ALTER TABLE queue ADD COLUMN incarnation TEXT NOT NULL DEFAULT ''",
    ),
    (
        "UPDATE jobs SET document = json_set(json_remove(document, '$.settings'), '$.kind', 'master', '$.options',"
        " json_extract(document, '$.settings')) WHERE json_extract(document, '$.options') IS NULL",
        "UPDATE queue SET lane = 'master/' || lane WHERE instr(lane, '/') = 0",
    ),
)
"""A router may be upgraded while jobs wait: their records are in RAM, and stay."""


@asynccontextmanager
async def open_store(
    path: Path,
    *,
    lease_s: float = DEFAULT_LEASE_S,
    max_queued: int = MAX_QUEUED_PER_ACCOUNT,
    max_running: int = MAX_RUNNING_PER_ACCOUNT,
) -> AsyncIterator[Store]:
    """The store in `path` (a file on RAM-backed storage, mode 0600), made where there is none, while it is open."""
    path.touch(mode=0o600, exist_ok=True)  # noqa: ASYNC240 — in RAM, as all that follows
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(_PRAGMAS)
        schema_version.bring_up_to_date(connection, _SCHEMA, _MIGRATIONS, "job store")
        queue = LocalQueue(connection, lease_s, max_queued, max_running)
        yield Store(LocalJobs(connection), queue, LocalEvents())


class LocalJobs:
    """The jobs' records (`port.Jobs`)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        for (document,) in self._db.execute("SELECT document FROM jobs").fetchall():
            with suppress(ValidationError):
                self._index(Job.model_validate_json(document))

    async def create(self, job: Job, ttl_s: float) -> Versioned:
        now = clock.now()
        self._db.execute("DELETE FROM jobs WHERE id = ? AND forget_s <= ?", (job.id, now))
        row = (job.id, 1, job.model_dump_json(), now + ttl_s)
        if self._db.execute("INSERT INTO jobs VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", row).rowcount:
            self._index(job)
        return await self.get(job.id)

    async def get(self, job_id: str) -> Versioned:
        query = "SELECT document, revision FROM jobs WHERE id = ? AND forget_s > ?"
        row = self._db.execute(query, (job_id, clock.now())).fetchone()
        if row is None:
            raise JobMissing(job_id)
        try:
            return Versioned(Job.model_validate_json(row[0]), row[1])
        except ValidationError:
            # Written by another version of the router, or damaged: it can't go on, and its audio is orphaned.
            raise JobMissing(job_id) from None

    async def change(self, job: Job, expected_revision: int) -> int:
        now = clock.now()
        at_most_s = now + WIPED_TTL_S if job.state is JobState.WIPED else math.inf
        changed = self._db.execute(
            "UPDATE jobs SET document = ?, revision = revision + 1, forget_s = min(forget_s, ?)"
            " WHERE id = ? AND revision = ? AND forget_s > ?",
            (job.model_dump_json(), at_most_s, job.id, expected_revision, now),
        )
        if changed.rowcount == 0:
            await self.get(job.id)
            raise RevisionConflict(job.id)
        self._index(job)
        return expected_revision + 1

    async def forget(self, job_id: str) -> None:
        self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        self._db.execute("DELETE FROM job_index WHERE id = ?", (job_id,))
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the write-ahead log must not keep what was removed

    async def active(self, account: str) -> int:
        query = "SELECT count(*) FROM job_index WHERE account = ? AND active"
        return int(self._db.execute(query, (account,)).fetchone()[0])

    async def of(self, account: str) -> list[str]:
        self._drop_forgotten()
        query = "SELECT id FROM job_index WHERE account = ? ORDER BY created_s DESC, id"
        return [job_id for (job_id,) in self._db.execute(query, (account,))]

    async def refs(self, account: str) -> list[str]:
        query = "SELECT refs FROM job_index WHERE account = ? AND refs <> ''"
        return [ref for (refs,) in self._db.execute(query, (account,)) for ref in refs.split()]

    async def due(self, at_s: float) -> list[str]:
        self._drop_forgotten()
        return [job_id for (job_id,) in self._db.execute("SELECT id FROM job_index WHERE due_s <= ?", (at_s,))]

    def _index(self, job: Job) -> None:
        due_s, blobs = (None, []) if job.state is JobState.WIPED else (job.expires_s, job.blobs)
        row = (job.id, job.account, job.state in ACTIVE, due_s, " ".join(blob.ref for blob in blobs), job.created_s)
        self._db.execute("INSERT OR REPLACE INTO job_index VALUES (?, ?, ?, ?, ?, ?)", row)

    def _drop_forgotten(self) -> None:
        if self._db.execute("DELETE FROM jobs WHERE forget_s <= ?", (clock.now(),)).rowcount:
            self._db.execute("DELETE FROM job_index WHERE id NOT IN (SELECT id FROM jobs)")

    async def scan(self) -> AsyncIterator[Versioned]:
        self._drop_forgotten()
        for (job_id,) in self._db.execute("SELECT id FROM jobs").fetchall():
            try:
                yield await self.get(job_id)
            except JobMissing:
                continue


class LocalLease:
    """A lease of the queue below, known by its random token."""

    def __init__(self, queue: LocalQueue, job_id: str, attempt: int, token: str) -> None:
        self._queue, self._token = queue, token
        self.job_id, self.attempt = job_id, attempt

    async def extend(self) -> bool:
        return self._queue.update_lease(self.job_id, self._token, until_s=clock.now() + self._queue.lease_s)

    async def finish(self) -> None:
        self._queue.remove(self.job_id, self._token)

    async def release(self, delay_s: float = 0.0) -> None:
        if self._queue.update_lease(self.job_id, self._token, until_s=0.0, ready_s=clock.now() + delay_s):
            self._queue.refund(self.job_id)


class LocalQueue:
    """The account with the fewest audio seconds first, then first come; at most `max_running` leases an account."""

    def __init__(self, connection: sqlite3.Connection, lease_s: float, max_queued: int, max_running: int) -> None:
        self._db = connection
        self._max_queued, self._max_running = max_queued, max_running
        self._changed = asyncio.Event()
        self.lease_s = lease_s

    async def enqueue(self, job_id: str, lane: str, account: str, cost_s: float) -> None:
        if self._db.execute("SELECT 1 FROM queue WHERE job_id = ?", (job_id,)).fetchone():
            return
        (waiting,) = self._db.execute("SELECT count(*) FROM queue WHERE account = ?", (account,)).fetchone()
        if waiting >= self._max_queued:
            raise QueueFull(30.0)
        if not waiting:
            # A new account starts level with the least served one in the queue, never ahead of it.
            self._db.execute(
                "INSERT INTO turns SELECT ?, coalesce(min(used_s), 0) FROM turns WHERE true ON CONFLICT DO UPDATE"
                " SET used_s = max(used_s, excluded.used_s)",
                (account,),
            )
        self._db.execute(
            "INSERT INTO queue (job_id, lane, account, cost_s, ready_s) VALUES (?, ?, ?, ?, ?)",
            (job_id, lane, account, cost_s, clock.now()),
        )
        self._changed.set()

    async def lease(self, lanes: Sequence[str], wait_s: float, owner: Owner) -> LocalLease | None:
        return await take_when_there(lambda: self._take(lanes, owner), self._changed, wait_s)

    def _take(self, lanes: Sequence[str], owner: Owner) -> LocalLease | None:
        now, token = clock.now(), secrets.token_hex(8)
        marks = ",".join("?" * len(lanes))
        row = self._db.execute(
            f"SELECT q.job_id, q.account, q.cost_s, q.attempt FROM queue q JOIN turns t USING (account)"  # noqa: S608 — only question marks are formatted in
            f" WHERE q.lane IN ({marks}) AND q.ready_s <= ? AND q.leased_until_s <= ? AND (SELECT count(*) FROM queue h"
            f" WHERE h.account = q.account AND h.leased_until_s > ?) < ? ORDER BY t.used_s, q.turn LIMIT 1",
            (*lanes, now, now, now, self._max_running),
        ).fetchone()
        if row is None:
            return None
        job_id, account, cost_s, attempt = row
        self._db.execute(
            "UPDATE queue SET leased_until_s = ?, token = ?, attempt = attempt + 1, router = ?, incarnation = ?"
            " WHERE job_id = ?",
            (now + self.lease_s, token, *owner, job_id),
        )
        self._db.execute("UPDATE turns SET used_s = used_s + ? WHERE account = ?", (cost_s, account))
        return LocalLease(self, job_id, attempt + 1, token)

    def update_lease(self, job_id: str, token: str, *, until_s: float, ready_s: float = 0.0) -> bool:
        changed = self._db.execute(
            "UPDATE queue SET leased_until_s = ?, ready_s = max(ready_s, ?)"
            " WHERE job_id = ? AND token = ? AND leased_until_s > ?",
            (until_s, ready_s, job_id, token, clock.now()),
        )
        self._changed.set()
        return changed.rowcount == 1

    def refund(self, job_id: str) -> None:
        """Give the account back the audio seconds of a lease that came to nothing."""
        self._db.execute(
            "UPDATE turns SET used_s = used_s - q.cost_s FROM queue q WHERE q.job_id = ? AND turns.account = q.account",
            (job_id,),
        )

    def remove(self, job_id: str, token: str | None = None) -> None:
        self._db.execute("DELETE FROM queue WHERE job_id = ? AND coalesce(token = ?, true)", (job_id, token))
        self._db.execute("DELETE FROM turns WHERE account NOT IN (SELECT account FROM queue)")
        self._changed.set()

    async def withdraw(self, job_id: str) -> None:
        self.remove(job_id)

    async def depth(self) -> int:
        query = "SELECT count(*) FROM queue WHERE leased_until_s <= ?"
        return int(self._db.execute(query, (clock.now(),)).fetchone()[0])

    async def ahead_of(self, job_id: str) -> int | None:
        now = clock.now()
        query = "SELECT turn FROM queue WHERE job_id = ? AND leased_until_s <= ?"
        row = self._db.execute(query, (job_id, now)).fetchone()
        if row is None:
            return None
        query = "SELECT count(*) FROM queue WHERE leased_until_s <= ? AND turn < ?"
        return int(self._db.execute(query, (now, row[0])).fetchone()[0])

    async def release(self, owner: Owner) -> None:
        self._db.execute(
            "UPDATE queue SET leased_until_s = 0, ready_s = 0, token = '' WHERE router = ? AND incarnation <> ?", owner
        )
        self._changed.set()
