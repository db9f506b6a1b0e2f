"""The accounts' database file: its schema, how it is opened, and how a damaged one is found and set aside.

A file of an earlier version is brought to this one when it is opened; one of a later version is refused and left as it
is (`router.core.schema_version`).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from router.core import schema_version
from router.core.command_error import CommandError

FILE_NAME = "accounts.sqlite"
DAMAGED = "accounts.damaged-"
"""How the names of damaged files begin that were set aside."""
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
_MIGRATIONS: schema_version.Migrations = ((),)
"""The tables of version 0 are those of version 1."""
_NAME = "account store"
_DAMAGE = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
"""SQLite's errors that mean a damaged file; a full disk or a missing right is no reason to throw consents away."""


class StoreHealth(NamedTuple):
    """The condition of a store: whether SQLite finds it whole, and whether its consents may be relied on."""

    sound: bool
    trusted: bool
    peppers: dict[int, bytes]
    """Version → fingerprint of the peppers that its accounts were made with."""


def inspect(folder: Path) -> StoreHealth | None:
    """The condition of the store in `folder`, read without changing it; None where there is none yet.

    A running router may have it open. Raises CommandError for a file of a later version.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            schema_version.check_version(db, _MIGRATIONS, _NAME)
            sound = db.execute("PRAGMA quick_check").fetchone()[0] == "ok"
            (confirmed,) = db.execute("SELECT confirmed FROM store").fetchone()
            return StoreHealth(sound, bool(confirmed), dict(db.execute("SELECT version, fingerprint FROM peppers")))
    except (sqlite3.DatabaseError, TypeError):
        return StoreHealth(False, False, {})


def open_database(path: Path) -> sqlite3.Connection:
    """Open the database, made with its tables where it is new and brought to this version where it is older.

    Each change is on disk before it is answered (synchronous=FULL), and what is deleted is overwritten (secure_delete).
    Raises CommandError for a file of a later version.
    """
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        connection.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; PRAGMA busy_timeout=5000;"
        )
        schema_version.bring_up_to_date(connection, SCHEMA, _MIGRATIONS, _NAME)
    except BaseException:
        connection.close()
        raise
    return connection


def set_aside_if_damaged(path: Path) -> bool:
    """Rename a file that is no sound store, for the operator to look at; whether it was one.

    Raises CommandError for a file that can't be read for another reason.
    """
    if not path.exists():
        return False
    try:
        connection = open_database(path)
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
    number = sum(1 for _ in path.parent.glob(f"{DAMAGED}*.sqlite")) + 1
    for tail in ("", "-wal", "-shm"):
        beside = path.with_name(path.name + tail)
        if beside.exists():
            beside.replace(path.with_name(f"{DAMAGED}{number}.sqlite{tail}"))
    return True
