"""Who is signed in, on RAM-backed storage: a reboot signs everybody out.

A session is 256 random bits in the person's cookie and their SHA-256 here, with a pseudonym and two times. No address,
no browser, nothing that tells one device from another but when it signed in.
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
"""A session that nobody used for so long has ended."""
LONGEST_S = 7 * 24 * 3600.0
"""However it is used, a session ends after this."""
MOST_PER_ACCOUNT = 20
NOTED_EVERY_S = 60.0
"""Use is noted to the minute: it is shown to its owner, and a write for each request would tell more than that."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
  hash BLOB PRIMARY KEY, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, began_s REAL NOT NULL, seen_s REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_by_account ON sessions (account, began_s);
CREATE TABLE IF NOT EXISTS spent (state BLOB PRIMARY KEY, until_s REAL NOT NULL) STRICT, WITHOUT ROWID;
"""


class Session(NamedTuple):
    """A session as its owner may see it; times on `router.core.clock`."""

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
        """A new session; its secret, for the cookie. The one that the browser brought (`replaces`) ends: a secret that
        somebody planted before the sign-in is worth nothing after it."""
        self._drop_over()
        if replaces is not None:
            self._db.execute("DELETE FROM sessions WHERE hash = ?", (_hash(replaces),))
        secret, now = secrets.token_urlsafe(32), clock.now()
        row = (_hash(secret), secrets.token_hex(8), account, now, now)
        self._db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", row)
        self._db.execute(
            "DELETE FROM sessions WHERE account = ? AND hash NOT IN"
            " (SELECT hash FROM sessions WHERE account = ? ORDER BY began_s DESC, id LIMIT ?)",
            (account, account, MOST_PER_ACCOUNT),
        )
        return secret

    def find(self, secret: str) -> Session | None:
        """The session of a cookie, if it lives; its use is noted."""
        query = "SELECT id, account, began_s, seen_s FROM sessions WHERE hash = ?"
        row = self._db.execute(query, (_hash(secret),)).fetchone()
        if row is None or _is_over(found := Session(*row), now := clock.now()):
            return None
        if now - found.seen_s >= NOTED_EVERY_S:
            self._db.execute("UPDATE sessions SET seen_s = ? WHERE id = ?", (now, found.id))
        return found

    def of(self, account: str) -> list[Session]:
        """The account's living sessions, oldest first."""
        self._drop_over()
        query = "SELECT id, account, began_s, seen_s FROM sessions WHERE account = ? ORDER BY began_s, id"
        return [Session(*row) for row in self._db.execute(query, (account,))]

    def end(self, account: str, session_id: str) -> bool:
        """True if the account had it."""
        return self._ended("DELETE FROM sessions WHERE account = ? AND id = ?", (account, session_id)) == 1

    def end_all(self, account: str) -> int:
        """End every session of the account; how many there were."""
        return self._ended("DELETE FROM sessions WHERE account = ?", (account,))

    def keep_only(self, versions: Iterable[int]) -> None:
        """End the sessions whose pseudonym was made with another pepper: it is retired, and nobody can come back."""
        kept = {f"v{version}" for version in versions}
        accounts = {account for (account,) in self._db.execute("SELECT DISTINCT account FROM sessions")}
        for account in accounts:
            if account.partition("_")[0] not in kept:
                self.end_all(account)

    def move(self, before: str, after: str) -> None:
        """The account has another pseudonym from now on."""
        self._ended("UPDATE sessions SET account = ? WHERE account = ?", (after, before))

    def spend(self, state: str, lifetime_s: float) -> bool:
        """Note that an attempt to sign in came back; False when it did before."""
        now = clock.now()
        self._db.execute("DELETE FROM spent WHERE until_s <= ?", (now,))
        row = (_hash(state), now + lifetime_s)
        return self._db.execute("INSERT INTO spent VALUES (?, ?) ON CONFLICT DO NOTHING", row).rowcount == 1

    def _drop_over(self) -> None:
        now = clock.now()
        self._db.execute("DELETE FROM sessions WHERE seen_s <= ? OR began_s <= ?", (now - IDLE_S, now - LONGEST_S))

    def _ended(self, statement: str, values: tuple[str, str] | tuple[str]) -> int:
        """Run it so that no file holds what it took away."""
        count = self._db.execute(statement, values).rowcount
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count


def _is_over(session: Session, now: float) -> bool:
    return now - session.seen_s >= IDLE_S or now - session.began_s >= LONGEST_S


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
