"""How jobs end: keys are destroyed before anybody can see the end, and receipts say when."""

from __future__ import annotations

from pathlib import Path

import pytest

from mastering.contract import OutputFormat, Traces
from router.core.errors import Problem
from router.jobs import lifecycle
from router.jobs.intake import lane_of
from router.jobs.services import Services
from router.spool.port import BlobGone
from router.store.port import JobMissing
from router.store.record import BlobRef, Job
from router.store.state import ACTIVE, DONE, JobState
from tests.services import new_job, pieces, report, services_in

OPEN = sorted(ACTIVE | DONE)


async def job_in(
    services: Services, state: JobState, size: int = 1000, traces: Traces | None = None, **changes: object
) -> Job:
    """A job in `state` with the audio that a job in that state has."""
    job = new_job(services, state=state, **changes)
    has_input = state in ACTIVE
    has_output = state in DONE or state is JobState.SEALED
    if has_input:
        job = job.with_(input=await stored(services, job, size))
    if has_output:
        made = {**report(), "traces": traces and traces.model_dump(mode="json")}
        job = job.with_(outputs={OutputFormat.WAV24: await stored(services, job, size)}, report=made)
    await services.jobs.create(job, 3600)
    if state in (JobState.QUEUED, JobState.RUNNING):
        await services.queue.enqueue(job.id, lane_of("master", managed_only=False), job.account, 1)
    return job


async def stored(services: Services, job: Job, size: int) -> BlobRef:
    ref = await services.spool.reserve(size, job.expires_s)
    await services.spool.append(ref, 0, pieces(bytes(size)), size)
    return BlobRef(ref=ref, size_bytes=size)


async def assert_gone(services: Services, blob: BlobRef | None) -> None:
    if blob is not None:
        with pytest.raises(BlobGone):
            await services.spool.extent(blob.ref)


@pytest.mark.parametrize("state", OPEN)
@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED])
async def test_a_job_that_ends_leaves_no_audio_and_a_receipt(tmp_path: Path, state: JobState, end: JobState) -> None:
    async with services_in(tmp_path) as services:
        before = await job_in(services, state)
        after = await lifecycle.end(services, before.id, end, Problem("gone"))
        await assert_gone(services, before.input)
        if end is JobState.FAILED and state in (*DONE, JobState.SEALED):
            # A master was made: the job can't fail any more, and nothing of the master is touched.
            assert after.state in DONE
            assert (await services.spool.extent(after.outputs[OutputFormat.WAV24].ref)).complete
            return
        assert (after.state, after.ended_as) == (JobState.WIPED, end)
        assert (after.input, after.outputs, after.references) == (None, {}, {})
        assert services.spool.usage().blobs == 0
        assert await services.queue.depth() == 0
        if before.input:
            assert after.receipt.input_key_destroyed_at is not None
        if before.outputs:
            assert after.receipt.outputs_key_destroyed_at is not None


async def test_how_the_song_went_from_second_to_second_goes_with_its_master(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        course = Traces(
            step_s=1, loudness_before_lufs=(-20.0,), loudness_after_lufs=(-14.0,), gain_reduction_db=(-1.0,)
        )
        job = await job_in(services, JobState.MASTERED, traces=course)
        assert job.report == {**report(), "traces": course.model_dump(mode="json")}
        assert (await lifecycle.end(services, job.id, JobState.EXPIRED)).report == report()


@pytest.mark.parametrize("state", OPEN)
async def test_ending_a_job_again_changes_neither_its_end_nor_its_receipt(tmp_path: Path, state: JobState) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, state)
        first = await lifecycle.end(services, job.id, JobState.EXPIRED)
        assert await lifecycle.end(services, job.id, JobState.CANCELLED, Problem("cancelled")) == first


async def test_ending_what_is_not_there_is_missing(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        with pytest.raises(JobMissing):
            await lifecycle.end(services, "nothing", JobState.CANCELLED)


async def test_a_failure_of_an_older_generation_ends_nothing(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, JobState.RUNNING, generation=5)
        kept = await lifecycle.end(services, job.id, JobState.FAILED, Problem("deadline"), generation=4)
        assert (kept.state, kept.error) == (JobState.RUNNING, None)
        assert job.input is not None
        assert (await services.spool.extent(job.input.ref)).complete
        ended = await lifecycle.end(services, job.id, JobState.FAILED, Problem("deadline"), generation=5)
        assert ended.state is JobState.WIPED


async def test_nobody_sees_a_closed_state_before_the_keys_are_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When each key is destroyed, people are still shown a state before the end."""
    from router.web.api.views import shown_state

    async with services_in(tmp_path) as services:
        job = await job_in(services, JobState.SEALED)
        seen: list[str] = []
        drop = services.spool.drop

        async def watched(ref: str) -> None:
            seen.append(shown_state((await services.jobs.get(job.id)).job))
            await drop(ref)

        monkeypatch.setattr(services.spool, "drop", watched)
        await lifecycle.finish_sealed(services, job.id)
        await lifecycle.end(services, job.id, JobState.CANCELLED)
        assert seen == ["sealed", "ending"]


async def test_finishing_a_sealed_job_may_be_repeated(tmp_path: Path) -> None:
    async with services_in(tmp_path) as services:
        job = await job_in(services, JobState.SEALED)
        first = await lifecycle.finish_sealed(services, job.id)
        assert (first.state, first.input) == (JobState.MASTERED, None)
        assert await lifecycle.finish_sealed(services, job.id) == first
        await assert_gone(services, job.input)
