"""What becomes of an accepted job, whatever its backends do: a verified master or an honest error."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mastering.contract import Fault, FaultCode, OutputFormat, Settings, Stage
from router.core import clock
from router.dispatch import dispatcher
from router.dispatch import dispatcher as dispatcher_module
from router.dispatch.dispatcher import Dispatcher
from router.dispatch.placement import Placer
from router.jobs import attempts, lifecycle, reaper
from router.jobs import attempts as attempts_module
from router.jobs.services import Services
from router.spool.port import BlobGone
from router.store.port import Lease, Owner
from router.store.record import Job
from router.store.state import JobState
from router.tiers.fake import FakeBackend, Hang, Script
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, Finished, OutputStarted, RenderProgress, TierEvent
from tests.services import (
    MASTER,
    SONG,
    eventually,
    mastering,
    probe_of,
    queue_song,
    read_all,
    report,
    services_in,
    until,
    working,
)

ENDS = (JobState.MASTERED, JobState.WIPED)


def fault(kind: FaultClass, **details: Any) -> list[TierFault]:
    return [TierFault(kind, f"scripted {kind}", **details)]


def two(first: Script, second: Script | None = None) -> list[FakeBackend]:
    """Two backends of one tier; the router may begin with either, so the first script is played by whichever it is."""
    scripts = iter([first])

    def play(_: object) -> Any:
        return next(scripts, second or mastering())

    return [FakeBackend("a", [play]), FakeBackend("b", [play])]


def runs(backends: list[FakeBackend]) -> int:
    return sum(len(backend.runs) for backend in backends)


async def assert_nothing_left(services: Services) -> None:
    assert services.spool.usage().blobs == 0
    assert await services.queue.depth() == 0


async def test_a_song_that_is_queued_becomes_a_master_and_its_input_is_gone_by_then(tmp_path: Path) -> None:
    backend = FakeBackend("a", [mastering()])
    async with working(tmp_path, [backend]) as services:
        queued = await queue_song(services)
        job = await until(services, queued.id, *ENDS)
        assert job.state is JobState.MASTERED
        assert backend.received == [SONG]
        assert await read_all(services, job.outputs[OutputFormat.WAV24].ref) == MASTER
        assert job.receipt.input_key_destroyed_at is not None
        assert queued.input is not None
        with pytest.raises(BlobGone):
            await services.spool.extent(queued.input.ref)
        assert [attempt.outcome for attempt in job.attempts] == ["done"]
        assert job.report == report()


async def test_every_format_that_was_asked_for_can_be_read(tmp_path: Path) -> None:
    formats = (OutputFormat.WAV24, OutputFormat.MP3)
    async with working(tmp_path, [FakeBackend("a", [mastering(MASTER, *formats)])]) as services:
        job = await queue_song(services, options=Settings(outputs=formats).model_dump(mode="json"))
        job = await until(services, job.id, *ENDS)
        assert set(job.outputs) == set(formats)
        assert {await read_all(services, blob.ref) for blob in job.outputs.values()} == {MASTER}


@pytest.mark.parametrize("kind", [FaultClass.CRASH, FaultClass.BUG, FaultClass.BAD_OUTPUT])
async def test_after_a_backend_broke_another_one_makes_the_master(tmp_path: Path, kind: FaultClass) -> None:
    backends = two(fault(kind))
    async with working(tmp_path, backends) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert job.state is JobState.MASTERED
        assert [attempt.outcome for attempt in job.attempts] == [kind.value, "done"]
        assert len({attempt.backend for attempt in job.attempts}) == 2
        assert [backend.received for backend in backends] == [[SONG], [SONG]]
        assert job.faults == 1


async def test_a_fault_of_the_song_stops_the_job_and_never_falls_through(tmp_path: Path) -> None:
    backends = [
        FakeBackend("a", [fault(FaultClass.USER, code=FaultCode.UNDECODABLE, numbers={"at_s": 3})]),
        FakeBackend("b", [mastering()]),
        FakeBackend("c", [mastering()], tier="cpu_space"),
    ]
    backends[1].health = backends[1].health._replace(up=False)
    async with working(tmp_path, backends) as services:
        job = await until(services, (await queue_song(services)).id, JobState.WIPED)
        assert job.error is not None
        assert (job.error["code"], job.error["at_s"]) == ("undecodable", 3)
        assert job.ended_as is JobState.FAILED
        assert runs(backends) == 1
        await assert_nothing_left(services)


async def test_a_busy_backend_costs_the_job_nothing(tmp_path: Path) -> None:
    backends = two(fault(FaultClass.CAPACITY))
    async with working(tmp_path, backends) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert job.state is JobState.MASTERED
        assert job.faults == 0


async def test_a_job_that_only_a_busy_backend_could_take_waits_for_it(tmp_path: Path) -> None:
    backend = FakeBackend("a", [fault(FaultClass.CAPACITY, retry_after_s=0.05), mastering()])
    async with working(tmp_path, [backend]) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert job.state is JobState.MASTERED
        assert len(backend.runs) == 2


async def test_a_backend_that_freezes_is_given_up_and_let_go(tmp_path: Path) -> None:
    backends = two([Accepted("scripted"), Hang()])
    for backend in backends:
        backend.silence_s = 0.2
    async with working(tmp_path, backends) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert job.state is JobState.MASTERED
        assert [attempt.outcome for attempt in job.attempts] == ["crash", "done"]
        assert sum(backend.closed_early for backend in backends) == 1


async def test_a_fault_whose_numbers_name_members_of_the_problem_forges_none_and_costs_one_attempt(
    tmp_path: Path,
) -> None:
    numbers = {"code": "ok", "detail": "x", "status": 200, "title": "Fine", "headers": {}, "at_s": 3} | {
        f"n{number}": "x" * 40_000 for number in range(20)
    }
    backend = FakeBackend("a", [fault(FaultClass.USER, code=FaultCode.UNDECODABLE, numbers=numbers)])
    async with working(tmp_path, [backend]) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert (job.ended_as, len(backend.runs)) == (JobState.FAILED, 1)
        error = job.error or {}
        assert (error["code"], error["status"], error["at_s"]) == ("undecodable", 422, 3)
        assert error["title"] != "Fine"
        assert len(json.dumps(error)) < 4000


async def test_a_breakage_of_our_own_is_tried_again_but_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(dispatcher_module, "WAIT_FOR_BACKEND_S", 0.01)
    backend = FakeBackend("a", [mastering()])
    async with working(tmp_path, [backend]) as services:
        monkeypatch.setattr(Dispatcher, "_seal", broken)
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert (job.ended_as, (job.error or {})["code"]) == (JobState.FAILED, "attempts_exhausted")
        assert len(backend.runs) == attempts_module.MAX_FAULTS


BAD_OUTPUTS: dict[str, list[TierEvent]] = {
    "no output at all": [Finished(report())],
    "less than announced": [OutputStarted(OutputFormat.WAV24, 100), b"x" * 99, Finished(report())],
    "more than announced": [OutputStarted(OutputFormat.WAV24, 100), b"x" * 101, Finished(report())],
    "bytes before any output": [b"xxxx", Finished(report())],
    "bytes after the output": [OutputStarted(OutputFormat.WAV24, 4), b"xxxx", b"x", Finished(report())],
    "a format that nobody asked for": [OutputStarted(OutputFormat.MP3, 4), b"xxxx", Finished(report())],
    "the same format twice": [
        *[OutputStarted(OutputFormat.WAV24, 4), b"xxxx"] * 2,
        Finished(report()),
    ],
    "an output of a terabyte": [OutputStarted(OutputFormat.WAV24, 1 << 40), b"x", Finished(report())],
}


@pytest.mark.parametrize("events", BAD_OUTPUTS.values(), ids=BAD_OUTPUTS.keys())
async def test_an_output_that_is_not_as_announced_is_never_delivered(tmp_path: Path, events: list[TierEvent]) -> None:
    async with working(tmp_path, two([Accepted("scripted"), *events])) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert [attempt.outcome for attempt in job.attempts] == ["bad_output", "done"]
        assert await read_all(services, job.outputs[OutputFormat.WAV24].ref) == MASTER
        assert services.spool.usage().blobs == 1


async def test_an_answer_that_ends_before_it_is_finished_is_a_crash(tmp_path: Path) -> None:
    async with working(tmp_path, two([Accepted("scripted"), RenderProgress(Stage.RENDER, 0.5)])) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert [attempt.outcome for attempt in job.attempts] == ["crash", "done"]


async def test_a_master_that_the_probe_refuses_is_a_bad_output_of_its_backend(tmp_path: Path) -> None:
    async with working(tmp_path, two(mastering())) as services:
        probe_of(services).verify_faults.append(Fault(FaultCode.BAD_MASTER, "It is too short."))
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert [attempt.outcome for attempt in job.attempts] == ["bad_output", "done"]
        assert services.spool.usage().blobs == 1


async def test_a_probe_that_breaks_is_blamed_on_no_backend(tmp_path: Path) -> None:
    async with working(tmp_path, two(mastering())) as services:
        probe_of(services).verify_faults.append(Fault(FaultCode.INTERNAL, "The check was interrupted."))
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert [attempt.outcome for attempt in job.attempts] == ["ours", "done"]
        assert job.deaths == 0


async def test_a_bug_of_our_own_repeats_a_job_a_few_times_and_then_fails_it(tmp_path: Path) -> None:
    def broken() -> TierEvent:
        raise ZeroDivisionError

    backends = [FakeBackend(name, [[Accepted("scripted"), broken]]) for name in "abcdef"]
    async with working(tmp_path, backends) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert job.error is not None
        assert job.error["code"] == "attempts_exhausted"
        assert runs(backends) == 4
        await assert_nothing_left(services)


async def test_a_job_during_which_two_backends_died_stops_there(tmp_path: Path) -> None:
    backends = [FakeBackend(name, [fault(FaultClass.CRASH)]) for name in "abc"]
    async with working(tmp_path, backends) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert job.error is not None
        assert job.error["code"] == "poison"
        assert (runs(backends), job.deaths) == (2, 2)
        await assert_nothing_left(services)


async def test_deadline_stops_the_job_with_an_honest_error(tmp_path: Path) -> None:
    backend = FakeBackend("a", [[Accepted("scripted"), Hang()]])
    async with working(tmp_path, [backend], attempt_deadline_s=0.2) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert job.error is not None
        assert job.error["code"] == "deadline"
        assert backend.closed_early == 1
        await assert_nothing_left(services)


async def test_cancelling_a_running_job_frees_its_backend_and_leaves_nothing(tmp_path: Path) -> None:
    sending = asyncio.Event()

    def half() -> bytes:
        sending.set()
        return b"half"

    backend = FakeBackend("a", [[Accepted("scripted"), OutputStarted(OutputFormat.WAV24, 9), half, Hang()]])
    async with working(tmp_path, [backend]) as services:
        queued = await queue_song(services)
        await sending.wait()
        running = await until(services, queued.id, JobState.RUNNING)
        job = await lifecycle.end(services, queued.id, JobState.CANCELLED)
        assert (job.state, job.ended_as) == (JobState.WIPED, JobState.CANCELLED)
        assert running.attempts[0].outcome == "running"
        assert [attempt.outcome for attempt in job.attempts] == ["cancelled"]
        following = await queue_song(services, account="b")
        backend.script_from_now_on(mastering())
        assert (await until(services, following.id, *ENDS)).state is JobState.MASTERED
        assert backend.closed_early == 1
        assert services.spool.usage().blobs == 1


async def test_the_result_of_an_older_generation_changes_nothing(tmp_path: Path) -> None:
    """Somebody else takes the job over while the backend is at work; what it sends then is dropped."""
    gate = asyncio.Event()
    waiting = asyncio.Event()

    class Late(FakeBackend):
        async def run(self, work: Any) -> Any:
            async for event in super().run(work):
                if isinstance(event, Finished):
                    waiting.set()
                    await gate.wait()
                yield event

    async with working(tmp_path, [Late("a", [mastering()])]) as services:
        queued = await queue_song(services)
        await waiting.wait()
        job, revision = await services.jobs.get(queued.id)
        # Written without a notification, so that only the compare-and-set can notice.
        taken = job.with_(generation=job.generation + 1)
        await services.jobs.change(taken, revision)
        gate.set()
        await eventually(lambda: _has_blobs(services, 1))
        assert (await services.jobs.get(queued.id)).job == taken


async def test_the_fault_of_an_older_generation_changes_nothing(tmp_path: Path) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    class Late(FakeBackend):
        async def run(self, work: Any) -> Any:
            started.set()
            await gate.wait()
            async for event in super().run(work):
                yield event

    async with working(tmp_path, [Late("a", [fault(FaultClass.USER, code=FaultCode.UNDECODABLE)])]) as services:
        queued = await queue_song(services)
        await started.wait()
        job, revision = await services.jobs.get(queued.id)
        taken = job.with_(generation=job.generation + 1)
        await services.jobs.change(taken, revision)
        gate.set()
        await eventually(lambda: _has_left_the_queue(services, queued.id))
        assert (await services.jobs.get(queued.id)).job == taken


async def _has_blobs(services: Services, count: int) -> bool:
    return services.spool.usage().blobs == count


async def _has_left_the_queue(services: Services, job_id: str) -> bool:
    """Whether the job has left the queue: to enqueue one that is there, leased or not, has no effect."""
    before = await services.queue.depth()
    await services.queue.enqueue(job_id, "nobody's lane", "nobody", 1)
    added = await services.queue.depth() > before
    if added:
        await services.queue.withdraw(job_id)
    return added


async def test_a_job_whose_upload_vanished_ends_in_an_honest_error(tmp_path: Path) -> None:
    backend = FakeBackend("a", [mastering()])
    backend.health = backend.health._replace(up=False)
    async with working(tmp_path, [backend]) as services:
        queued = await queue_song(services)
        assert queued.input is not None
        await services.spool.drop(queued.input.ref)
        backend.health = backend.health._replace(up=True)
        await services.fleet.probe_all()
        job = await until(services, queued.id, *ENDS)
        assert job.error is not None
        assert job.error["code"] == "input_lost"
        await assert_nothing_left(services)


async def test_a_full_spool_makes_room_for_a_master_by_evicting_the_oldest_finished_one(tmp_path: Path) -> None:
    quota = 2 * len(SONG) + len(MASTER)
    async with working(tmp_path, [FakeBackend("a", [mastering()])], spool_quota_bytes=quota) as services:
        first = await until(services, (await queue_song(services)).id, *ENDS)
        second = await until(services, (await queue_song(services)).id, *ENDS)
        third = await until(services, (await queue_song(services)).id, *ENDS)
        assert (second.state, third.state) == (JobState.MASTERED, JobState.MASTERED)
        assert (await services.jobs.get(first.id)).job.ended_as is JobState.EXPIRED


async def test_a_master_for_which_there_is_no_room_ends_in_an_honest_error(tmp_path: Path) -> None:
    backends = [FakeBackend(name, [mastering()]) for name in "abc"]
    async with working(tmp_path, backends, spool_quota_bytes=len(SONG) + len(MASTER) // 2) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        assert job.error is not None
        assert job.error["code"] == "spool_full"
        assert job.error["needed_bytes"] > job.error["quota_bytes"] == len(SONG) + len(MASTER) // 2
        assert runs(backends) == 1
        await assert_nothing_left(services)


async def test_a_master_for_which_there_is_no_room_yet_waits_for_it_and_blames_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The render was good and had nowhere to go: no attempt is spent, and it is not rendered again for nothing."""
    monkeypatch.setattr(dispatcher, "LONGEST_WAIT_S", 0.01)
    monkeypatch.setattr(dispatcher, "WAIT_FOR_BACKEND_S", 0.01)
    backend = FakeBackend("a", [mastering(), mastering()])
    quota = 2 * len(SONG) + len(MASTER) // 2
    async with working(tmp_path, [backend], spool_quota_bytes=quota) as services:
        other = await services.spool.reserve(17_000, 1e9)  # somebody else's upload
        queued = await queue_song(services)
        await eventually(lambda: _is_waiting_for_room(services, queued.id))
        waiting, _ = await services.jobs.get(queued.id)
        assert (waiting.faults, waiting.deaths) == (0, 0)
        assert services.fleet.members()[0].breaker.state is BackendState.HEALTHY
        await services.spool.drop(other)
        job = await until(services, queued.id, *ENDS)
        assert (job.state, runs([backend])) == (JobState.MASTERED, 2)


