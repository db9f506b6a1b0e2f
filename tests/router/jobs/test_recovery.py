"""What a start finds left over, in every state a dead router may have left a job in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mastering.contract import Facts, OutputFormat
from router.dispatch.dispatcher import Dispatcher
from router.jobs import recovery
from router.jobs.intake import lane_of
from router.store.record import Attempt, Job
from router.store.state import CLOSED, DONE, JobState
from router.tiers.fake import FakeBackend
from router.web.api.views import view
from tests.router.jobs.test_lifecycle import job_in
from tests.services import (
    SONG,
    mastering,
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
            assert await dead.queue.lease((lane_of("master", managed_only=False),), 0, dead.owner) is not None
            attempt = Attempt(number=1, generation=1, tier="managed", backend="a", reason="Up.", started_s=0.0)
            await dead.change(queued.id, lambda job: job.to(JobState.RUNNING, generation=1, attempts=(attempt,)))
        backend = FakeBackend("a", [mastering()])
        async with services_in(tmp_path, [backend], ram=ram) as services:
            assert await recovery.recover(services) == 1
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
        assert await recovery.recover(services) == 1
        lease = await services.queue.lease((lane_of("master", managed_only=False),), 0, services.owner)
        assert lease is not None
        assert lease.job_id == job.id


async def test_a_job_of_a_kind_that_is_known_no_more_ends_honestly(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        job = await queue_song(services)
        await services.change(job.id, lambda job: job.with_(kind="levels", options={"outputs": ["json"]}))
        assert await recovery.recover(services) == 0
        job, _ = await services.jobs.get(job.id)
        assert (job.state, job.ended_as, (job.error or {})["code"]) == (JobState.WIPED, JobState.FAILED, "input_lost")
        assert services.spool.usage().blobs == 0
        assert (await view(services, job, 1)).kind == "levels"


@pytest.mark.parametrize("state", [JobState.SPOOLED, JobState.QUEUED, JobState.SEALED])
async def test_a_job_of_another_router_is_left_to_it(tmp_path: Path, state: JobState) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, state)
        theirs = await services.change(job.id, lambda job: job.with_(owner="there"))
        assert await recovery.recover(services) == 0
        await recovery.probe_interrupted(services)
        assert (await services.jobs.get(job.id)).job == theirs


async def test_a_sealed_job_loses_its_input_and_can_be_fetched(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, JobState.SEALED)
        await recovery.recover(services)
        after, _ = await services.jobs.get(job.id)
        assert (after.state, after.input) == (JobState.MASTERED, None)
        assert await read_all(services, after.outputs[OutputFormat.WAV24].ref) == bytes(1000)
        assert services.spool.usage().blobs == 1


@pytest.mark.parametrize("state", sorted(CLOSED - {JobState.WIPED}))
async def test_a_closed_job_whose_wipe_was_cut_short_is_wiped(tmp_path: Path, state: JobState) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, JobState.RUNNING)
        await services.change(job.id, lambda job: job.to(state))
        assert await recovery.recover(services) == 0
        after, _ = await services.jobs.get(job.id)
        assert (after.state, after.ended_as) == (JobState.WIPED, state)
        assert services.spool.usage().blobs == 0
        assert await services.queue.depth() == 0


async def test_a_song_that_had_arrived_in_full_is_looked_at_though_its_client_never_heard(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        whole = await receive_song(services)
        await services.change(whole.id, _before_the_last_byte)
        half = await receive_song(services)
        ref = await services.spool.reserve(len(SONG), half.expires_s)
        await services.spool.append(ref, 0, pieces(SONG[:100]), len(SONG))
        await services.change(
            half.id, lambda job: job.with_(input=job.input and job.input.model_copy(update={"ref": ref}))
        )
        await recovery.recover(services)
        await recovery.probe_interrupted(services)
        states = [(await services.jobs.get(job.id)).job.state for job in (whole, half)]
        assert states == [JobState.QUEUED, JobState.RECEIVED]


def _before_the_last_byte(job: Job) -> Job:
    """The record as it is while the upload goes on: its size is not known yet."""
    assert job.input is not None
    return job.with_(input=job.input.model_copy(update={"size_bytes": 0}), size_bytes=None)


async def test_a_probe_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        good, bad = await spool_song(services), await spool_song(services, b"fault:truncated")
        await recovery.recover(services)
        await recovery.probe_interrupted(services)
        assert (await services.jobs.get(good.id)).job.state is JobState.QUEUED
        failed, _ = await services.jobs.get(bad.id)
        assert failed.error is not None
        assert (failed.ended_as, failed.error["code"]) == (JobState.FAILED, "truncated")


@pytest.mark.parametrize("state", sorted(DONE))
async def test_a_finished_job_stays_as_it_is(tmp_path: Path, state: JobState) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, state)
        await recovery.recover(services)
        assert (await services.jobs.get(job.id)).job == job
        assert services.spool.usage().blobs == 1


async def test_audio_that_no_job_owns_goes_at_the_start(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, JobState.MASTERED)
        await services.spool.reserve(100, 1e9)
        await recovery.recover(services)
        assert services.spool.usage().blobs == 1
        assert await read_all(services, job.outputs[OutputFormat.WAV24].ref) == bytes(1000)


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
        await recovery.probe_interrupted(services)
        states = sorted([(await services.jobs.get(job.id)).job.state for job in jobs])
        assert states == [JobState.QUEUED, JobState.QUEUED, JobState.SPOOLED]
        await recovery.probe_interrupted(services)
        assert {(await services.jobs.get(job.id)).job.state for job in jobs} == {JobState.QUEUED}


async def test_an_input_that_vanished_before_its_probe_ends_its_job_honestly(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        lost, kept = await spool_song(services), await spool_song(services)
        assert lost.input is not None
        await services.spool.drop(lost.input.ref)
        await recovery.probe_interrupted(services)
        ended = (await services.jobs.get(lost.id)).job
        assert (ended.state, (ended.error or {})["code"]) == (JobState.WIPED, "gone")
        assert (await services.jobs.get(kept.id)).job.state is JobState.QUEUED
