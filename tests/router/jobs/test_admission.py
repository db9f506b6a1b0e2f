"""Admission: which new jobs are refused, and after how long they are told to come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from mastering.contract import Settings
from mastering.contract.kinds import MASTER
from router.core import clock
from router.core.errors import Problem
from router.jobs import admission
from router.jobs.services import Services
from router.tiers.fake import FakeBackend
from router.tiers.fleet.member import FleetMember
from router.tiers.fleet.modes import Mode
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.estimate import Ewma, SpeedEstimate
from tests.services import mastering, queue_song, services_in

MIB = 2**20


def fake(name: str = "a", tier: str = "managed") -> FakeBackend:
    return FakeBackend(name, [mastering()], tier=tier)


def speed(seconds: float) -> SpeedEstimate:
    """The speed of a backend that takes so many seconds for any song."""
    return SpeedEstimate(Ewma(0.0), {"master/quick": Ewma(0.0)}, Ewma(seconds), Ewma(0.0))


def member(services: Services, name: str = "a") -> FleetMember:
    found = services.fleet.member(name)
    assert found is not None
    return found


async def refusal(services: Services, *, managed_only: bool = False) -> Problem | None:
    try:
        await admission.admit(services, MASTER, Settings(), 5 * MIB, managed_only=managed_only)
    except Problem as problem:
        return problem
    return None


@pytest.mark.parametrize(
    ("takes_s", "waiting", "retry_s"),
    [(599.0, 0, None), (601.0, 0, 1.0), (100.0, 4, None), (150.0, 4, 300.0)],
)
async def test_a_song_that_would_be_done_too_late_is_sent_away_for_as_long_as_it_is_too_late(
    tmp_path: Path, takes_s: float, waiting: int, retry_s: float | None
) -> None:
    async with services_in(tmp_path, [fake()]) as services:
        await services.fleet.probe_all()
        member(services).speed = speed(takes_s)
        if waiting:
            member(services).in_flight = 1
        for n in range(waiting):
            await queue_song(services, account=str(n))
        found = await refusal(services)
        assert (found.retry_after_s if found else None) == retry_s
        assert found is None or (found.code, found.row.status) == ("overloaded", 503)


def trip(services: Services, name: str, times: int) -> None:
    """Open the backend's breaker so many times in a row."""
    breaker = member(services, name).breaker
    for _ in range(times):
        breaker.trip(clock.now(), "down")
        if breaker.openings < times:
            breaker.tick(clock.now() + 1000)


@pytest.mark.parametrize(("openings", "refused"), [(1, False), (2, False), (3, True)])
async def test_an_outage_refuses_songs_once_it_is_no_stumble_and_says_when_to_come_back(
    tmp_path: Path, openings: int, refused: bool
) -> None:
    async with services_in(tmp_path, [fake()]) as services:
        await services.fleet.probe_all()
        trip(services, "a", openings)
        found = await refusal(services)
        assert (found is not None) == refused
        if found:
            assert (found.code, found.row.status) == ("no_tier", 503)
            assert found.retry_after_s == pytest.approx(member(services).back_in_s(clock.now()), abs=1.0)


async def test_one_backend_that_may_come_back_is_worth_waiting_for(tmp_path: Path) -> None:
    async with services_in(tmp_path, [fake("a"), fake("b")]) as services:
        trip(services, "a", 5)
        assert member(services, "b").state(0.0) is BackendState.UNKNOWN
        assert await refusal(services) is None


async def test_a_managed_only_song_is_not_comforted_by_other_tiers(tmp_path: Path) -> None:
    async with services_in(tmp_path, [fake("a"), fake("b", "cpu_space")]) as services:
        await services.fleet.probe_all()
        trip(services, "a", 5)
        assert await refusal(services) is None
        found = await refusal(services, managed_only=True)
        assert found is not None
        assert "not consented to" in found.detail


@pytest.mark.parametrize("mode", [Mode.DRAINING, Mode.MAINTENANCE])
async def test_when_all_are_told_to_rest_one_comes_back_in_a_minute(tmp_path: Path, mode: Mode) -> None:
    async with services_in(tmp_path, [fake()]) as services:
        await services.fleet.probe_all()
        await services.fleet.set_mode("a", mode)
        found = await refusal(services)
        assert found is not None
        assert found.retry_after_s == 60.0


async def test_a_router_without_backends_takes_songs_in_and_lets_them_wait(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        assert await refusal(services) is None