async def test_a_small_song_whose_master_is_large_is_not_rendered_again_while_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An MP3's master is ten times as large; with room for another song but not for it, it was rendered in vain."""
    monkeypatch.setattr(dispatcher, "LONGEST_WAIT_S", 0.01)
    monkeypatch.setattr(dispatcher, "WAIT_FOR_BACKEND_S", 0.01)
    backend = FakeBackend("a", [mastering() for _ in range(8)])
    small = SONG[:1000]
    async with working(tmp_path, [backend], spool_quota_bytes=len(small) + len(MASTER) + 5000) as services:
        other = await services.spool.reserve(17_000, 1e9)
        queued = await queue_song(services, small)
        await eventually(lambda: _is_waiting_for_room(services, queued.id))
        assert await Placer(services).place(queued.id, has_waited=True) is None
        await services.spool.drop(other)
        job = await until(services, queued.id, *ENDS)
        assert (job.state, runs([backend])) == (JobState.MASTERED, 2)


async def _is_waiting_for_room(services: Services, job_id: str) -> bool:
    job, _ = await services.jobs.get(job_id)
    return attempts.lacked_spool_space(job) and job.state is JobState.QUEUED


async def test_a_managed_only_job_waits_rather_than_leave_our_own_workers(tmp_path: Path) -> None:
    own, space = FakeBackend("own", [mastering()]), FakeBackend("space", [mastering()], tier="gpu_space")
    own.health = own.health._replace(up=False)
    async with working(tmp_path, [own, space]) as services:
        private = await queue_song(services, managed_only=True)
        anywhere = await until(services, (await queue_song(services, account="b")).id, *ENDS)
        assert anywhere.attempts[0].tier == "gpu_space"
        assert (await services.jobs.get(private.id)).job.state is JobState.QUEUED
        own.health = own.health._replace(up=True)
        await services.fleet.probe_all()
        private = await until(services, private.id, *ENDS)
        assert [attempt.tier for attempt in private.attempts] == ["managed"]
        assert len(space.runs) == 1


