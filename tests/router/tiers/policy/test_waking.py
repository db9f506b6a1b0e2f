"""When a sleeping Space is woken: before a job needs it, and not while the tiers above cope."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.dispatch import prewarm
from router.tiers.fake import FakeBackend
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.choice import Candidate, JobRequirements, backends_to_wake
from router.tiers.policy.estimate import Ewma, SpeedEstimate
from router.tiers.port import BackendHealth
from tests.services import eventually, mastering, queue_song, services_in

SONG = JobRequirements(size_bytes=30 * 2**20, duration_s=180.0)


def speed(render_s_per_minute: float) -> SpeedEstimate:
    return SpeedEstimate(Ewma(0.0), {JobRequirements(0, 0).work: Ewma(render_s_per_minute)}, Ewma(0.0), Ewma(60.0))


def one(
    name: str, tier: str, state: BackendState = BackendState.HEALTHY, render_s_per_minute: float = 20.0, **known: object
) -> Candidate:
    return Candidate(name, tier, state, speed=speed(render_s_per_minute), **known)  # type: ignore[arg-type]


ASLEEP = one("zero", "gpu_space", BackendState.SLEEPING, 40.0)  # 120 s for the song, biased 155 s


def woken(*candidates: Candidate, queued: int = 0) -> list[str]:
    return backends_to_wake(candidates, SONG._replace(queued=queued), lambda: 0.0)


def test_nobody_is_woken_while_a_tier_above_is_well_and_free() -> None:
    assert woken(one("worker", "managed"), ASLEEP) == []


def test_a_suspect_tier_above_wakes_the_first_tier_that_sleeps_even_before_a_job_comes() -> None:
    cpu = one("cpu", "cpu_space", BackendState.SLEEPING)
    assert woken(one("worker", "managed", BackendState.SUSPECT), ASLEEP, cpu) == ["zero"]
    assert woken(one("a", "managed", BackendState.SUSPECT), one("b", "managed"), ASLEEP) == []


def test_a_wait_above_beyond_half_the_spill_point_wakes() -> None:
    """A song takes 60 s above; spilling begins where it waits 155 − 60 = 95 s for its turn, half of it is 47.5 s."""
    busy = one("worker", "managed", in_flight=1)
    assert woken(busy, ASLEEP) == ["zero"]  # waits 60 s
    assert woken(one("worker", "managed", in_flight=2, slots=2), ASLEEP) == []  # waits 30 s


def test_a_wait_above_that_outlasts_the_time_that_is_left_wakes_for_jobs_that_are_there() -> None:
    """A song takes 60 s above and waits 60 s for its turn; awake, the quick one below has it in 90 s."""
    busy, quick = one("worker", "managed", in_flight=1), one("zero", "gpu_space", BackendState.SLEEPING, 10.0)
    hurried = SONG._replace(deadline_s=100.0)
    assert backends_to_wake([busy, quick], hurried, lambda: 0.0) == []
    assert backends_to_wake([busy, quick], hurried._replace(queued=1), lambda: 0.0) == ["zero"]


@pytest.mark.parametrize(
    "state", [BackendState.OPEN, BackendState.PAUSED, BackendState.QUOTA_OUT, BackendState.MAINTENANCE]
)
def test_a_tier_above_that_is_down_wakes_only_for_jobs_that_are_there(state: BackendState) -> None:
    down = one("worker", "managed", state)
    assert woken(down, ASLEEP) == []
    assert woken(down, ASLEEP, queued=1) == ["zero"]


def test_where_a_space_is_all_there_is_a_job_wakes_it() -> None:
    assert woken(ASLEEP) == []
    assert woken(ASLEEP, queued=1) == ["zero"]


def test_a_tier_between_that_is_up_lets_the_lower_one_sleep() -> None:
    cpu = one("cpu", "cpu_space", BackendState.SLEEPING)
    assert woken(one("worker", "managed", BackendState.OPEN), one("zero", "gpu_space"), cpu, queued=3) == []


def test_a_space_that_the_song_is_too_long_for_sleeps_on() -> None:
    assert woken(ASLEEP._replace(max_duration_s=60.0), queued=1) == []


async def test_a_router_with_a_job_and_only_a_sleeping_space_wakes_it(tmp_path: Path) -> None:
    space = FakeBackend("zero", [mastering()], tier="gpu_space")
    space.health = BackendHealth(False, "asleep", reported_state=BackendState.SLEEPING)
    async with services_in(tmp_path, [space]) as services:
        await services.fleet.start()
        await prewarm.wake_needed_spaces(services.queue, services.fleet)
        assert space.woken == 0
        await queue_song(services)
        await prewarm.wake_needed_spaces(services.queue, services.fleet)

        async def woken_once() -> bool:
            return space.woken == 1

        await eventually(woken_once)
