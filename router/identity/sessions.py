"""Browser sessions in a SQLite file on RAM-backed storage: a reboot signs everybody out.

A session is 256 random bits in the person's cookie and their SHA-256 here, with a pseudonym and two times. No address
and no browser is kept, nothing that tells one device from another but when it signed in.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from router.core.clock import Clock
from router.identity.port import Session

IDLE_S = 12 * 3600.0
"""Seconds without use after which a session has ended."""
LONGEST_S = 7 * 24 * 3600.0
"""Seconds after which a session ends however it is used."""
MOST_PER_ACCOUNT = 20
"""Sessions of an account at once; a new one beyond that ends the oldest."""
NOTED_EVERY_S = 60.0
"""Seconds between two notes of a session's use, which its owner sees: a note of every request would tell more."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
  hash BLOB PRIMARY KEY, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, began_s REAL NOT NULL, seen_s REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_by_account ON sessions (account, began_s);
CREATE TABLE IF NOT EXISTS spent (state BLOB PRIMARY KEY, until_s REAL NOT NULL) STRICT, WITHOUT ROWID;
"""


@asynccontextmanager
async def open_sessions(path: Path, clock: Clock) -> AsyncIterator[LocalSessions]:
    """The sessions in the file `path`, while it is open."""
    with closing(LocalSessions(path, clock)) as sessions:
        yield sessions


class LocalSessions:
    """The sessions of one machine (`port.Sessions`), in the file `path`."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        path.touch(mode=0o600, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY;"
            + SCHEMA
        )

    def close(self) -> None:
        self._db.close()

    async def begin(self, account: str, replaces: str | None = None) -> str:
        self._delete_ended()
        if replaces is not None:
            self._db.execute("DELETE FROM sessions WHERE hash = ?", (_secret_hash(replaces),))
        secret, now = secrets.token_urlsafe(32), self._clock.now()
        row = (_secret_hash(secret), secrets.token_hex(8), account, now, now)
        self._db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", row)
        self._db.execute(
            "DELETE FROM sessions WHERE account = ? AND hash NOT IN"
            " (SELECT hash FROM sessions WHERE account = ? ORDER BY began_s DESC, id LIMIT ?)",
            (account, account, MOST_PER_ACCOUNT),
        )
        return secret

    async def find(self, secret: str) -> Session | None:
        query = "SELECT id, account, began_s, seen_s FROM sessions WHERE hash = ?"
        row = self._db.execute(query, (_secret_hash(secret),)).fetchone()
        if row is None or _has_ended(found := Session(*row), now := self._clock.now()):
            return None
        if now - found.seen_s >= NOTED_EVERY_S:
            self._db.execute("UPDATE sessions SET seen_s = ? WHERE id = ?", (now, found.id))
        return found

    async def of(self, account: str) -> list[Session]:
        self._delete_ended()
        query = "SELECT id, account, began_s, seen_s FROM sessions WHERE account = ? ORDER BY began_s, id"
        return [Session(*row) for row in self._db.execute(query, (account,))]

    async def end(self, account: str, session_id: str) -> bool:
        statement = "DELETE FROM sessions WHERE account = ? AND id = ?"
        return self._execute_erasing(statement, (account, session_id)) == 1

    async def end_all(self, account: str) -> int:
        return self._execute_erasing("DELETE FROM sessions WHERE account = ?", (account,))

    async def end_retired(self, versions: Iterable[int]) -> None:
        kept = {f"v{version}" for version in versions}
        accounts = {account for (account,) in self._db.execute("SELECT DISTINCT account FROM sessions")}
        for account in accounts:
            if account.partition("_")[0] not in kept:
                await self.end_all(account)

    async def rename_account(self, before: str, after: str) -> None:
        self._execute_erasing("UPDATE sessions SET account = ? WHERE account = ?", (after, before))

    async def use_state(self, state: str, lifetime_s: float) -> bool:
        now = self._clock.now()
        self._db.execute("DELETE FROM spent WHERE until_s <= ?", (now,))
        row = (_secret_hash(state), now + lifetime_s)
        return self._db.execute("INSERT INTO spent VALUES (?, ?) ON CONFLICT DO NOTHING", row).rowcount == 1

    def _delete_ended(self) -> None:
        now = self._clock.now()
        self._db.execute("DELETE FROM sessions WHERE seen_s <= ? OR began_s <= ?", (now - IDLE_S, now - LONGEST_S))

    def _execute_erasing(self, statement: str, values: tuple[str, str] | tuple[str]) -> int:
        """Run a DELETE or UPDATE and empty the write-ahead log: no file keeps the old rows. How many there were."""
        count = self._db.execute(statement, values).rowcount
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count


def _has_ended(session: Session, now: float) -> bool:
    return now - session.seen_s >= IDLE_S or now - session.began_s >= LONGEST_S


def _secret_hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
