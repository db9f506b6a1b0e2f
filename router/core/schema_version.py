"""SQLite files that say which version of their schema they have, and are brought to this one when they are opened.

The version is SQLite's user_version. 0 are files from before versions were written down.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from router.core.command_error import CommandError

Migrations = Sequence[Sequence[str]]
"""Statements that bring a file from the version that is their place here to the next, beside new tables."""


def bring_up_to_date(connection: sqlite3.Connection, schema: str, migrations: Migrations, name: str) -> None:
    """Make the tables of `schema` where they are missing, and bring an older file to the version after `migrations`.

    Wholly or not at all; `connection` must be without a transaction. Raises CommandError for a file of a later version,
    which is left as it is; `name` says in its sentence what the file is.
    """
    if check_version(connection, migrations, name) < len(migrations):
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = check_version(connection, migrations, name)  # another process may have been quicker
            for statements in () if _is_empty_now(connection) else migrations[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    connection.executescript(schema)


def _is_empty_now(connection: sqlite3.Connection) -> bool:
    """Whether the file has no row. Its tables are dropped then: a start that was killed may have made some only."""
    named = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    tables = [f'"{name}"' for (name,) in connection.execute(named)]
    if any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in tables):  # noqa: S608 — ours
        return False
    for table in tables:
        connection.execute(f"DROP TABLE {table}")
    return True


def check_version(connection: sqlite3.Connection, migrations: Migrations, name: str) -> int:
    """The version of the file's schema. Raises CommandError for a later one than this."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(migrations):
        raise CommandError(
            f"the {name} is of a later version of this software (its schema is {version}, this one's"
            f" {len(migrations)}). Start that version, or put the file back that was there before the upgrade."
        )
    return version
