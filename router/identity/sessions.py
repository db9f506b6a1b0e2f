"""Browser sessions in a SQLite file on RAM-backed storage: a reboot signs everybody out.

A session is 256 random bits in the person's cookie and their SHA-256 here, with a pseudonym and two times. No address
and no browser is kept, nothing that tells one device from another but when it signed in.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from router.core import clock

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


class Session(NamedTuple):
    """A session as its owner may see it; times in seconds on `router.core.clock`."""

    id: str
    account: str
    began_s: float
    seen_s: float


class Sessions:
    """The sessions in the file `path`."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY;"
            + SCHEMA
        )

    def close(self) -> None:
        self._db.close()

    def begin(self, account: str, replaces: str | None = None) -> str:
        """A new session; its secret, for the cookie.

        The session that the browser had before (`replaces`: its secret) ends, so that a secret which somebody planted
        before the login is worth nothing after it (session fixation).
        """
        self._delete_ended()
        if replaces is not None:
            self._db.execute("DELETE FROM sessions WHERE hash = ?", (_secret_hash(replaces),))
        secret, now = secrets.token_urlsafe(32), clock.now()
        row = (_secret_hash(secret), secrets.token_hex(8), account, now, now)
        self._db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", row)
        self._db.execute(
            "DELETE FROM sessions WHERE account = ? AND hash NOT IN"
            " (SELECT hash FROM sessions WHERE account = ? ORDER BY began_s DESC, id LIMIT ?)",
            (account, account, MOST_PER_ACCOUNT),
        )
        return secret

    def find(self, secret: str) -> Session | None:
        """The session with this secret, if it has not ended; notes its use."""
        query = "SELECT id, account, began_s, seen_s FROM sessions WHERE hash = ?"
        row = self._db.execute(query, (_secret_hash(secret),)).fetchone()
        if row is None or _has_ended(found := Session(*row), now := clock.now()):
            return None
        if now - found.seen_s >= NOTED_EVERY_S:
            self._db.execute("UPDATE sessions SET seen_s = ? WHERE id = ?", (now, found.id))
        return found

    def of(self, account: str) -> list[Session]:
        """The account's sessions, oldest first."""
        self._delete_ended()
        query = "SELECT id, account, began_s, seen_s FROM sessions WHERE account = ? ORDER BY began_s, id"
        return [Session(*row) for row in self._db.execute(query, (account,))]

    def end(self, account: str, session_id: str) -> bool:
        """End one session; whether the account had it."""
        statement = "DELETE FROM sessions WHERE account = ? AND id = ?"
        return self._execute_erasing(statement, (account, session_id)) == 1

    def end_all(self, account: str) -> int:
        """End every session of the account; how many there were."""
        return self._execute_erasing("DELETE FROM sessions WHERE account = ?", (account,))

    def end_retired(self, versions: Iterable[int]) -> None:
        """End the sessions whose pseudonym was made with a pepper that is not of `versions`: its account is erased."""
        kept = {f"v{version}" for version in versions}
        accounts = {account for (account,) in self._db.execute("SELECT DISTINCT account FROM sessions")}
        for account in accounts:
            if account.partition("_")[0] not in kept:
                self.end_all(account)

    def rename_account(self, before: str, after: str) -> None:
        """Move the sessions of the pseudonym `before` to `after`."""
        self._execute_erasing("UPDATE sessions SET account = ? WHERE account = ?", (after, before))

    def use_state(self, state: str, lifetime_s: float) -> bool:
        """Mark a login attempt's state as used for `lifetime_s`; False when it was used before (a replayed answer)."""
        now = clock.now()
        self._db.execute("DELETE FROM spent WHERE until_s <= ?", (now,))
        row = (_secret_hash(state), now + lifetime_s)
        return self._db.execute("INSERT INTO spent VALUES (?, ?) ON CONFLICT DO NOTHING", row).rowcount == 1

    def _delete_ended(self) -> None:
        now = clock.now()
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
