"""Trying again: where, how often, after how long, and what it never costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from mastering.contract import Stage
from router.dispatch import dispatcher, placement, stall
from router.store.state import JobState
from router.tiers.fake import FakeBackend, Script
from router.tiers.fleet import member
from router.tiers.fleet.fleet import ConfiguredBackend
from router.tiers.policy.backend_state import UP
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, Heartbeat, RenderProgress, TierEvent, Work
from tests.services import eventually, mastering, queue_song, until, working

ENDS = (JobState.MASTERED, JobState.WIPED)


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "JITTER_S", (0.01, 0.02))
    monkeypatch.setattr(dispatcher, "WAIT_FOR_BACKEND_S", 0.01)
    monkeypatch.setattr(member, "UNREACHABLE_BACKOFF_S", 0.01)


def failing(kind: FaultClass, times: int) -> list[Script]:
    return [*[[TierFault(kind, f"scripted {kind}")]] * times, mastering()]


async def test_a_song_that_broke_the_only_worker_there_is_goes_back_to_it_once(tmp_path: Path) -> None:
    async with working(tmp_path, [FakeBackend("a", failing(FaultClass.CRASH, 1))]) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert [(a.backend, a.outcome) for a in job.attempts] == [("a", "crash"), ("a", "done")]


async def test_a_song_that_broke_the_only_worker_twice_stops_there(tmp_path: Path) -> None:
    async with working(tmp_path, [FakeBackend("a", failing(FaultClass.CRASH, 2))]) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert job.error is not None
        assert job.error["code"] == "poison"


async def test_songs_that_break_what_they_run_on_do_not_take_the_tier_from_others(tmp_path: Path) -> None:
    """Five of them, two deaths each: their failures are taken back as each ends, and the sixth song finds the tier."""
    async with working(tmp_path, [FakeBackend("a", failing(FaultClass.BUG, 10))]) as services:
        for _ in range(5):
            job = await until(services, (await queue_song(services)).id, *ENDS)
            assert job.error is not None
            assert job.error["code"] == "poison"
            assert services.fleet.candidates()[0].state in UP
        honest = await until(services, (await queue_song(services)).id, *ENDS)
        assert [(a.backend, a.outcome) for a in honest.attempts] == [("a", "done")]


class BusyAtFirst(FakeBackend):
    """Renders nothing until its gate is open."""

    gate: asyncio.Event

    async def run(self, work: Work) -> AsyncGenerator[TierEvent]:
        yield Accepted("scripted")
        await self.gate.wait()
        async for event in super().run(work):
            yield event


async def test_a_song_that_failed_waits_no_longer_than_until_another_worker_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause is for a return to the same worker: the other one is busy only for a moment."""
    monkeypatch.setattr(dispatcher, "JITTER_S", (300.0, 300.0))
    busy, broken = BusyAtFirst("b", [mastering()]), FakeBackend("a", failing(FaultClass.CRASH, 9))
    busy.gate = asyncio.Event()
    async with working(tmp_path, [busy]) as services:
        other = await queue_song(services)
        await until(services, other.id, JobState.RUNNING)
        await services.fleet.replace({one.name: ConfiguredBackend(one) for one in (broken, busy)})
        job = await queue_song(services)
        async with services.events.subscribe(job.id) as changes:
            while not broken.runs:
                assert await changes.wait(5.0)
        busy.gate.set()
        ended = await until(services, job.id, *ENDS)
        assert [(a.backend, a.outcome) for a in ended.attempts] == [("a", "crash"), ("b", "done")]


async def test_a_song_never_goes_back_to_a_worker_it_broke_while_another_tier_can_take_it(tmp_path: Path) -> None:
    own = FakeBackend("own", failing(FaultClass.CRASH, 1))
    async with working(tmp_path, [own, FakeBackend("space", [mastering()], tier="cpu_space")]) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert [(a.backend, a.outcome) for a in job.attempts] == [("own", "crash"), ("space", "done")]


async def test_an_outage_costs_a_song_nothing_however_long_it_lasts(tmp_path: Path) -> None:
    """More refusals than a song may have faults; the probes go on answering, so the breaker gives chances."""
    kind = FaultClass.UNREACHABLE
    backends = [FakeBackend(name, failing(kind, 2)) for name in "abc"]
    async with working(tmp_path, backends) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert job.state is JobState.MASTERED
        assert [a.outcome for a in job.attempts[:-1]] == [kind.value] * (len(job.attempts) - 1)
        assert len(job.attempts) > 3
        assert (job.faults, job.deaths) == (0, 0)


async def test_retries_beyond_their_budget_wait_and_are_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "MIN_RETRIES", 0)
    monkeypatch.setattr(placement, "RETRY_SHARE", 0.0)
    backends = [FakeBackend("a", failing(FaultClass.CRASH, 1)), FakeBackend("b", failing(FaultClass.CRASH, 1))]
    async with working(tmp_path, backends) as services:
        queued = await queue_song(services)

        async def waits() -> bool:
            job, _ = await services.jobs.get(queued.id)
            return job.state is JobState.QUEUED and job.faults == 1

        await eventually(waits)
        assert sum(len(backend.runs) for backend in backends) == 1
        monkeypatch.setattr(placement, "MIN_RETRIES", 3)
        assert (await until(services, queued.id, *ENDS)).attempts[-1].number == 2


async def test_a_file_too_big_for_a_tier_goes_to_the_next_and_never_back(tmp_path: Path) -> None:
    own = FakeBackend("own", failing(FaultClass.TOO_BIG, 1))
    async with working(tmp_path, [own, FakeBackend("space", [mastering()], tier="gpu_space")]) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert [(a.tier, a.outcome) for a in job.attempts] == [("managed", "too_big"), ("gpu_space", "done")]
        assert job.faults == 0


class HeartbeatOnly(FakeBackend):
    """Its first render sends heartbeats for ever, and no progress."""

    async def run(self, work: Work) -> AsyncGenerator[TierEvent]:
        if self.runs:
            async for event in super().run(work):
                yield event
            return
        self.runs.append(work)
        try:
            yield Accepted("scripted")
            yield RenderProgress(Stage.RENDER, 0.1)
            while True:
                await asyncio.sleep(0.005)
                yield Heartbeat()
        finally:
            self.closed_early += 1


async def test_a_render_that_only_beats_is_given_up_as_stalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "MIN_STALL_S", 0.05)
    monkeypatch.setattr("router.tiers.policy.estimate.SpeedEstimate.render_s", lambda *_: 0.0)
    backend = HeartbeatOnly("a", [mastering()])
    async with working(tmp_path, [backend]) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert [a.outcome for a in job.attempts] == ["crash", "done"]
        assert "got nowhere" in job.attempts[0].detail
        assert backend.closed_early == 1


async def test_the_backend_is_told_how_long_the_caller_waits(tmp_path: Path) -> None:
    backend = FakeBackend("a", [mastering()])
    async with working(tmp_path, [backend], attempt_deadline_s=77.0) as services:
        await until(services, (await queue_song(services)).id, *ENDS)
        assert backend.runs[0].deadline_s == 77.0
