"""Estimates of when a job will be done: waiting ones by the queue before them, running ones by their progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from mastering.contract import Stage
from router.core import clock
from router.jobs import eta
from router.store.record import Attempt, JobProgress
from router.store.state import JobState
from tests.router.jobs.test_admission import fake, member, speed
from tests.services import new_job, queue_song, services_in


async def test_a_waiting_jobs_eta_counts_the_jobs_before_it_and_its_own_time(tmp_path: Path) -> None:
    async with services_in(tmp_path, [fake()]) as services:
        job = await queue_song(services)
        assert eta.queued_outlook(services.clock, services.fleet, job, 0).eta_s is None
        await services.fleet.probe_all()
        member(services).speed = speed(20.0)
        assert eta.queued_outlook(services.clock, services.fleet, job, 0).eta_s == 20.0
        member(services).in_flight = 1
        assert [eta.queued_outlook(services.clock, services.fleet, job, ahead).eta_s for ahead in (0, 3)] == [
            40.0,
            100.0,
        ]


async def test_a_running_jobs_eta_is_its_backends_pace_first_and_its_own_progress_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now", lambda: 110.0)
    async with services_in(tmp_path) as services:
        begun = Attempt(number=1, generation=1, tier="managed", backend="a", reason="", started_s=100.0, eta_s=30.0)
        job = new_job(services).with_(state=JobState.RUNNING, attempts=(begun,))
        assert eta.running_eta_s(services.clock, job) == 20.0
        early, late = JobProgress(stage=Stage.PLAN, fraction=0.05), JobProgress(stage=Stage.RENDER, fraction=0.25)
        assert eta.running_eta_s(services.clock, job.with_(progress=early)) == 20.0
        assert eta.running_eta_s(services.clock, job.with_(progress=late)) == 30.0
        slow = begun.model_copy(update={"eta_s": 4.0})
        assert eta.running_eta_s(services.clock, job.with_(attempts=(slow,))) == 0.0
        unknown = begun.model_copy(update={"eta_s": None})
        assert eta.running_eta_s(services.clock, job.with_(attempts=(unknown,))) is None
        assert eta.running_eta_s(services.clock, job.with_(attempts=())) is None
