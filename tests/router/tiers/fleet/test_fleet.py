"""The fleet: what probes, faults and operators make of each backend, and who is in it when the catalogue changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mastering.contract import ENGINE_VERSION
from router.core import clock
from router.core.command_error import CommandError
from router.tiers.fake import FakeBackend
from router.tiers.fleet import fleet as fleet_module
from router.tiers.fleet import reload as reload_module
from router.tiers.fleet.catalogue import CatalogueEntry
from router.tiers.fleet.fleet import ConfiguredBackend, Fleet
from router.tiers.fleet.member import BackendTerms, FleetMember
from router.tiers.fleet.modes import Mode
from router.tiers.fleet.reload import CatalogueWatcher
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.choice import TYPICAL_JOB, Choice
from router.tiers.policy.estimate import AttemptTiming
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.policy.tier import PRIORS
from router.tiers.port import BackendHealth
from tests.services import eventually, mastering

DOWN = BackendHealth(False, "silent")


@asynccontextmanager
async def started(*backends: FakeBackend | ConfiguredBackend, **options: Any) -> AsyncIterator[Fleet]:
    made = Fleet(backends, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def fake(name: str = "a", **changes: Any) -> FakeBackend:
    return FakeBackend(name, [mastering()], **changes)


def state(fleet: Fleet, name: str = "a") -> BackendState:
    member = fleet.member(name)
    assert member is not None
    return member.state(clock.now())


def begin(fleet: Fleet, name: str = "a") -> Any:
    return fleet.reserve(Choice(name, "managed", "because"), TYPICAL_JOB)


async def test_a_backend_that_stops_answering_is_open_after_two_probes_and_healthy_again_after_two_canaries() -> None:
    backend = fake()
    async with started(backend, fake("b")) as fleet:
        backend.health = DOWN
        await fleet.probe_all()
        assert state(fleet) is BackendState.SUSPECT
        await fleet.probe_all()
        assert state(fleet) is BackendState.OPEN
        backend.health = BackendHealth(True, "answers")
        member = fleet.member("a")
        assert member is not None
        member.breaker.tick(clock.now() + 60)
        await fleet.probe_all()
        for _ in range(2):
            assert fleet.candidates()[0].is_free
            fleet.release(begin(fleet), timing=AttemptTiming())
        assert state(fleet) is BackendState.HEALTHY
        told = [(e.backend, e.what) for e in reversed(fleet.journal.latest()) if e.kind == "state" and e.backend == "a"]
        assert told == [("a", s) for s in ("healthy", "suspect", "open", "half-open", "healthy")]


async def test_a_broken_connection_is_followed_by_a_probe_at_once() -> None:
    backend = fake()
    async with started(backend, probe_every_s=3600) as fleet:
        backend.health = DOWN
        fleet.release(begin(fleet), TierFault(FaultClass.CRASH, "it broke"))
        await eventually(lambda: _is(fleet, BackendState.OPEN))


async def test_a_broken_connection_to_a_backend_that_answers_leaves_it_healthy() -> None:
    async with started(fake(), probe_every_s=3600) as fleet:
        fleet.release(begin(fleet), TierFault(FaultClass.CRASH, "it broke"))
        assert state(fleet) is BackendState.SUSPECT
        await eventually(lambda: _is(fleet, BackendState.HEALTHY))


async def _is(fleet: Fleet, wanted: BackendState, name: str = "a") -> bool:
    return state(fleet, name) is wanted


async def test_probes_go_on_by_themselves_and_open_ones_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.tiers.policy.breaker.OPEN_FIRST_S", 0.01)
    backend = fake()
    async with started(backend, probe_every_s=0.01) as fleet:
        backend.health = DOWN
        await eventually(lambda: _is(fleet, BackendState.OPEN))
        backend.health = BackendHealth(True, "answers")
        await eventually(lambda: _admits(fleet))
        assert state(fleet) is BackendState.HALF_OPEN


async def _admits(fleet: Fleet) -> bool:
    return fleet.candidates()[0].is_free


async def test_a_probe_that_hangs_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "PROBE_TIMEOUT_S", 0.01)

    class Hanging(FakeBackend):
        async def probe(self) -> BackendHealth:
            await asyncio.Event().wait()
            raise AssertionError

    async with started(Hanging("a", [mastering()])) as fleet:
        await fleet.probe_all()
        assert state(fleet) is BackendState.OPEN


async def test_a_probe_loop_outlives_a_broken_round(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(fake(), probe_every_s=0.01) as fleet:
        broken = asyncio.Event()

        def tick() -> None:
            monkeypatch.undo()
            broken.set()
            raise ZeroDivisionError

        monkeypatch.setattr(fleet, "_tick", tick)
        await broken.wait()
        member = fleet.member("a")
        assert member is not None
        backend: Any = member.backend
        backend.health = DOWN
        await eventually(lambda: _is(fleet, BackendState.OPEN))


async def test_a_drained_backend_gets_nothing_new_and_finishes_what_it_has() -> None:
    async with started(fake()) as fleet:
        reservation = begin(fleet)
        await fleet.set_mode("a", Mode.DRAINING)
        assert state(fleet) is BackendState.DRAINING
        assert not reservation.evicted.is_set()
        assert not fleet.candidates()[0].is_free
        fleet.release(reservation, timing=AttemptTiming())
        await fleet.set_mode("a", Mode.READY)
        assert fleet.candidates()[0].is_free


async def test_maintenance_sends_running_attempts_away_and_stops_asking() -> None:
    backend = fake()
    async with started(backend) as fleet:
        reservation = begin(fleet)
        await fleet.set_mode("a", Mode.MAINTENANCE)
        assert reservation.evicted.is_set()
        backend.health = DOWN
        await fleet.probe_all()
        await fleet.probe_all()
        fleet.release(reservation)
        await fleet.set_mode("a", Mode.READY)
        assert state(fleet) is BackendState.HEALTHY
        assert not begin(fleet).evicted.is_set()


async def test_an_operators_word_outlives_a_restart() -> None:
    class Kept:
        def __init__(self) -> None:
            self.modes: dict[str, Mode] = {}

        def load(self) -> dict[str, Mode]:
            return self.modes

        async def save(self, name: str, mode: Mode) -> None:
            self.modes[name] = mode

    kept = Kept()
    async with started(fake(), modes=kept) as fleet:
        await fleet.set_mode("a", Mode.DRAINING)
    async with started(fake(), modes=kept) as fleet:
        assert state(fleet) is BackendState.DRAINING
        with pytest.raises(KeyError):
            await fleet.set_mode("nobody", Mode.READY)


async def test_who_leaves_the_fleet_finishes_first_and_who_stays_keeps_what_is_known_of_it() -> None:
    staying, leaving = fake("stays"), fake("leaves")
    closed: list[str] = []

    async def close() -> None:
        closed.append("leaves")

    leaving.close = close  # type: ignore[method-assign]
    async with started(staying, leaving) as fleet:
        fleet.release(begin(fleet, "stays"), timing=AttemptTiming(1.0, 1.0, 1.0))
        before = fleet.member("stays")
        reservation = begin(fleet, "leaves")
        await fleet.replace({"stays": ConfiguredBackend(staying), "new": ConfiguredBackend(fake("new"))})
        assert [c.name for c in fleet.candidates()] == ["stays", "new"]
        assert fleet.member("stays") is before
        assert state(fleet, "new") is BackendState.HEALTHY
        assert closed == []
        fleet.release(reservation, timing=AttemptTiming())
        await eventually(lambda: _equal(closed, ["leaves"]))


async def _equal(one: object, other: object) -> bool:
    return one == other


async def test_a_backend_that_never_worked_is_closed_the_moment_it_leaves() -> None:
    gone = fake("gone")
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    gone.close = close  # type: ignore[method-assign]
    async with started(gone) as fleet:
        await fleet.replace({})
        assert closed.is_set()
        assert fleet.member("gone") is None


@pytest.mark.parametrize(
    ("fault", "expected", "detail"),
    [
        (TierFault(FaultClass.CAPACITY, "busy", retry_after_s=60), BackendState.HEALTHY, "answers"),
        (TierFault(FaultClass.QUOTA, "no more", retry_after_s=60), BackendState.QUOTA_OUT, "its quota is used up"),
        (TierFault(FaultClass.ASLEEP, "it sleeps"), BackendState.SLEEPING, "it sleeps"),
        (TierFault(FaultClass.CONFIGURATION, "401"), BackendState.OPEN, "401"),
        (TierFault(FaultClass.USER, "bad song"), BackendState.HEALTHY, "answers"),
        (TierFault(FaultClass.OURS, "we broke"), BackendState.HEALTHY, "answers"),
        (TierFault(FaultClass.UNREACHABLE, "refused"), BackendState.SUSPECT, "refused"),
    ],
)
def test_what_a_fault_makes_of_its_backend(fault: TierFault, expected: BackendState, detail: str) -> None:
    member = member_of(fake())
    member.release(member.reserve(TYPICAL_JOB, 1.0), 2.0, fault, None)
    assert (member.state(2.0), member.reason(2.0)) == (expected, detail)
    busy = fault.fault_class in (FaultClass.CAPACITY, FaultClass.UNREACHABLE)
    assert (member.candidate(2.0).backoff_s > 0) == busy
    assert member.in_flight == 0


def member_of(backend: FakeBackend, terms: BackendTerms = BackendTerms()) -> FleetMember:  # noqa: B008 — a frozen record
    member = FleetMember(backend, terms, 0.0, lambda: 0.5)
    member.note_health(BackendHealth(True, "answers", slots=3), 0.0)
    return member


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        (
            BackendHealth(True, "answers", engine_version="999.1.0"),
            f"speaks another version: its engine is 999.1.0, this router's {ENGINE_VERSION}",
        ),
        (
            BackendHealth(False, "protocol 1 is not spoken here", reported_state=BackendState.INCOMPATIBLE),
            "speaks another version: protocol 1 is not spoken here",
        ),
    ],
)
def test_a_backend_of_another_version_is_not_healthy_and_says_so(health: BackendHealth, reason: str) -> None:
    member = member_of(fake())
    for now in (1.0, 3.0, 5.0):
        member.note_health(health, now)
        assert (member.state(now), member.reason(now)) == (BackendState.INCOMPATIBLE, reason)
        assert member.back_in_s(now) is None
        assert member.candidate(now).state is BackendState.INCOMPATIBLE
    for now in (7.0, 9.0):
        member.note_health(DOWN, now)
    assert (member.state(9.0), member.reason(9.0)) == (BackendState.OPEN, "silent"), "it is down now, whatever it was"
    member.breaker.tick(100.0)
    member.note_health(BackendHealth(True, "answers", engine_version=ENGINE_VERSION), 100.0)
    assert member.state(100.0) is BackendState.HALF_OPEN


async def test_a_lone_backend_that_is_down_says_when_it_is_tried_again() -> None:
    """After five seconds however often it opened, since there is no other."""
    backend = fake()
    async with started(backend, probe_every_s=3600.0) as fleet:
        member = fleet.member("a")
        assert member is not None
        for _ in range(6):
            member.breaker.trip(clock.now(), "down")
            member.breaker.tick(clock.now() + 1000)
        member.breaker.trip(clock.now(), "down")
        fleet._tick()
        back_in_s = member.back_in_s(clock.now())
        assert back_in_s is not None
        assert 4.0 < back_in_s <= 5.0


@pytest.mark.parametrize("reported_state", [BackendState.SLEEPING, BackendState.PAUSED, BackendState.DRAINING])
def test_a_backend_that_says_that_it_rests_is_believed_and_not_blamed(reported_state: BackendState) -> None:
    member = member_of(fake())
    for now in (1.0, 3.0, 5.0):
        member.note_health(BackendHealth(False, "as it says", reported_state=reported_state), now)
    assert (member.state(5.0), member.reason(5.0)) == (reported_state, "as it says")
    member.note_health(BackendHealth(True, "answers"), 7.0)
    assert member.state(7.0) is BackendState.HEALTHY


def test_a_worker_that_warms_its_next_renderer_while_one_works_is_not_held_back() -> None:
    member = member_of(fake())
    warming = BackendHealth(False, "warming", slots=3, reported_state=BackendState.WARMING)
    reservation = member.reserve(TYPICAL_JOB, 1.0)
    member.note_health(warming, 2.0)
    assert member.state(2.0) is BackendState.HEALTHY
    member.release(reservation, 3.0, None, AttemptTiming())
    member.note_health(warming, 4.0)
    assert member.state(4.0) is BackendState.WARMING


def test_a_half_open_backend_takes_one_whatever_its_slots() -> None:
    member = member_of(fake())
    assert member.candidate(0.0).slots == 3
    member.breaker.trip(1.0, "broken")
    member.breaker.tick(100.0)
    assert member.candidate(100.0).slots == 1


def test_a_silent_backend_keeps_the_size_it_told_last() -> None:
    member = member_of(fake())
    member.note_health(DOWN, 1.0)
    assert member.candidate(1.0).slots == 3


def test_a_pace_is_learned_from_whole_attempts_only() -> None:
    member = member_of(fake())
    member.release(member.reserve(TYPICAL_JOB, 1.0), 2.0, None, None)
    assert member.speed == PRIORS["managed"]
    member.release(member.reserve(TYPICAL_JOB, 1.0), 2.0, None, AttemptTiming(render_s=1000.0))
    assert member.speed.render_s(60.0, TYPICAL_JOB.work) > PRIORS["managed"].render_s(60.0, TYPICAL_JOB.work)


def test_a_quota_is_promised_at_the_start_and_settled_at_the_end() -> None:
    member = member_of(fake(), BackendTerms(quota_s=100.0))
    reservation = member.reserve(TYPICAL_JOB, 0.0)
    promised = member.quota.left_s(0.0)
    assert promised is not None
    assert promised < 100
    member.release(reservation, 30.0, None, AttemptTiming())
    assert member.quota.left_s(30.0) == 70.0


@pytest.mark.parametrize(
    ("mode", "trip", "expected"),
    [(Mode.READY, False, 0.0), (Mode.DRAINING, False, None), (Mode.MAINTENANCE, True, None), (Mode.READY, True, 5.0)],
)
def test_when_a_backend_comes_back_is_known_unless_somebody_must_say_so(
    mode: Mode, trip: bool, expected: float | None
) -> None:
    member = member_of(fake())
    member.mode = mode
    if trip:
        member.breaker.trip(1.0, "broken")
    assert member.back_in_s(1.0) == expected


def test_when_a_used_up_quota_comes_back_is_known_and_since_when_it_is_out() -> None:
    member = member_of(fake())
    member.quota.note_exhausted(10.0, 60.0)
    assert member.back_in_s(20.0) == 50.0
    assert member.since_s(20.0) == 20.0
    assert member.since_s(25.0) == 20.0


CATALOGUE = '[[backend]]\nname = "{}"\ntier = "managed"\nurl = "http://127.0.0.1:{}"\n'


async def test_a_changed_catalogue_changes_the_fleet_and_a_wrong_one_only_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "CHECK_EVERY_S", 0.01)
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE.format("one", 1))
    catalogue_watcher = CatalogueWatcher(path, (), lambda entry: fake(entry.name))
    async with started(*catalogue_watcher.configured().values()) as fleet:
        follower = asyncio.create_task(catalogue_watcher.watch(fleet))
        one = fleet.member("one")
        path.write_text(CATALOGUE.format("one", 1) + CATALOGUE.format("two", 2))
        await eventually(lambda: _members(fleet, ["one", "two"]))
        assert fleet.member("one") is one
        path.write_text("[[backend]]\nname = 7\n")
        await eventually(lambda: _complains(fleet, "catalogue.toml, line 2: name"))
        assert [c.name for c in fleet.candidates()] == ["one", "two"]
        path.unlink()
        await eventually(lambda: _complains(fleet, "can't be read"))
        path.write_text(CATALOGUE.format("two", 3))
        await eventually(lambda: _members(fleet, ["two"]))
        await eventually(lambda: _complains_not(fleet))
        follower.cancel()


async def _members(fleet: Fleet, names: list[str]) -> bool:
    return [c.name for c in fleet.candidates()] == names


async def _complains(fleet: Fleet, words: str) -> bool:
    return words in (fleet.catalogue_error or "")


async def test_an_unchanged_catalogue_is_read_again_when_somebody_asks(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE.format("one", 1))
    made: list[CatalogueEntry] = []

    def connect(entry: CatalogueEntry) -> FakeBackend:
        made.append(entry)
        return fake(entry.name)

    catalogue_watcher = CatalogueWatcher(path, (), connect)
    async with started(*catalogue_watcher.configured().values()) as fleet:
        fleet.catalogue_error = "an old complaint"
        follower = asyncio.create_task(catalogue_watcher.watch(fleet))
        catalogue_watcher.request_reload()
        await eventually(lambda: _complains_not(fleet))
        assert len(made) == 1
        follower.cancel()


async def _complains_not(fleet: Fleet) -> bool:
    return fleet.catalogue_error is None


def test_a_name_in_the_settings_and_the_catalogue_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE.format("worker-1", 1))
    fixed = (CatalogueEntry(name="worker-1", tier="managed", url="http://127.0.0.1:9"),)
    with pytest.raises(CommandError, match="'worker-1', and so has ROUTER_WORKERS"):
        CatalogueWatcher(path, fixed, lambda entry: fake(entry.name)).configured()


async def test_a_catalogue_that_breaks_our_own_code_leaves_the_fleet_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE.format("one", 1))
    tried = asyncio.Event()

    def connect(entry: CatalogueEntry) -> FakeBackend:
        if entry.name == "two":
            tried.set()
            raise ZeroDivisionError
        return fake(entry.name)

    catalogue_watcher = CatalogueWatcher(path, (), connect)
    async with started(*catalogue_watcher.configured().values()) as fleet:
        follower = asyncio.create_task(catalogue_watcher.watch(fleet))
        path.write_text(CATALOGUE.format("two", 2))
        catalogue_watcher.request_reload()
        await tried.wait()
        path.write_text(CATALOGUE.format("one", 1) + CATALOGUE.format("three", 3))
        catalogue_watcher.request_reload()
        await eventually(lambda: _members(fleet, ["one", "three"]))
        follower.cancel()


async def test_without_a_catalogue_there_is_nothing_to_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload_module, "CHECK_EVERY_S", 0.001)
    fixed = (CatalogueEntry(name="worker-1", tier="managed", url="http://127.0.0.1:9"),)
    catalogue_watcher = CatalogueWatcher(None, fixed, lambda entry: fake(entry.name))
    async with started(*catalogue_watcher.configured().values()) as fleet:
        follower = asyncio.create_task(catalogue_watcher.watch(fleet))
        before = fleet.member("worker-1")
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert fleet.member("worker-1") is before
        follower.cancel()
