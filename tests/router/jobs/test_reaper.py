"""What a start finds left over in every state, and what time makes due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mastering.contract import Facts, OutputFormat
from router.core import clock
from router.dispatch.dispatcher import Dispatcher
from router.jobs import lifecycle, reaper
from router.jobs.services import Services
from router.store.record import Attempt, BlobRef, Job
from router.store.state import CLOSED, DONE, JobState
from router.tiers.fake import FakeBackend
from tests.router.jobs.test_lifecycle import job_in
from tests.services import (
    SONG,
    mastering,
    new_job,
    pieces,
    queue_song,
    ram_folder,
    read_all,
    receive_song,
    services_in,
    spool_song,
    until,
)


async def test_a_job_that_was_running_is_queued_again_and_costs_none_of_its_budget(tmp_path: Path) -> None:
    with ram_folder() as ram:
        async with services_in(tmp_path, ram=ram) as dead:
            queued = await queue_song(dead)
            assert await dead.queue.lease(("any",), 0) is not None
            attempt = Attempt(number=1, generation=1, tier="managed", backend="a", reason="Up.", started_s=0.0)
            await dead.change(queued.id, lambda job: job.to(JobState.RUNNING, generation=1, attempts=(attempt,)))
        backend = FakeBackend("a", [mastering()])
        async with services_in(tmp_path, [backend], ram=ram) as services:
            assert await reaper.recover(services) == 1
            job, _ = await services.jobs.get(queued.id)
            assert (job.state, job.generation, job.faults, job.deaths) == (JobState.QUEUED, 1, 0, 0)
            assert [each.outcome for each in job.attempts] == ["interrupted"]
            dispatcher = Dispatcher(services)
            await services.fleet.start()
            await dispatcher.start()
            job = await until(services, queued.id, JobState.MASTERED, JobState.WIPED)
            await dispatcher.close()
            assert (job.state, job.generation) == (JobState.MASTERED, 2)
            assert [each.outcome for each in job.attempts] == ["interrupted", "done"]
            assert backend.received == [SONG]


async def test_a_queued_job_that_never_came_in_line_is_put_there(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        job = await queue_song(services)
        await services.queue.withdraw(job.id)
        assert await reaper.recover(services) == 1
        lease = await services.queue.lease(("any",), 0)
        assert lease is not None
        assert lease.job_id == job.id


async def test_a_sealed_job_loses_its_input_and_can_be_fetched(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, JobState.SEALED)
        await reaper.recover(services)
        after, _ = await services.jobs.get(job.id)
        assert (after.state, after.input) == (JobState.MASTERED, None)
        assert await read_all(services, after.outputs[OutputFormat.WAV24].ref) == bytes(1000)
        assert services.spool.usage().blobs == 1


@pytest.mark.parametrize("state", sorted(CLOSED - {JobState.WIPED}))
async def test_a_closed_job_whose_wipe_was_cut_short_is_wiped(tmp_path: Path, state: JobState) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, JobState.RUNNING)
        await services.change(job.id, lambda job: job.to(state))
        assert await reaper.recover(services) == 0
        after, _ = await services.jobs.get(job.id)
        assert (after.state, after.ended_as) == (JobState.WIPED, state)
        assert services.spool.usage().blobs == 0
        assert await services.queue.depth() == 0


async def test_a_song_that_had_arrived_in_full_is_looked_at_though_its_client_never_heard(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        whole = await receive_song(services)
        await services.change(whole.id, _unaware)
        half = await receive_song(services)
        ref = await services.spool.reserve(len(SONG), half.expires_s)
        await services.spool.append(ref, 0, pieces(SONG[:100]), len(SONG))
        await services.change(
            half.id, lambda job: job.with_(input=job.input and job.input.model_copy(update={"ref": ref}))
        )
        await reaper.recover(services)
        await reaper.probe_interrupted(services)
        states = [(await services.jobs.get(job.id)).job.state for job in (whole, half)]
        assert states == [JobState.QUEUED, JobState.RECEIVED]


def _unaware(job: Job) -> Job:
    """As the record is while the upload goes on."""
    assert job.input is not None
    return job.with_(input=job.input.model_copy(update={"size_bytes": 0}), size_bytes=None)


async def test_a_probe_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        good, bad = await spool_song(services), await spool_song(services, b"fault:truncated")
        await reaper.recover(services)
        await reaper.probe_interrupted(services)
        assert (await services.jobs.get(good.id)).job.state is JobState.QUEUED
        failed, _ = await services.jobs.get(bad.id)
        assert failed.error is not None
        assert (failed.ended_as, failed.error["code"]) == (JobState.FAILED, "truncated")


@pytest.mark.parametrize("state", sorted(DONE))
async def test_a_finished_job_stays_as_it_is(tmp_path: Path, state: JobState) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, state)
        await reaper.recover(services)
        assert (await services.jobs.get(job.id)).job == job
        assert services.spool.usage().blobs == 1


async def test_audio_that_no_job_owns_goes_at_the_start(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, JobState.MASTERED)
        await services.spool.reserve(100, 1e9)
        await reaper.recover(services)
        assert services.spool.usage().blobs == 1
        assert await read_all(services, job.outputs[OutputFormat.WAV24].ref) == bytes(1000)


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.WIPED])
async def test_time_ends_a_job_in_any_state_and_not_before(
    tmp_path: Path, state: JobState, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, state)
        monkeypatch.setattr(clock, "now", lambda: job.expires_s - 0.01)
        assert await reaper.sweep(services) == 0
        monkeypatch.setattr(clock, "now", lambda: job.expires_s)
        assert await reaper.sweep(services) == 1
        after, _ = await services.jobs.get(job.id)
        assert after.state is JobState.WIPED
        assert after.ended_as is (state if state in CLOSED else JobState.EXPIRED)
        assert services.spool.usage().blobs == 0
        assert not any((tmp_path / "spool").glob("*/*"))
        assert await reaper.sweep(services) == 0


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
    """A job with its room, of which nothing has come."""
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
        await reaper.sweep(services)
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
        await reaper.sweep(services)
        states = [(await services.jobs.get(job.id)).job.state for job in jobs]
        assert states == [JobState.MASTERED, JobState.WIPED, JobState.WIPED]
        assert services.spool.usage().blobs == 0


async def test_an_upload_that_can_not_be_looked_at_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with services_in(tmp_path) as services:
        jobs = [await spool_song(services) for _ in range(3)]
        real, broken = services.probe.probe, []

        async def probe(*arguments: Any, **more: Any) -> Facts:
            if not broken:
                broken.append(True)
                raise OSError(24, "too many open files")
            return await real(*arguments, **more)

        monkeypatch.setattr(services.probe, "probe", probe)
        await reaper.probe_interrupted(services)
        states = sorted([(await services.jobs.get(job.id)).job.state for job in jobs])
        assert states == [JobState.QUEUED, JobState.QUEUED, JobState.SPOOLED]
        await reaper.probe_interrupted(services)
        assert {(await services.jobs.get(job.id)).job.state for job in jobs} == {JobState.QUEUED}


async def test_an_input_that_vanished_before_its_probe_ends_its_job_honestly(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        lost, kept = await spool_song(services), await spool_song(services)
        assert lost.input is not None
        await services.spool.drop(lost.input.ref)
        await reaper.probe_interrupted(services)
        ended = (await services.jobs.get(lost.id)).job
        assert (ended.state, (ended.error or {})["code"]) == (JobState.WIPED, "gone")
        assert (await services.jobs.get(kept.id)).job.state is JobState.QUEUED
