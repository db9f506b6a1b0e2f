"""The durable account store: what it keeps, what it forgets, and that it fails closed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from router.core.command_error import CommandError
from router.identity import accounts_database
from router.identity.accounts import Consent, LocalAccounts

V1, V2 = "tiers-1", "tiers-2"


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[LocalAccounts]:
    store = LocalAccounts(tmp_path / "state")
    yield store
    store.close()


def reopened(folder: Path) -> LocalAccounts:
    return LocalAccounts(folder / "state", [folder / "ram-marker"])


def set_aside(folder: Path) -> list[Path]:
    """Damaged stores that are kept for the operator."""
    return list(folder.glob("accounts.damaged-*"))


async def test_an_account_that_said_nothing_has_the_default_of_tiers_in_order(accounts: LocalAccounts) -> None:
    assert await accounts.is_trusted()
    assert not await accounts.managed_only("a", V1)


async def test_managed_only_holds_from_the_next_question_on_and_can_be_taken_back(accounts: LocalAccounts) -> None:
    await accounts.set_consent("a", Consent(True, V1, 10))
    assert await accounts.managed_only("a", V1)
    assert not await accounts.managed_only("b", V1)
    await accounts.set_consent("a", Consent(False, V1, 11))
    assert not await accounts.managed_only("a", V1)


async def test_a_consent_does_not_cover_another_list_of_tiers(accounts: LocalAccounts) -> None:
    await accounts.set_consent("a", Consent(False, V1, 10))
    assert await accounts.managed_only("a", V2)


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    first = reopened(tmp_path)
    await first.set_consent("a", Consent(True, V1, 10))
    await first.set_backend_mode("worker-1", "draining")
    first.close()
    second = reopened(tmp_path)
    assert await second.is_trusted()
    assert await second.consent("a") == Consent(True, V1, 10)
    assert await second.backend_modes() == {"worker-1": "draining"}
    second.close()


@pytest.mark.parametrize("harm", ["missing", "folder", "garbage", "empty", "cut"])
async def test_a_store_that_was_lost_is_managed_only_until_the_operator_confirms(tmp_path: Path, harm: str) -> None:
    first = reopened(tmp_path)
    await first.set_consent("a", Consent(False, V1, 10))
    first.close()
    path = tmp_path / "state" / "accounts.sqlite"
    whole = path.read_bytes()
    match harm:
        case "missing":
            path.unlink()
        case "folder":
            for file in (tmp_path / "state").iterdir():
                file.unlink()
        case "garbage":
            path.write_bytes(b"\x5a" * len(whole))
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
    after = reopened(tmp_path)
    assert not await after.is_trusted()
    assert await after.managed_only("a", V1)
    assert await after.managed_only("somebody new", V1)
    after.close()
    still = reopened(tmp_path)
    assert not await still.is_trusted(), "a restart is no confirmation"
    await still.confirm()
    assert await still.is_trusted()
    assert not await still.managed_only("a", V1)
    still.close()


async def test_a_first_start_is_no_loss(tmp_path: Path) -> None:
    store = reopened(tmp_path)
    assert await store.is_trusted()
    store.close()


async def test_a_token_is_kept_as_a_hash_and_works_until_it_is_revoked(tmp_path: Path) -> None:
    store = reopened(tmp_path)
    token, secret = await store.make_token("a", "jobs", 5)
    assert await store.token_of(secret) == token
    assert await store.token_of(secret[:-1]) is None
    assert await store.tokens("a") == [token]
    assert not await store.revoke_token("b", token.id), "another account's token is not there"
    assert await store.revoke_token("a", token.id)
    assert await store.token_of(secret) is None
    store.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert secret.encode() not in kept


async def test_use_is_counted_by_day_and_forgotten_after(accounts: LocalAccounts) -> None:
    await accounts.use_audio("a", 100, 60)
    await accounts.use_audio("a", 100, 30)
    await accounts.use_audio("a", 101, 5)
    assert [await accounts.used_audio_s("a", day) for day in (100, 101)] == [90, 5]
    await accounts.use_audio("b", 102, 1)
    assert await accounts.used_audio_s("a", 100) == 0


async def test_an_export_holds_every_row_of_the_account_and_no_hash(accounts: LocalAccounts) -> None:
    await accounts.set_consent("a", Consent(True, V1, 10))
    token, _ = await accounts.make_token("a", "jobs", 5)
    await accounts.use_audio("a", 100, 60)
    await accounts.set_consent("b", Consent(True, V1, 10))
    assert await accounts.export("a") == {
        "consents": [{"account": "a", "managed_only": 1, "tiers_version": V1, "minute": 10}],
        "tokens": [{"id": token.id, "account": "a", "scope": "jobs", "minute": 5}],
        "usage": [{"account": "a", "day": 100, "audio_s": 60}],
    }


async def test_an_erased_account_is_in_no_file(tmp_path: Path) -> None:
    store = reopened(tmp_path)
    await store.set_consent("an-account-to-forget", Consent(True, V1, 10))
    await store.make_token("an-account-to-forget", "jobs", 5)
    await store.use_audio("an-account-to-forget", 100, 60)
    await store.set_consent("another", Consent(True, V1, 10))
    assert await store.erase("an-account-to-forget") == 3
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert b"an-account-to-forget" not in kept
    assert await store.consent("another") is not None
    store.close()


def test_the_schema_has_no_place_for_a_name_an_address_or_audio(tmp_path: Path) -> None:
    reopened(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "state" / "accounts.sqlite")
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {
        f"{table}.{column[1]}" for table in tables for column in connection.execute(f"PRAGMA table_info({table})")
    }
    connection.close()
    assert columns == {
        "store.only", "store.confirmed",
        "consents.account", "consents.managed_only", "consents.tiers_version", "consents.minute",
        "tokens.id", "tokens.hash", "tokens.account", "tokens.scope", "tokens.minute",
        "usage.account", "usage.day", "usage.audio_s",
        "backends.name", "backends.mode",
        "peppers.version", "peppers.fingerprint",
    }  # fmt: skip


async def test_a_store_that_can_not_be_read_for_a_while_is_not_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reopened(tmp_path)
    await first.set_consent("a", Consent(True, V1, 10))
    first.close()

    def full(_: Path) -> sqlite3.Connection:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(accounts_database, "open_database", full)
        with pytest.raises(CommandError, match="SQLITE_FULL"):
            reopened(tmp_path)
    second = reopened(tmp_path)
    assert await second.is_trusted()
    assert await second.consent("a") == Consent(True, V1, 10)
    second.close()


def test_each_damaged_store_is_kept_for_the_operator(tmp_path: Path) -> None:
    path = tmp_path / "state" / "accounts.sqlite"
    for text in (b"first damage", b"second damage"):
        reopened(tmp_path).close()
        path.write_bytes(text * 100)
    reopened(tmp_path).close()
    kept = sorted(path.parent.glob("accounts.damaged-*.sqlite"))
    assert [file.read_bytes()[:5] for file in kept] == [b"first", b"secon"]


async def test_a_refusal_under_a_retired_pepper_stays_a_refusal(tmp_path: Path) -> None:
    """The refusal is erased with the pepper; whoever is still signed in keeps it until the session ends."""
    store = LocalAccounts(tmp_path)
    await store.expect_peppers({1: b"first", 2: b"second"})
    await store.set_consent("v1_person", Consent(True, V1, 10))
    assert await store.managed_only("v1_person", V1)
    await store.retire_pepper(1)
    assert await store.consent("v1_person") is None
    assert await store.managed_only("v1_person", V1)
    assert not await store.managed_only("v2_person", V1)
    store.close()


async def test_a_store_set_aside_goes_with_an_erasure_and_with_the_operators_word(tmp_path: Path) -> None:
    for end in (lambda store: store.erase("a"), lambda store: store.confirm()):
        LocalAccounts(tmp_path).close()
        (tmp_path / "accounts.sqlite").write_bytes(b"damaged" * 1000)
        store = LocalAccounts(tmp_path)
        assert set_aside(tmp_path)
        await end(store)
        assert not set_aside(tmp_path)
        store.close()


# Versions of the file --------------------------------------------------------------------------------------------


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


@pytest.fixture
def unversioned(tmp_path: Path) -> Path:
    """A file as it was written before versions were, with somebody in it."""
    path = tmp_path / "state" / accounts_database.FILE_NAME
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode=WAL;" + accounts_database.SCHEMA)
        db.execute("INSERT INTO store VALUES (1, 1)")
        db.execute("INSERT INTO consents VALUES ('a', 1, ?, 10)", (V1,))
    assert version_of(path) == 0
    return path


async def test_a_file_from_before_versions_is_opened_with_all_that_is_in_it(tmp_path: Path, unversioned: Path) -> None:
    store = reopened(tmp_path)
    assert await store.is_trusted()
    assert await store.consent("a") == Consent(True, V1, 10)
    store.close()
    assert version_of(unversioned) == len(accounts_database._MIGRATIONS)


def test_a_new_file_has_this_version_and_needs_no_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_database, "_MIGRATIONS", ((), ("this would fail",)))
    reopened(tmp_path).close()
    assert version_of(tmp_path / "state" / accounts_database.FILE_NAME) == 2


async def test_each_version_between_is_passed_once(
    tmp_path: Path, unversioned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ((), ("ALTER TABLE consents ADD COLUMN region TEXT", "UPDATE consents SET region = 'here'"))
    monkeypatch.setattr(accounts_database, "_MIGRATIONS", steps)
    reopened(tmp_path).close()
    store = reopened(tmp_path)
    assert (await store.export("a"))["consents"][0]["region"] == "here"
    store.close()


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, unversioned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(accounts_database, "_MIGRATIONS", ((), ("DELETE FROM consents", "this fails")))
        with pytest.raises(CommandError, match="SQLITE_ERROR"):
            reopened(tmp_path)
    assert version_of(unversioned) == 0
    store = reopened(tmp_path)
    assert await store.consent("a") == Consent(True, V1, 10)
    store.close()


def test_a_file_of_a_later_version_is_refused_and_not_touched(tmp_path: Path, unversioned: Path) -> None:
    with closing(sqlite3.connect(unversioned)) as db:
        db.execute("PRAGMA user_version = 99")
    before = unversioned.read_bytes()
    with pytest.raises(CommandError, match="later version"):
        reopened(tmp_path)
    with pytest.raises(CommandError, match="later version"):
        accounts_database.inspect(unversioned.parent)
    assert unversioned.read_bytes() == before
    assert list(unversioned.parent.glob(f"{accounts_database.DAMAGED}*")) == []
