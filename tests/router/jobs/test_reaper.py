"""What time makes due: expired jobs and blobs, and jobs whose upload never began."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.core import clock
from router.jobs import lifecycle, reaper
from router.jobs.services import Services
from router.store.record import BlobRef, Job
from router.store.state import CLOSED, JobState
from tests.router.jobs.test_lifecycle import job_in
from tests.services import (
    new_job,
    pieces,
    services_in,
)


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.WIPED])
async def test_time_ends_a_job_in_any_state_and_not_before(
    tmp_path: Path, state: JobState, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, state)
        monkeypatch.setattr(clock, "now", lambda: job.expires_s - 0.01)
        assert await reaper.expire(services) == 0
        monkeypatch.setattr(clock, "now", lambda: job.expires_s)
        assert await reaper.expire(services) == 1
        after, _ = await services.jobs.get(job.id)
        assert after.state is JobState.WIPED
        assert after.ended_as is (state if state in CLOSED else JobState.EXPIRED)
        assert services.spool.usage().blobs == 0
        assert not any((tmp_path / "spool").glob("*/*"))
        assert await reaper.expire(services) == 0


async def test_a_job_of_which_nothing_came_gives_its_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with services_in(tmp_path) as services:
        now = clock.now()
        silent, begun, referred, taking = [await reserved_job(services) for _ in range(4)]
        await services.spool.append(ref_of(begun), 0, pieces(b"a few bytes"), None)
        other = BlobRef(ref=await services.spool.reserve(100, 1e9), size_bytes=100)
        await services.change(referred.id, lambda job: job.with_(references={1: other}))
        began, may_end = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"less than a record"
            began.set()
            await may_end.wait()

        upload = asyncio.create_task(services.spool.append(ref_of(taking), 0, slowly(), None))
        await began.wait()
        monkeypatch.setattr(clock, "now", lambda: now + services.settings.unsent_ttl_s - 1)
        assert await reaper.end_unsent(services) == 0
        monkeypatch.setattr(clock, "now", lambda: now + services.settings.unsent_ttl_s + 1)
        assert await reaper.end_unsent(services) == 1
        ended, _ = await services.jobs.get(silent.id)
        assert (ended.state, ended.ended_as) == (JobState.WIPED, JobState.EXPIRED)
        assert ended.error is not None
        assert "10 minutes" in ended.error["detail"]
        may_end.set()
        await upload


async def reserved_job(services: Services) -> Job:
    """A job with reserved space of which no byte has arrived."""
    job = new_job(services)
    job = job.with_(input=BlobRef(ref=await services.spool.reserve(1000, job.expires_s), size_bytes=0))
    await services.jobs.create(job, 3600)
    return job


def ref_of(job: Job) -> str:
    assert job.input is not None
    return job.input.ref


async def test_a_blob_goes_at_its_time_though_its_record_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, JobState.MASTERED)
        await services.jobs.forget(job.id)
        monkeypatch.setattr(clock, "now", lambda: job.expires_s)
        await reaper.expire(services)
        assert services.spool.usage().blobs == 0


async def test_a_job_that_can_not_be_closed_does_not_keep_the_others_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with services_in(tmp_path) as services:
        jobs = [await job_in(services, JobState.MASTERED) for _ in range(3)]
        end = lifecycle.end

        async def broken_for_one(services: object, job_id: str, *rest: object) -> object:
            if job_id == jobs[0].id:
                raise ZeroDivisionError
            return await end(services, job_id, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(lifecycle, "end", broken_for_one)
        monkeypatch.setattr(clock, "now", lambda: jobs[0].expires_s + 1)
        await reaper.expire(services)
        states = [(await services.jobs.get(job.id)).job.state for job in jobs]
        assert states == [JobState.MASTERED, JobState.WIPED, JobState.WIPED]
        assert services.spool.usage().blobs == 0
