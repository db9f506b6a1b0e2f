"""One suite for every implementation of the ports of `router.store.port`: what the router may rely on, no more.

Time is the test's own: `Time.pass_by` moves the clock that the stores read.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mastering.contract import OutputFormat, Settings
from router.core import clock
from router.store.embedded import sqlite
from router.store.port import (
    WIPED_TTL_S,
    JobMissing,
    Lease,
    Owner,
    QueueFull,
    RevisionConflict,
    Store,
    change_until_stored,
)
from router.store.record import BlobRef, Job, new_id
from router.store.state import JobState
from router.store.testing import memory
from tests import waiting
from tests.services import ram_folder

LEASE_S = 20.0
HERE = Owner("here", "this")
Open = Callable[..., Awaitable[Store]]


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clock, "now", lambda: time.now)
    return time


@pytest.fixture(params=["sqlite", "memory", "sqlite that waits", "memory that waits"])
async def open_store(request: pytest.FixtureRequest, time: Time) -> AsyncIterator[Open]:
    async with AsyncExitStack() as cleanup:
        folder = Path(cleanup.enter_context(ram_folder()))
        names = (folder / f"{number}.sqlite" for number in count())

        async def make(**limits: Any) -> Store:
            limits = {"lease_s": LEASE_S, **limits}
            opened = (
                sqlite.open_store(next(names), **limits)
                if request.param.startswith("sqlite")
                else memory.open_store(**limits)
            )
            return await cleanup.enter_async_context(
                waiting.open_store(opened) if request.param.endswith("waits") else opened
            )

        yield make


@pytest.fixture
async def store(open_store: Open) -> Store:
    return await open_store()


def a_job(job_id: str | None = None, **changes: Any) -> Job:
    fields = {"account": "a", "options": Settings().model_dump(mode="json"), "created_s": 1000.0, "expires_s": 4000.0}
    return Job(id=job_id or new_id(), **{**fields, **changes})


async def take(store: Store, *lanes: str) -> str | None:
    lease = await store.queue.lease(lanes or ("any",), 0, HERE)
    return lease.job_id if lease else None


async def leased(store: Store) -> Lease:
    lease = await store.queue.lease(("any",), 0, HERE)
    assert lease is not None
    return lease


# --- Jobs


async def test_a_created_job_is_read_back_whole(store: Store) -> None:
    job = a_job(
        options=Settings(amount_percent=12.5, loudness_lufs=-9.0).model_dump(mode="json"),
        faults=2,
        error={"code": "x", "n": 1.5},
    )
    created = await store.jobs.create(job, 100)
    assert created.job == job
    assert await store.jobs.get(job.id) == created


async def test_creating_the_same_id_again_gives_the_job_that_is_there(store: Store) -> None:
    first = await store.jobs.create(a_job("x", account="first"), 100)
    again = await store.jobs.create(a_job("x", account="second"), 100)
    assert again == first


async def test_an_unknown_job_is_missing(store: Store) -> None:
    with pytest.raises(JobMissing):
        await store.jobs.get("nothing")


async def test_a_change_at_the_expected_revision_is_stored_under_a_new_one(store: Store) -> None:
    job, revision = await store.jobs.create(a_job(), 100)
    changed = job.with_(faults=3)
    new_revision = await store.jobs.change(changed, revision)
    assert new_revision != revision
    assert await store.jobs.get(job.id) == (changed, new_revision)


async def test_a_change_at_any_other_revision_is_a_conflict_and_changes_nothing(store: Store) -> None:
    job, revision = await store.jobs.create(a_job(), 100)
    current = (job.with_(faults=1), await store.jobs.change(job.with_(faults=1), revision))
    for wrong in (revision, current[1] + 1, 0):
        with pytest.raises(RevisionConflict):
            await store.jobs.change(job.with_(faults=9), wrong)
    assert await store.jobs.get(job.id) == current


async def test_changing_a_job_that_is_not_there_is_missing_and_makes_none(store: Store) -> None:
    with pytest.raises(JobMissing):
        await store.jobs.change(a_job("x"), 0)
    with pytest.raises(JobMissing):
        await store.jobs.get("x")


async def test_a_record_is_gone_when_its_time_is_over_and_not_before(store: Store, time: Time) -> None:
    job, revision = await store.jobs.create(a_job(), 100)
    time.pass_by(99.9)
    assert (await store.jobs.get(job.id)).job == job
    time.pass_by(0.2)
    with pytest.raises(JobMissing):
        await store.jobs.get(job.id)
    with pytest.raises(JobMissing):
        await store.jobs.change(job, revision)
    assert [found async for found in store.jobs.scan()] == []


async def test_changes_do_not_lengthen_a_records_time(store: Store, time: Time) -> None:
    job, revision = await store.jobs.create(a_job(), 100)
    time.pass_by(60)
    await store.jobs.change(job, revision)
    time.pass_by(60)
    with pytest.raises(JobMissing):
        await store.jobs.get(job.id)


async def test_an_id_whose_records_time_is_over_can_be_used_again(store: Store, time: Time) -> None:
    await store.jobs.create(a_job("x", account="old"), 100)
    time.pass_by(101)
    assert (await store.jobs.create(a_job("x", account="new"), 100)).job.account == "new"


async def test_scan_shows_every_job_once(store: Store) -> None:
    jobs = [(await store.jobs.create(a_job(), 100)).job for _ in range(5)]
    seen = [found.job async for found in store.jobs.scan()]
    assert sorted(job.id for job in seen) == sorted(job.id for job in jobs)


async def test_active_counts_the_accounts_jobs_that_are_still_owed_a_master(store: Store) -> None:
    for name in "ab":
        await store.jobs.create(a_job(name, account="mine"), 100)
    await store.jobs.create(a_job("c", account="another"), 100)
    assert await store.jobs.active("mine") == 2
    job, revision = await store.jobs.get("a")
    await store.jobs.change(job.to(JobState.FAILED), revision)
    assert await store.jobs.active("mine") == 1
    await store.jobs.forget("b")
    assert await store.jobs.active("mine") == 0
    assert await store.jobs.active("another") == 1


async def test_an_accounts_jobs_come_newest_first_until_they_are_forgotten(store: Store) -> None:
    for name, created_s in (("b", 2.0), ("a", 1.0), ("d", 3.0), ("c", 3.0)):
        await store.jobs.create(a_job(name, account="mine").with_(created_s=created_s), 100)
    await store.jobs.create(a_job("e", account="another").with_(created_s=2.0), 100)
    assert await store.jobs.of("mine") == ["c", "d", "b", "a"]
    job, revision = await store.jobs.get("b")
    await store.jobs.change(job.to(JobState.FAILED), revision)
    await store.jobs.forget("c")
    assert await store.jobs.of("mine") == ["d", "b", "a"]
    assert await store.jobs.of("nobody's") == []


async def test_refs_name_all_audio_of_the_accounts_jobs_until_they_are_wiped(store: Store) -> None:
    first, second = BlobRef(ref="a/1", size_bytes=1), BlobRef(ref="a/2", size_bytes=2)
    await store.jobs.create(a_job("a", account="mine").with_(input=first, references={1: second}), 100)
    _, revision = await store.jobs.create(a_job("b", account="mine"), 100)
    await store.jobs.create(a_job("c", account="another").with_(input=BlobRef(ref="c/1", size_bytes=1)), 100)
    assert sorted(await store.jobs.refs("mine")) == ["a/1", "a/2"]
    assert await store.jobs.refs("nobody's") == []
    made = a_job("b", account="mine").with_(outputs={OutputFormat.WAV24: BlobRef(ref="b/1", size_bytes=3)})
    await store.jobs.change(made, revision)
    assert sorted(await store.jobs.refs("mine")) == ["a/1", "a/2", "b/1"]
    job, revision = await store.jobs.get("a")
    await store.jobs.change(job.to(JobState.CANCELLED).to(JobState.WIPED), revision)
    assert await store.jobs.refs("mine") == ["b/1"]
    await store.jobs.forget("b")
    assert await store.jobs.refs("mine") == []


async def test_due_names_the_jobs_whose_time_is_over_until_they_are_wiped(store: Store) -> None:
    await store.jobs.create(a_job("soon").with_(expires_s=50.0), 100)
    await store.jobs.create(a_job("late").with_(expires_s=90.0), 100)
    assert await store.jobs.due(49.9) == []
    assert await store.jobs.due(50.0) == ["soon"]
    job, revision = await store.jobs.get("soon")
    revision = await store.jobs.change(job.to(JobState.EXPIRED), revision)
    assert await store.jobs.due(50.0) == ["soon"]
    await store.jobs.change(job.to(JobState.EXPIRED).to(JobState.WIPED), revision)
    assert await store.jobs.due(100.0) == ["late"]


async def test_a_wiped_job_is_forgotten_soon_though_others_are_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wiped", "kept"):
        await store.jobs.create(a_job(name), 10_000)
    job, revision = await store.jobs.get("wiped")
    await store.jobs.change(job.to(JobState.CANCELLED).to(JobState.WIPED), revision)
    assert (await store.jobs.get("wiped")).job.state is JobState.WIPED
    later_s = clock.now() + WIPED_TTL_S + 1
    monkeypatch.setattr(clock, "now", lambda: later_s)
    with pytest.raises(JobMissing):
        await store.jobs.get("wiped")
    assert (await store.jobs.get("kept")).job.id == "kept"


async def test_jobs_may_change_and_go_while_they_are_scanned(store: Store) -> None:
    for name in "abc":
        await store.jobs.create(a_job(name), 100)
    seen = []
    async for job, _ in store.jobs.scan():
        seen.append(job.id)
        for other in {"a", "b", "c"} - {job.id}:
            await store.jobs.forget(other)
    assert len(seen) == 1


async def test_a_forgotten_job_is_missing_and_may_be_forgotten_twice(store: Store) -> None:
    job, _ = await store.jobs.create(a_job(), 100)
    await store.jobs.forget(job.id)
    await store.jobs.forget(job.id)
    with pytest.raises(JobMissing):
        await store.jobs.get(job.id)


async def test_of_many_changers_at_once_each_change_is_kept(store: Store) -> None:
    job, _ = await store.jobs.create(a_job(), 100)

    async def add_one() -> None:
        await change_until_stored(store.jobs, store.events, job.id, lambda job: job.with_(faults=job.faults + 1))

    await asyncio.gather(*(add_one() for _ in range(15)))
    assert (await store.jobs.get(job.id)).job.faults == 15


async def test_a_step_that_is_illegal_raises_and_changes_nothing(store: Store) -> None:
    created = await store.jobs.create(a_job(), 100)
    with pytest.raises(Exception, match="received → mastered"):
        await change_until_stored(store.jobs, store.events, created.job.id, lambda job: job.to(JobState.MASTERED))
    assert await store.jobs.get(created.job.id) == created


# --- Queue


async def test_jobs_of_one_account_are_leased_in_the_order_they_came(open_store: Open) -> None:
    store = await open_store(max_running=9)
    for name in ("first", "second", "third"):
        await store.queue.enqueue(name, "any", "a", 60)
    assert [await take(store) for _ in range(4)] == ["first", "second", "third", None]


async def test_offering_a_job_again_changes_nothing(store: Store) -> None:
    for _ in range(3):
        await store.queue.enqueue("x", "any", "a", 60)
    assert await store.queue.depth() == 1
    assert [await take(store), await take(store)] == ["x", None]


async def test_offering_a_leased_job_again_gives_it_to_nobody_else(store: Store) -> None:
    await store.queue.enqueue("x", "any", "a", 60)
    await leased(store)
    await store.queue.enqueue("x", "any", "a", 60)
    assert await take(store) is None


async def test_an_account_with_enough_in_line_is_refused_and_told_when_to_come_back(open_store: Open) -> None:
    store = await open_store(max_queued=2)
    for name in ("x", "y"):
        await store.queue.enqueue(name, "any", "a", 60)
    with pytest.raises(QueueFull) as full:
        await store.queue.enqueue("z", "any", "a", 60)
    assert full.value.retry_after_s > 0
    await store.queue.enqueue("x", "any", "a", 60)
    await store.queue.enqueue("z", "any", "b", 60)
    assert await store.queue.depth() == 3


async def test_a_full_account_has_room_again_when_a_job_is_finished(open_store: Open) -> None:
    store = await open_store(max_queued=1)
    await store.queue.enqueue("x", "any", "a", 60)
    await (await leased(store)).finish()
    await store.queue.enqueue("y", "any", "a", 60)
    assert await take(store) == "y"


async def test_only_jobs_of_the_lanes_asked_for_are_leased(store: Store) -> None:
    await store.queue.enqueue("private", "managed", "a", 60)
    assert await take(store, "any") is None
    assert await take(store) is None
    assert await take(store, "any", "managed") == "private"


async def test_no_lane_no_lease(store: Store) -> None:
    await store.queue.enqueue("x", "any", "a", 60)
    assert await store.queue.lease((), 0, HERE) is None


async def test_a_lease_that_is_not_extended_runs_out_and_somebody_else_gets_the_job(store: Store, time: Time) -> None:
    await store.queue.enqueue("x", "any", "a", 60)
    first = await leased(store)
    time.pass_by(LEASE_S - 0.1)
    assert await take(store) is None
    time.pass_by(0.2)
    second = await leased(store)
    assert (second.job_id, first.attempt, second.attempt) == ("x", 1, 2)


async def test_a_lease_that_is_extended_holds(store: Store, time: Time) -> None:
    await store.queue.enqueue("x", "any", "a", 60)
    lease = await leased(store)
    for _ in range(5):
        time.pass_by(LEASE_S * 0.9)
        assert await lease.extend()
    assert await take(store) is None


async def test_the_holder_of_a_lost_lease_changes_nothing(store: Store, time: Time) -> None:
    await store.queue.enqueue("x", "any", "a", 60)
    lost = await leased(store)
    time.pass_by(LEASE_S + 1)
    held = await leased(store)
    assert not await lost.extend()
    await lost.finish()
    await lost.release()
    assert await take(store) is None
    assert await held.extend()
    await held.release()
    assert await take(store) == "x"


async def test_a_lease_that_ran_out_can_not_be_extended_though_nobody_took_the_job(store: Store, time: Time) -> None:
    await store.queue.enqueue("x", "any", "a", 60)
    lease = await leased(store)
    time.pass_by(LEASE_S + 1)
    assert not await lease.extend()


async def test_a_finished_job_never_comes_again(store: Store, time: Time) -> None:
    await store.queue.enqueue("x", "any", "a", 60)
    await (await leased(store)).finish()
    time.pass_by(LEASE_S * 2)
    assert await take(store) is None
    assert await store.queue.depth() == 0


async def test_a_job_given_back_comes_again_after_the_delay(store: Store, time: Time) -> None:
    await store.queue.enqueue("x", "any", "a", 60)
    lease = await leased(store)
    await lease.release(5)
    assert await store.queue.depth() == 1
    assert not await lease.extend()
    time.pass_by(4.9)
    assert await take(store) is None
    time.pass_by(0.2)
    assert await take(store) == "x"


async def test_the_account_that_had_least_audio_goes_first(open_store: Open) -> None:
    store = await open_store(max_running=9)
    for n in range(4):
        await store.queue.enqueue(f"long {n}", "any", "a", 600)
    for n in range(4):
        await store.queue.enqueue(f"short {n}", "any", "b", 200)
    order = [await take(store) for _ in range(8)]
    # a has had 600 s: b catches up with three songs of 200 s before a's turn comes again.
    assert order == ["long 0", "short 0", "short 1", "short 2", "long 1", "short 3", "long 2", "long 3"]


async def test_an_account_that_joins_starts_level_and_not_ahead(open_store: Open) -> None:
    store = await open_store(max_running=9)
    for n in range(4):
        await store.queue.enqueue(f"a{n}", "any", "a", 100)
    assert [await take(store), await take(store)] == ["a0", "a1"]
    for n in range(4):
        await store.queue.enqueue(f"b{n}", "any", "b", 100)
    # Both stand at 200 s now: they take turns, b does not first get what a has had.
    assert [await take(store) for _ in range(4)] == ["a2", "b0", "a3", "b1"]


async def test_a_turn_that_came_to_nothing_costs_the_account_nothing(open_store: Open) -> None:
    """Else a job that waits for room, leased and given back each second, would put its account behind all others."""
    store = await open_store(max_running=9)
    for name in ("a", "b"):
        for n in range(2):
            await store.queue.enqueue(f"{name}{n}", "any", name, 100)
    for _ in range(3):
        lease = await leased(store)
        assert lease.job_id == "a0"
        await lease.release()
    assert [await take(store) for _ in range(4)] == ["a0", "b0", "a1", "b1"]


async def test_no_account_runs_more_than_its_share_at_once(open_store: Open) -> None:
    store = await open_store(max_running=2)
    for n in range(3):
        await store.queue.enqueue(f"a{n}", "any", "a", 1)
    await store.queue.enqueue("b", "any", "b", 1000)
    first = await leased(store)
    assert {await take(store), await take(store)} == {"a1", "b"}
    assert await take(store) is None
    await first.finish()
    assert await take(store) == "a2"


async def test_a_lease_that_ran_out_counts_no_more_as_running(open_store: Open, time: Time) -> None:
    store = await open_store(max_running=1)
    await store.queue.enqueue("x", "any", "a", 1)
    await store.queue.enqueue("y", "any", "a", 1)
    await leased(store)
    assert await take(store) is None
    time.pass_by(LEASE_S + 1)
    assert await take(store) == "x"


async def test_a_withdrawn_job_is_out_of_the_line_whoever_holds_it(store: Store) -> None:
    await store.queue.enqueue("held", "any", "a", 1)
    await store.queue.enqueue("waiting", "any", "a", 1)
    lease = await leased(store)
    await store.queue.withdraw("held")
    await store.queue.withdraw("waiting")
    await store.queue.withdraw("never there")
    assert not await lease.extend()
    assert await take(store) is None


async def test_a_job_offered_anew_after_it_was_withdrawn_is_not_the_old_holders(store: Store) -> None:
    await store.queue.enqueue("x", "any", "a", 1)
    old = await leased(store)
    await store.queue.withdraw("x")
    await store.queue.enqueue("x", "any", "a", 1)
    await old.finish()
    await old.release(100)
    assert await take(store) == "x"


async def test_depth_and_places_count_those_who_wait(open_store: Open) -> None:
    store = await open_store(max_running=9)
    for name in ("x", "y", "z"):
        await store.queue.enqueue(name, "any", "a", 1)
    assert [await store.queue.ahead_of(name) for name in ("x", "y", "z", "nobody")] == [0, 1, 2, None]
    await leased(store)
    assert [await store.queue.ahead_of(name) for name in ("x", "y", "z")] == [None, 0, 1]
    assert await store.queue.depth() == 2


async def test_a_router_that_starts_again_releases_what_its_earlier_processes_held(open_store: Open) -> None:
    store = await open_store(max_running=9)
    for name in ("x", "y"):
        await store.queue.enqueue(name, "any", "a", 1)
    first, second = await leased(store), await leased(store)
    await second.release(1000)
    await store.queue.release(Owner("here", "next"))
    assert not await first.extend()
    assert {await take(store), await take(store)} == {"x", "y"}


@pytest.mark.parametrize("other", [HERE, Owner("there", "next")])
async def test_a_living_process_keeps_its_leases_whoever_else_starts(store: Store, other: Owner) -> None:
    await store.queue.enqueue("x", "any", "a", 1)
    lease = await leased(store)
    await store.queue.release(other)
    assert await lease.extend()
    assert await take(store) is None


async def test_who_waits_for_a_lease_gets_a_job_that_comes_meanwhile(store: Store) -> None:
    waiting = asyncio.create_task(store.queue.lease(("any",), 60, HERE))
    await asyncio.sleep(0)
    await store.queue.enqueue("x", "any", "a", 1)
    async with asyncio.timeout(10):
        lease = await waiting
    assert lease is not None
    assert lease.job_id == "x"


async def test_of_many_who_wait_each_job_goes_to_one(open_store: Open) -> None:
    store = await open_store(max_running=99, max_queued=99)
    waiting = [asyncio.create_task(store.queue.lease(("any",), 60, HERE)) for _ in range(8)]
    await asyncio.sleep(0)
    for n in range(8):
        await store.queue.enqueue(str(n), "any", "a", 1)
    async with asyncio.timeout(10):
        leases = await asyncio.gather(*waiting)
    assert sorted(lease.job_id for lease in leases if lease) == [str(n) for n in range(8)]


async def test_waiting_for_a_lease_can_be_cancelled_at_the_moment_a_job_comes(store: Store) -> None:
    waiting = asyncio.create_task(store.queue.lease(("other",), 60, HERE))
    await asyncio.sleep(0)
    await store.queue.enqueue("x", "any", "a", 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await waiting


# --- Events


async def test_a_listener_hears_of_its_job_and_of_no_other(store: Store) -> None:
    async with store.events.subscribe("x") as changes, store.events.subscribe("y") as others:
        await store.events.publish("x")
        assert await changes.wait(1)
        assert not await changes.wait(0)
        assert not await others.wait(0)


async def test_many_changes_before_a_look_are_one_hint(store: Store) -> None:
    async with store.events.subscribe("x") as changes:
        for _ in range(5):
            await store.events.publish("x")
        assert await changes.wait(1)
        assert not await changes.wait(0)


async def test_every_listener_hears_and_none_after_it_left(store: Store) -> None:
    async with store.events.subscribe("x") as stays:
        async with store.events.subscribe("x") as leaves:
            await store.events.publish("x")
            assert await leaves.wait(1)
        assert await stays.wait(1)
        await store.events.publish("x")
        assert await stays.wait(1)
    await store.events.publish("x")


async def test_a_stored_change_is_told(store: Store) -> None:
    job, _ = await store.jobs.create(a_job(), 100)
    async with store.events.subscribe(job.id) as changes:
        await change_until_stored(store.jobs, store.events, job.id, lambda _: None)
        assert not await changes.wait(0)
        await change_until_stored(store.jobs, store.events, job.id, lambda job: job.with_(faults=1))
        assert await changes.wait(1)


def _as_before(path: Path, version: int) -> None:
    """Make a store's file what it was in `version`: 0 had no owners of leases, 1 masters alone."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        if version == 0:
            db.executescript("ALTER TABLE queue DROP COLUMN router; ALTER TABLE queue DROP COLUMN incarnation;")
        for job_id, text in db.execute("SELECT id, document FROM jobs").fetchall():
            document = json.loads(text)
            document["settings"] = document.pop("options")
            for name in ["kind", *(["owner"] if version == 0 else [])]:
                del document[name]
            db.execute("UPDATE jobs SET document = ? WHERE id = ?", (json.dumps(document), job_id))
        db.execute("UPDATE queue SET lane = substr(lane, 1 + instr(lane, '/'))")
        db.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", [0, 1])
async def test_a_job_store_of_a_version_before_is_opened_with_its_jobs_and_leases(
    tmp_path: Path, time: Time, version: int
) -> None:
    path = tmp_path / "jobs.sqlite"
    async with sqlite.open_store(path, lease_s=LEASE_S) as store:
        await store.jobs.create(a_job("x"), 100)
        await store.queue.enqueue("x", "master/any", "a", 1)
        assert await take(store, "master/any") == "x"
    _as_before(path, version)
    async with sqlite.open_store(path, lease_s=LEASE_S) as store:
        assert (await store.jobs.get("x")).job == a_job("x")
        assert await take(store, "master/any") is None
        await store.queue.release(HERE._replace(incarnation="the next"))
        assert await take(store, "master/any") == "x"


async def test_a_job_store_of_which_a_killed_start_made_a_part_is_made_whole(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE jobs (id TEXT PRIMARY KEY)")
    async with sqlite.open_store(path) as store:
        await store.jobs.create(a_job("x"), 100)
        assert (await store.jobs.get("x")).job.id == "x"
