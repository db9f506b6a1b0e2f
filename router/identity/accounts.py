"""The one durable store: what an account has agreed to, its tokens' hashes, its daily use, and backends' modes.

Tiny, no audio, no identity: accounts are pseudonyms. It fails closed. A store that is missing or damaged where one was
expected is replaced by an empty one that is not trusted: until the operator confirms it, every job is managed only,
since nobody can say any more who had refused the other tiers.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from router.core.command_error import CommandError

TOKEN_PREFIX = "mr_"  # noqa: S105 — how tokens begin, so that secret scanners know one
SCHEMA = """
CREATE TABLE IF NOT EXISTS store (only INTEGER PRIMARY KEY CHECK (only = 1), confirmed INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS consents (
  account TEXT PRIMARY KEY, managed_only INTEGER NOT NULL, tiers_version TEXT NOT NULL, minute INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
  id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, account TEXT NOT NULL, scope TEXT NOT NULL, minute INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (
  account TEXT NOT NULL, day INTEGER NOT NULL, audio_s INTEGER NOT NULL, PRIMARY KEY (account, day)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS backends (name TEXT PRIMARY KEY, mode TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS peppers (version INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL) STRICT;
"""
_OF_ACCOUNTS = ("consents", "tokens", "usage")
_DAYS_KEPT = 2
_VERSIONED = re.compile(r"v(\d+)_")
_DAMAGE = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
"""What sets a store aside; a full disk or a missing right is no reason to throw consents away."""


class Consent(NamedTuple):
    """What an account has agreed to, when (minutes since the epoch), and for which list of tiers."""

    managed_only: bool
    tiers_version: str
    minute: int


class Token(NamedTuple):
    """A token as its owner sees it; the secret itself was shown once and is not kept."""

    id: str
    account: str
    scope: str
    minute: int


class Accounts:
    """The durable store in `folder`. `markers` are files that say that a store was here before."""

    def __init__(self, folder: Path, markers: Iterable[Path] = ()) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, path = folder, folder / "accounts.sqlite"
        marked = [folder / "accounts.expected", *markers]
        lost = _set_aside_if_damaged(path) or (not path.exists() and any(mark.exists() for mark in marked))
        path.touch(mode=0o600, exist_ok=True)
        self._db = _connect(path)
        self._db.execute("INSERT INTO store VALUES (1, ?) ON CONFLICT DO NOTHING", (not lost,))
        for mark in marked:
            mark.touch(mode=0o600)

    def close(self) -> None:
        self._db.close()

    @property
    def trusted(self) -> bool:
        """False after a loss, until the operator confirms."""
        return bool(self._db.execute("SELECT confirmed FROM store").fetchone()[0])

    def confirm(self) -> None:
        """The operator accepts that what was lost is lost: accounts start with the service's default again."""
        self._db.execute("UPDATE store SET confirmed = 1")
        self._drop_set_aside()

    def expect_peppers(self, fingerprints: Mapping[int, bytes]) -> bool:
        """Whether these are the peppers that the accounts were made with. Where one is lost or another, people come
        back as strangers and nobody can say any more who had refused which tiers: the store is not trusted."""
        known = dict(self._db.execute("SELECT version, fingerprint FROM peppers"))
        whole = all(fingerprints.get(version) == fingerprint for version, fingerprint in known.items())
        if not whole:
            self._db.execute("UPDATE store SET confirmed = 0")
        self._db.execute("DELETE FROM peppers")
        self._db.executemany("INSERT INTO peppers VALUES (?, ?)", fingerprints.items())
        return whole

    def retire_pepper(self, version: int) -> int:
        """Forget a pepper's version and the accounts that are still under it, whom nobody can reach any more; how many
        rows went."""
        gone = [self._erased(table, "account GLOB ?", f"v{version}_*") for table in _OF_ACCOUNTS]
        self._db.execute("DELETE FROM peppers WHERE version = ?", (version,))
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return sum(gone)

    def move(self, before: str, after: str) -> int:
        """What was kept under the pseudonym `before` is kept under `after`, where the latter has nothing of its own
        that is newer; how many rows moved."""
        # A row that is there already is of a later sign-in: what it says holds.
        moved = [
            self._db.execute(f"UPDATE OR IGNORE {t} SET account = ? WHERE account = ?", (after, before)).rowcount  # noqa: S608 — our own table names
            for t in _OF_ACCOUNTS
        ]
        self.erase(before)
        return sum(moved)

    def managed_only(self, account: str, tiers_version: str) -> bool:
        """Whether this account's jobs must stay on our own workers.

        An account that never said anything has the service's default, tiers in order. A consent that was given for
        another list of tiers does not cover this one.
        """
        if not self.trusted or self._is_retired(account):
            return True
        consent = self.consent(account)
        return consent is not None and (consent.managed_only or consent.tiers_version != tiers_version)

    def _is_retired(self, account: str) -> bool:
        """Whether its pepper was retired while somebody was signed in: what they had refused is erased."""
        version = _VERSIONED.match(account)
        known = {known for (known,) in self._db.execute("SELECT version FROM peppers")}
        return version is not None and bool(known) and int(version[1]) not in known

    def consent(self, account: str) -> Consent | None:
        query = "SELECT managed_only, tiers_version, minute FROM consents WHERE account = ?"
        row = self._db.execute(query, (account,)).fetchone()
        return Consent(bool(row[0]), row[1], row[2]) if row else None

    def set_consent(self, account: str, consent: Consent) -> None:
        self._db.execute(
            "INSERT INTO consents VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET managed_only = excluded.managed_only,"
            " tiers_version = excluded.tiers_version, minute = excluded.minute",
            (account, *consent),
        )

    def make_token(self, account: str, scope: str, minute: int) -> tuple[Token, str]:
        """A new token and its secret: 256 bits, shown once, kept as SHA-256 (no salt is needed at that length)."""
        token, secret = Token(secrets.token_hex(8), account, scope, minute), TOKEN_PREFIX + secrets.token_urlsafe(32)
        self._db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?)", (token.id, _hash(secret), account, scope, minute))
        return token, secret

    def token_of(self, secret: str) -> Token | None:
        query = "SELECT id, account, scope, minute FROM tokens WHERE hash = ?"
        row = self._db.execute(query, (_hash(secret),)).fetchone()
        return Token(*row) if row else None

    def tokens(self, account: str) -> list[Token]:
        query = "SELECT id, account, scope, minute FROM tokens WHERE account = ? ORDER BY minute, id"
        return [Token(*row) for row in self._db.execute(query, (account,))]

    def revoke_token(self, account: str, token_id: str) -> bool:
        """True if the account had it."""
        return self._db.execute("DELETE FROM tokens WHERE account = ? AND id = ?", (account, token_id)).rowcount == 1

    def used_audio_s(self, account: str, day: int) -> int:
        """Seconds of audio the account sent on `day` (days since the epoch)."""
        query = "SELECT audio_s FROM usage WHERE account = ? AND day = ?"
        row = self._db.execute(query, (account, day)).fetchone()
        return int(row[0]) if row else 0

    def use_audio(self, account: str, day: int, audio_s: int) -> None:
        """Count audio against the day's quota; older days are forgotten."""
        self._db.execute(
            "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET audio_s = audio_s + excluded.audio_s",
            (account, day, audio_s),
        )
        self._db.execute("DELETE FROM usage WHERE day < ?", (day - _DAYS_KEPT + 1,))

    def backend_modes(self) -> dict[str, str]:
        """Backends that the operator has taken out: name → `draining` or `maintenance`."""
        return dict(self._db.execute("SELECT name, mode FROM backends"))

    def set_backend_mode(self, name: str, mode: str | None) -> None:
        """None: ready again."""
        self._db.execute("DELETE FROM backends WHERE name = ?", (name,))
        if mode is not None:
            self._db.execute("INSERT INTO backends VALUES (?, ?)", (name, mode))

    def export(self, account: str) -> dict[str, list[dict[str, Any]]]:
        """Everything held of an account: every row of every table that names it, but for the tokens' hashes."""
        return {table: self._rows(table, account) for table in _OF_ACCOUNTS}

    def erase(self, account: str) -> int:
        """Forget the account. Returns how many rows went; the file keeps none of them (secure_delete)."""
        gone = [self._erased(table, "account = ?", account) for table in _OF_ACCOUNTS]
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._drop_set_aside()  # a damaged store may hold the account, and nobody can look into it
        return sum(gone)

    def _drop_set_aside(self) -> None:
        for damaged in self._folder.glob("accounts.damaged-*"):
            damaged.unlink(missing_ok=True)

    def _erased(self, table: str, condition: str, value: str) -> int:
        return self._db.execute(f"DELETE FROM {table} WHERE {condition}", (value,)).rowcount  # noqa: S608 — our own words

    def _rows(self, table: str, account: str) -> list[dict[str, Any]]:
        cursor = self._db.execute(f"SELECT * FROM {table} WHERE account = ?", (account,))  # noqa: S608 — our own table names
        names = [column[0] for column in cursor.description]
        return [{n: v for n, v in zip(names, row, strict=True) if n != "hash"} for row in cursor]


class StoreHealth(NamedTuple):
    """The store in a folder, looked at without touching it."""

    sound: bool
    trusted: bool
    peppers: dict[int, bytes]
    """Version → fingerprint of the peppers that its accounts were made with."""


def look_at(folder: Path) -> StoreHealth | None:
    """How the store is; None where there is none yet. A running router may have it open."""
    path = folder / "accounts.sqlite"
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            sound = db.execute("PRAGMA quick_check").fetchone()[0] == "ok"
            (confirmed,) = db.execute("SELECT confirmed FROM store").fetchone()
            return StoreHealth(sound, bool(confirmed), dict(db.execute("SELECT version, fingerprint FROM peppers")))
    except (sqlite3.DatabaseError, TypeError):
        return StoreHealth(False, False, {})


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    connection.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; PRAGMA busy_timeout=5000;" + SCHEMA
    )
    return connection


def _set_aside_if_damaged(path: Path) -> bool:
    """Move a file that is no sound store out of the way, for the operator to look at. True if it was."""
    if not path.exists():
        return False
    try:
        connection = _connect(path)
        try:
            sound = connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
            # An empty file is a store that lost its content, not a new one: new ones get their row at once.
            sound = sound and connection.execute("SELECT count(*) FROM store").fetchone()[0] == 1
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname not in _DAMAGE:
            raise CommandError(
                f"the account store can't be read ({error.sqlite_errorname}). Free the disk or restore its rights."
            ) from None
        sound = False
    if sound:
        return False
    number = sum(1 for _ in path.parent.glob("accounts.damaged-*.sqlite")) + 1
    for tail in ("", "-wal", "-shm"):
        beside = path.with_name(path.name + tail)
        if beside.exists():
            beside.replace(path.with_name(f"accounts.damaged-{number}.sqlite{tail}"))
    return True


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
