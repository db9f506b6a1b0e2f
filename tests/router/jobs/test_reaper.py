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
from router.jobs.services import House
from router.store.record import Attempt, BlobRef, Job
from router.store.state import CLOSED, DONE, State
from router.tiers.fake import FakeBackend
from tests.houses import (
    SONG,
    house_of,
    mastering,
    new_job,
    pieces,
    queue_song,
    ram_folder,
    read_all,
    receive_song,
    spool_song,
    until,
)
from tests.router.jobs.test_lifecycle import job_in


async def test_a_job_that_was_running_is_queued_again_and_costs_none_of_its_budget(tmp_path: Path) -> None:
    with ram_folder() as ram:
        async with house_of(tmp_path, ram=ram) as dead:
            queued = await queue_song(dead)
            assert await dead.queue.lease(("any",), 0) is not None
            attempt = Attempt(number=1, generation=1, tier="managed", backend="a", reason="Up.", started_s=0.0)
            await dead.change(queued.id, lambda job: job.to(State.RUNNING, generation=1, attempts=(attempt,)))
        backend = FakeBackend("a", [mastering()])
        async with house_of(tmp_path, [backend], ram=ram) as house:
            assert await reaper.recover(house) == 1
            job, _ = await house.jobs.get(queued.id)
            assert (job.state, job.generation, job.faults, job.deaths) == (State.QUEUED, 1, 0, 0)
            assert [each.outcome for each in job.attempts] == ["interrupted"]
            dispatcher = Dispatcher(house)
            await house.fleet.start()
            await dispatcher.start()
            job = await until(house, queued.id, State.MASTERED, State.WIPED)
            await dispatcher.close()
            assert (job.state, job.generation) == (State.MASTERED, 2)
            assert [each.outcome for each in job.attempts] == ["interrupted", "done"]
            assert backend.received == [SONG]


async def test_a_queued_job_that_never_came_in_line_is_put_there(tmp_path: Path) -> None:
    async with house_of(tmp_path) as house:
        job = await queue_song(house)
        await house.queue.withdraw(job.id)
        assert await reaper.recover(house) == 1
        lease = await house.queue.lease(("any",), 0)
        assert lease is not None
        assert lease.job_id == job.id


async def test_a_sealed_job_loses_its_input_and_can_be_fetched(tmp_path: Path) -> None:
    async with house_of(tmp_path) as house:
        job = await job_in(house, State.SEALED)
        await reaper.recover(house)
        after, _ = await house.jobs.get(job.id)
        assert (after.state, after.input) == (State.MASTERED, None)
        assert await read_all(house, after.outputs[OutputFormat.WAV24].ref) == bytes(1000)
        assert house.spool.usage().blobs == 1


@pytest.mark.parametrize("state", sorted(CLOSED - {State.WIPED}))
async def test_a_closed_job_whose_wipe_was_cut_short_is_wiped(tmp_path: Path, state: State) -> None:
    async with house_of(tmp_path) as house:
        job = await job_in(house, State.RUNNING)
        await house.change(job.id, lambda job: job.to(state))
        assert await reaper.recover(house) == 0
        after, _ = await house.jobs.get(job.id)
        assert (after.state, after.ended_as) == (State.WIPED, state)
        assert house.spool.usage().blobs == 0
        assert await house.queue.depth() == 0


async def test_a_song_that_had_arrived_in_full_is_looked_at_though_its_client_never_heard(tmp_path: Path) -> None:
    async with house_of(tmp_path) as house:
        whole = await receive_song(house)
        await house.change(whole.id, _unaware)
        half = await receive_song(house)
        ref = await house.spool.reserve(len(SONG), half.expires_s)
        await house.spool.append(ref, 0, pieces(SONG[:100]), len(SONG))
        await house.change(
            half.id, lambda job: job.with_(input=job.input and job.input.model_copy(update={"ref": ref}))
        )
        await reaper.recover(house)
        await reaper.probe_interrupted(house)
        states = [(await house.jobs.get(job.id)).job.state for job in (whole, half)]
        assert states == [State.QUEUED, State.RECEIVED]


def _unaware(job: Job) -> Job:
    """As the record is while the upload goes on."""
    assert job.input is not None
    return job.with_(input=job.input.model_copy(update={"size_bytes": 0}), size_bytes=None)


async def test_a_probe_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    async with house_of(tmp_path) as house:
        good, bad = await spool_song(house), await spool_song(house, b"fault:truncated")
        await reaper.recover(house)
        await reaper.probe_interrupted(house)
        assert (await house.jobs.get(good.id)).job.state is State.QUEUED
        failed, _ = await house.jobs.get(bad.id)
        assert failed.error is not None
        assert (failed.ended_as, failed.error["code"]) == (State.FAILED, "truncated")


@pytest.mark.parametrize("state", sorted(DONE))
async def test_a_finished_job_stays_as_it_is(tmp_path: Path, state: State) -> None:
    async with house_of(tmp_path) as house:
        job = await job_in(house, state)
        await reaper.recover(house)
        assert (await house.jobs.get(job.id)).job == job
        assert house.spool.usage().blobs == 1