async def test_a_job_found_sealed_only_loses_its_input_and_is_not_rendered_again(tmp_path: Path) -> None:
    backend = FakeBackend("a", [mastering()])
    backend.health = backend.health._replace(up=False)
    async with working(tmp_path, [backend]) as services:
        queued = await queue_song(services)
        ref = await services.spool.reserve(4, queued.expires_s)

        def seal(job: Job) -> Job:
            assert job.input is not None
            blob = job.input.model_copy(update={"ref": ref, "size_bytes": 4})
            return job.to(JobState.RUNNING, generation=1).to(JobState.SEALED, outputs={OutputFormat.WAV24: blob})

        await services.change(queued.id, seal)
        backend.health = backend.health._replace(up=True)
        await services.fleet.probe_all()
        job = await until(services, queued.id, *ENDS)
        assert (job.state, job.input, len(backend.runs)) == (JobState.MASTERED, None, 0)


async def test_many_jobs_of_many_accounts_all_end_mastered_though_backends_break(tmp_path: Path) -> None:
    def sometimes(name: str) -> Iterator[Script]:
        count = 0
        while True:
            count += 1
            yield fault(FaultClass.CAPACITY, retry_after_s=0.01) if count % 3 == 0 else mastering()

    backends = []
    for name in "abcd":
        scripts = sometimes(name)
        backends.append(FakeBackend(name, [lambda _, scripts=scripts: next(scripts)]))
    async with working(tmp_path, backends) as services:
        jobs = [await queue_song(services, account=f"account {n % 4}") for n in range(16)]
        ends = [await until(services, job.id, *ENDS) for job in jobs]
        assert {job.state for job in ends} == {JobState.MASTERED}
        assert services.spool.usage().blobs == len(jobs)
        assert await services.queue.depth() == 0


