"""The one durable store: what an account has agreed to, its tokens' hashes, its daily use, and backends' modes.

It holds no audio and no identity: accounts are pseudonyms. It fails closed. A store that is missing or damaged where
one was expected is replaced by an empty one that is not trusted: until the operator confirms it, every job is managed
only, since nobody can say any more who had refused the other tiers.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from router.identity import accounts_database
from router.identity.port import Consent, Token

TOKEN_PREFIX = "mr_"  # noqa: S105 — how tokens begin, so that secret scanners know one
_ACCOUNT_TABLES = ("consents", "tokens", "usage")
_USAGE_DAYS_KEPT = 2
"""Days whose use of the quota is on record: today and the day before."""
_PEPPER_VERSION = re.compile(r"v(\d+)_")


@asynccontextmanager
async def open_accounts(folder: Path, markers: Iterable[Path] = ()) -> AsyncIterator[LocalAccounts]:
    """The store in `folder` while it is open. `markers` are files that say that a store was here before."""
    with closing(LocalAccounts(folder, markers)) as accounts:
        yield accounts


class LocalAccounts:
    """The accounts of one machine (`port.Accounts`), in a SQLite file in `folder`."""

    def __init__(self, folder: Path, markers: Iterable[Path] = ()) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, path = folder, folder / accounts_database.FILE_NAME
        marked = [folder / "accounts.expected", *markers]
        lost = accounts_database.set_aside_if_damaged(path) or (
            not path.exists() and any(mark.exists() for mark in marked)
        )
        path.touch(mode=0o600, exist_ok=True)
        self._db = accounts_database.open_database(path)
        self._db.execute("INSERT INTO store VALUES (1, ?) ON CONFLICT DO NOTHING", (not lost,))
        for mark in marked:
            mark.touch(mode=0o600)

    def close(self) -> None:
        self._db.close()

    async def is_trusted(self) -> bool:
        return bool(self._db.execute("SELECT confirmed FROM store").fetchone()[0])

    async def confirm(self) -> None:
        self._db.execute("UPDATE store SET confirmed = 1")
        self._drop_set_aside()

    async def expect_peppers(self, fingerprints: Mapping[int, bytes]) -> bool:
        known = dict(self._db.execute("SELECT version, fingerprint FROM peppers"))
        whole = all(fingerprints.get(version) == fingerprint for version, fingerprint in known.items())
        if not whole:
            self._db.execute("UPDATE store SET confirmed = 0")
        self._db.execute("DELETE FROM peppers")
        self._db.executemany("INSERT INTO peppers VALUES (?, ?)", fingerprints.items())
        return whole

    async def retire_pepper(self, version: int) -> int:
        gone = [self._erased(table, "account GLOB ?", f"v{version}_*") for table in _ACCOUNT_TABLES]
        self._db.execute("DELETE FROM peppers WHERE version = ?", (version,))
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return sum(gone)

    async def rename_account(self, before: str, after: str) -> int:
        # A row that is there already is of a later sign-in: what it says holds.
        moved = [
            self._db.execute(f"UPDATE OR IGNORE {t} SET account = ? WHERE account = ?", (after, before)).rowcount  # noqa: S608 — our own table names
            for t in _ACCOUNT_TABLES
        ]
        await self.erase(before)
        return sum(moved)

    async def managed_only(self, account: str, tiers_version: str) -> bool:
        if not await self.is_trusted() or self._is_retired(account):
            return True
        consent = await self.consent(account)
        return consent is not None and (consent.managed_only or consent.tiers_version != tiers_version)

    def _is_retired(self, account: str) -> bool:
        """Whether its pepper was retired while somebody was signed in: what they had refused is erased."""
        version = _PEPPER_VERSION.match(account)
        known = {known for (known,) in self._db.execute("SELECT version FROM peppers")}
        return version is not None and bool(known) and int(version[1]) not in known

    async def consent(self, account: str) -> Consent | None:
        query = "SELECT managed_only, tiers_version, minute FROM consents WHERE account = ?"
        row = self._db.execute(query, (account,)).fetchone()
        return Consent(bool(row[0]), row[1], row[2]) if row else None

    async def set_consent(self, account: str, consent: Consent) -> None:
        self._db.execute(
            "INSERT INTO consents VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET managed_only = excluded.managed_only,"
            " tiers_version = excluded.tiers_version, minute = excluded.minute",
            (account, *consent),
        )

    async def make_token(self, account: str, scope: str, minute: int) -> tuple[Token, str]:
        token, secret = Token(secrets.token_hex(8), account, scope, minute), TOKEN_PREFIX + secrets.token_urlsafe(32)
        self._db.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?)", (token.id, _token_hash(secret), account, scope, minute)
        )
        return token, secret

    async def token_of(self, secret: str) -> Token | None:
        query = "SELECT id, account, scope, minute FROM tokens WHERE hash = ?"
        row = self._db.execute(query, (_token_hash(secret),)).fetchone()
        return Token(*row) if row else None

    async def tokens(self, account: str) -> list[Token]:
        query = "SELECT id, account, scope, minute FROM tokens WHERE account = ? ORDER BY minute, id"
        return [Token(*row) for row in self._db.execute(query, (account,))]

    async def revoke_token(self, account: str, token_id: str) -> bool:
        return self._db.execute("DELETE FROM tokens WHERE account = ? AND id = ?", (account, token_id)).rowcount == 1

    async def used_audio_s(self, account: str, day: int) -> int:
        query = "SELECT audio_s FROM usage WHERE account = ? AND day = ?"
        row = self._db.execute(query, (account, day)).fetchone()
        return int(row[0]) if row else 0

    async def use_audio(self, account: str, day: int, audio_s: int) -> None:
        self._db.execute(
            "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET audio_s = audio_s + excluded.audio_s",
            (account, day, audio_s),
        )
        self._db.execute("DELETE FROM usage WHERE day < ?", (day - _USAGE_DAYS_KEPT + 1,))

    async def backend_modes(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT name, mode FROM backends"))

    async def set_backend_mode(self, name: str, mode: str | None) -> None:
        self._db.execute("DELETE FROM backends WHERE name = ?", (name,))
        if mode is not None:
            self._db.execute("INSERT INTO backends VALUES (?, ?)", (name, mode))

    async def export(self, account: str) -> dict[str, list[dict[str, Any]]]:
        return {table: self._rows(table, account) for table in _ACCOUNT_TABLES}

    async def erase(self, account: str) -> int:
        gone = [self._erased(table, "account = ?", account) for table in _ACCOUNT_TABLES]
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._drop_set_aside()  # a damaged store may hold the account, and nobody can look into it
        return sum(gone)

    def _drop_set_aside(self) -> None:
        for damaged in self._folder.glob(f"{accounts_database.DAMAGED}*"):
            damaged.unlink(missing_ok=True)

    def _erased(self, table: str, condition: str, value: str) -> int:
        return self._db.execute(f"DELETE FROM {table} WHERE {condition}", (value,)).rowcount  # noqa: S608 — our own words

    def _rows(self, table: str, account: str) -> list[dict[str, Any]]:
        cursor = self._db.execute(f"SELECT * FROM {table} WHERE account = ?", (account,))  # noqa: S608 — our own table names
        names = [column[0] for column in cursor.description]
        return [{n: v for n, v in zip(names, row, strict=True) if n != "hash"} for row in cursor]


def _token_hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