async def test_audio_that_no_job_owns_goes_at_the_start(tmp_path: Path) -> None:
    async with house_of(tmp_path) as house:
        job = await job_in(house, State.MASTERED)
        await house.spool.reserve(100, 1e9)
        await reaper.recover(house)
        assert house.spool.usage().blobs == 1
        assert await read_all(house, job.outputs[OutputFormat.WAV24].ref) == bytes(1000)


@pytest.mark.parametrize("state", [state for state in State if state is not State.WIPED])
async def test_time_ends_a_job_in_any_state_and_not_before(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house_of(tmp_path) as house:
        job = await job_in(house, state)
        monkeypatch.setattr(clock, "now", lambda: job.expires_s - 0.01)
        assert await reaper.sweep(house) == 0
        monkeypatch.setattr(clock, "now", lambda: job.expires_s)
        assert await reaper.sweep(house) == 1
        after, _ = await house.jobs.get(job.id)
        assert after.state is State.WIPED
        assert after.ended_as is (state if state in CLOSED else State.EXPIRED)
        assert house.spool.usage().blobs == 0
        assert not any((tmp_path / "spool").glob("*/*"))
        assert await reaper.sweep(house) == 0


async def test_a_job_of_which_nothing_came_gives_its_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house_of(tmp_path) as house:
        now = clock.now()
        silent, begun, referred, taking = [await reserved_job(house) for _ in range(4)]
        await house.spool.append(ref_of(begun), 0, pieces(b"a few bytes"), None)
        other = BlobRef(ref=await house.spool.reserve(100, 1e9), size_bytes=100)
        await house.change(referred.id, lambda job: job.with_(references={1: other}))
        began, may_end = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"less than a record"
            began.set()
            await may_end.wait()

        upload = asyncio.create_task(house.spool.append(ref_of(taking), 0, slowly(), None))
        await began.wait()
        monkeypatch.setattr(clock, "now", lambda: now + house.settings.unsent_ttl_s - 1)
        assert await reaper.end_unsent(house) == 0
        monkeypatch.setattr(clock, "now", lambda: now + house.settings.unsent_ttl_s + 1)
        assert await reaper.end_unsent(house) == 1
        ended, _ = await house.jobs.get(silent.id)
        assert (ended.state, ended.ended_as) == (State.WIPED, State.EXPIRED)
        assert ended.error is not None
        assert "10 minutes" in ended.error["detail"]
        may_end.set()
        await upload


async def reserved_job(house: House) -> Job:
    """A job with its room, of which nothing has come."""
    job = new_job(house)
    job = job.with_(input=BlobRef(ref=await house.spool.reserve(1000, job.expires_s), size_bytes=0))
    await house.jobs.create(job, 3600)
    return job


def ref_of(job: Job) -> str:
    assert job.input is not None
    return job.input.ref


async def test_a_blob_goes_at_its_time_though_its_record_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house_of(tmp_path) as house:
        job = await job_in(house, State.MASTERED)
        await house.jobs.forget(job.id)
        monkeypatch.setattr(clock, "now", lambda: job.expires_s)
        await reaper.sweep(house)
        assert house.spool.usage().blobs == 0


async def test_a_job_that_can_not_be_closed_does_not_keep_the_others_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house_of(tmp_path) as house:
        jobs = [await job_in(house, State.MASTERED) for _ in range(3)]
        end = lifecycle.end

        async def broken_for_one(house: object, job_id: str, *rest: object) -> object:
            if job_id == jobs[0].id:
                raise ZeroDivisionError
            return await end(house, job_id, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(lifecycle, "end", broken_for_one)
        monkeypatch.setattr(clock, "now", lambda: jobs[0].expires_s + 1)
        await reaper.sweep(house)
        states = [(await house.jobs.get(job.id)).job.state for job in jobs]
        assert states == [State.MASTERED, State.WIPED, State.WIPED]
        assert house.spool.usage().blobs == 0


async def test_an_upload_that_can_not_be_looked_at_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house_of(tmp_path) as house:
        jobs = [await spool_song(house) for _ in range(3)]
        real, broken = house.probe.probe, []

        async def probe(*arguments: Any, **more: Any) -> Facts:
            if not broken:
                broken.append(True)
                raise OSError(24, "too many open files")
            return await real(*arguments, **more)

        monkeypatch.setattr(house.probe, "probe", probe)
        await reaper.probe_interrupted(house)
        states = sorted([(await house.jobs.get(job.id)).job.state for job in jobs])
        assert states == [State.QUEUED, State.QUEUED, State.SPOOLED]
        await reaper.probe_interrupted(house)
        assert {(await house.jobs.get(job.id)).job.state for job in jobs} == {State.QUEUED}


async def test_an_input_that_vanished_before_its_probe_ends_its_job_honestly(tmp_path: Path) -> None:
    async with house_of(tmp_path) as house:
        lost, kept = await spool_song(house), await spool_song(house)
        assert lost.input is not None
        await house.spool.drop(lost.input.ref)
        await reaper.probe_interrupted(house)
        ended = (await house.jobs.get(lost.id)).job
        assert (ended.state, (ended.error or {})["code"]) == (State.WIPED, "gone")
        assert (await house.jobs.get(kept.id)).job.state is State.QUEUED