async def test_a_job_is_leased_only_after_its_record_says_that_it_is_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that hands the job to a dispatcher the moment it is offered, as a cluster's may."""
    seen: list[JobState] = []
    async with working(tmp_path, []) as services:
        enqueue = services.queue.enqueue

        async def look(job_id: str, *rest: Any) -> None:
            seen.append((await services.jobs.get(job_id)).job.state)
            await enqueue(job_id, *rest)

        monkeypatch.setattr(services.queue, "enqueue", look)
        await queue_song(services)
    assert seen == [JobState.QUEUED]


async def test_outputs_are_readable_until_the_moment_the_record_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path, [FakeBackend("a", [mastering()])]) as services:
        job = await until(services, (await queue_song(services)).id, *ENDS)
        ref = job.outputs[OutputFormat.WAV24].ref
        monkeypatch.setattr(clock, "now", lambda: job.expires_s - 0.001)
        assert await read_all(services, ref) == MASTER
        monkeypatch.setattr(clock, "now", lambda: job.expires_s)
        with pytest.raises(BlobGone):
            await read_all(services, ref)
        await reaper.expire(services)
        assert services.spool.usage().blobs == 0


async def test_a_store_that_fails_for_a_while_stops_no_dispatcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path, [FakeBackend("a", [mastering()])], concurrency=2) as services:
        real, failures = services.queue.lease, 0

        async def failing(lanes: Sequence[str], wait_s: float, owner: Owner) -> Lease | None:
            nonlocal failures
            if failures < 5:
                failures += 1
                raise sqlite3.OperationalError("database or disk is full")
            return await real(lanes, wait_s, owner)

        monkeypatch.setattr(services.queue, "lease", failing)
        monkeypatch.setattr(dispatcher, "WAIT_FOR_BACKEND_S", 0.01)
        job = await queue_song(services)
        assert (await until(services, job.id, JobState.MASTERED)).state is JobState.MASTERED
        assert failures == 5


async def test_the_times_on_a_record_are_by_the_services_clock(tmp_path: Path) -> None:
    """Not by this machine's, of which every router of a service has another."""

    class Shared(clock.MachineClock):
        def now(self) -> float:
            return super().now() + 1000.0

    async with services_in(tmp_path, two(mastering())) as alone:
        services = alone._replace(clock=Shared())
        dispatcher = Dispatcher(services)
        await services.fleet.start()
        began_s = services.clock.now()
        job = await queue_song(services)
        await dispatcher.start()
        try:
            job = await until(services, job.id, *ENDS)
        finally:
            await dispatcher.close()
        (attempt,) = job.attempts
        assert attempt.ended_s is not None
        assert began_s <= attempt.started_s <= attempt.ended_s <= services.clock.now()
        assert job.expires_s >= began_s + services.settings.output_ttl_s
