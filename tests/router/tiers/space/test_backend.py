"""The router's adapter against real Gradio servers that misbehave: the right class, no hang, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from mastering.contract import ENGINE_VERSION, Facts, FaultCode, OutputFormat, Settings
from mastering.protocol.frames import PROTOCOL_VERSION
from mastering.runtime import child_process
from router.tiers.in_memory import audio_source_of
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, Finished, Heartbeat, OutputStarted, RenderProgress, TierEvent, Work
from router.tiers.space.address import SpaceAddress
from router.tiers.space.backend import SpaceBackend
from router.tiers.space.cleanup import PendingDeletions
from tests.processes import children as children_of
from tests.rough_space import RoughSpace, rough_space
from tests.services import PATIENCE_S, eventually, ram_folder, report
from tests.stack import free_port
from tests.warm_children import start_new_program

pytestmark = pytest.mark.usefixtures("warm_space_calls")

AUDIO = os.urandom(300_000)


@pytest.fixture(scope="module")
def running() -> Iterator[RoughSpace]:
    with rough_space() as space:
        yield space


@pytest.fixture
def space(running: RoughSpace) -> RoughSpace:
    running.behave(forget=True)
    return running


@pytest.fixture
async def backend(space: RoughSpace) -> AsyncIterator[SpaceBackend]:
    async with backend_of(space.url) as backend:
        yield backend


class backend_of:
    """A backend in a RAM folder of its own, which is empty of calls and of pending deletions when it ends."""

    def __init__(self, url: str, key: str | None = None, token: str | None = None) -> None:
        self._folder = ram_folder()
        self.ram = Path(self._folder.name)
        self._backend = SpaceBackend("s", "cpu_space", SpaceAddress(url, token=token), self.ram, key)

    async def __aenter__(self) -> SpaceBackend:
        return self._backend

    async def __aexit__(self, *_: object) -> None:
        await self._backend.close()
        left = list((self.ram / "s" / "calls").glob("*"))
        self._folder.cleanup()
        assert left == []


def work(**changes: Any) -> Work:
    facts = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=1, duration_s=10.0, lossy=False)
    settings = changes.pop("settings", Settings())
    asked = Work(options=settings, facts=facts, audio=audio_source_of(AUDIO), deadline_s=60.0)
    return asked._replace(**changes)


async def all_of(backend: SpaceBackend, asked: Work | None = None) -> list[TierEvent]:
    async with asyncio.timeout(PATIENCE_S * 2):
        return [event async for event in backend.run(asked or work())]


async def fault_of(backend: SpaceBackend, asked: Work | None = None) -> TierFault:
    with pytest.raises(TierFault) as caught:
        await all_of(backend, asked)
    return caught.value


async def until_empty(space: RoughSpace) -> None:
    async def empty() -> bool:
        return not (await asyncio.to_thread(space.held))

    await eventually(empty)


async def test_a_song_goes_out_and_every_output_comes_back_with_the_report(
    backend: SpaceBackend, space: RoughSpace
) -> None:
    settings = Settings(outputs=(OutputFormat.WAV24, OutputFormat.FLAC))
    events = await all_of(backend, work(settings=settings))
    assert events[0] == Accepted("rough")
    assert any(isinstance(event, RenderProgress) for event in events)
    assert [event.name for event in events if isinstance(event, OutputStarted)] == list(settings.outputs)
    assert b"".join(event for event in events if isinstance(event, bytes)) == AUDIO * 2
    assert events[-1] == Finished(report())
    await until_empty(space)


async def test_references_travel_beside_the_song(backend: SpaceBackend, space: RoughSpace) -> None:
    await all_of(backend, work(references=(audio_source_of(AUDIO), audio_source_of(AUDIO))))
    puts = [one["path"].rpartition("/jobs/")[2][33:] for one in space.saw()["seen"] if one["method"] == "PUT"]
    assert puts == ["audio", "references/0", "references/1"]


async def test_the_song_is_streamed_and_its_id_is_drawn_at_random(backend: SpaceBackend, space: RoughSpace) -> None:
    await all_of(backend)
    await all_of(backend)
    puts = [one for one in space.saw()["seen"] if one["method"] == "PUT"]
    assert [one["headers"]["content-length"] for one in puts] == [str(len(AUDIO))] * 2
    ids = {one["path"].split("/")[3] for one in puts}
    assert len(ids) == 2
    assert all(len(job_id) == 32 for job_id in ids)


async def test_health_is_what_the_space_says(backend: SpaceBackend, space: RoughSpace) -> None:
    health = await backend.probe()
    assert (health.up, health.slots, health.free, health.device) == (True, 2, 2, "rough")
    assert (health.max_bytes, health.max_duration_s, health.engine_version) == (10**9, 5400, ENGINE_VERSION)
    space.behave(health={"protocol": PROTOCOL_VERSION + 1})
    assert not (await backend.probe()).up
    space.behave(health={"state": "draining"})
    assert (await backend.probe()).reported_state == "draining"


TITLES = {
    "ZeroGPU quota exceeded": FaultClass.QUOTA,
    "ZeroGPU pending credits exceeded": FaultClass.QUOTA,
    "ZeroGPU illegal duration": FaultClass.TOO_BIG,
    "ZeroGPU queue timeout": FaultClass.CAPACITY,
    "ZeroGPU client error": FaultClass.CAPACITY,
    "ZeroGPU worker error": FaultClass.BUG,
}


@pytest.mark.parametrize(("title", "expected"), TITLES.items())
async def test_an_error_of_zero_gpu_arrives_with_its_title(
    title: str, expected: FaultClass, backend: SpaceBackend, space: RoughSpace
) -> None:
    space.behave(master="title", title=title, message="… Try again in 0:10:00.")
    fault = await fault_of(backend)
    assert (fault.fault_class, fault.detail) == (expected, title)
    rests = {FaultClass.QUOTA: 60.0, FaultClass.CAPACITY: 60.0}
    assert fault.retry_after_s == (600.0 if title == "ZeroGPU quota exceeded" else rests.get(expected))
    await until_empty(space)


PAGE = [200, {"content-type": "text/html"}, "<html>This Space is waking up</html>"]
MISBEHAVIOURS: dict[str, tuple[dict[str, Any], FaultClass]] = {
    "a bug in the function": ({"master": "raise"}, FaultClass.BUG),
    "garbage": ({"master": "garbage"}, FaultClass.BUG),
    "the song's fault": ({"master": "fault", "code": "silent"}, FaultClass.USER),
    "too long for it": ({"master": "fault", "code": "too_long"}, FaultClass.TOO_BIG),
    "out of memory": ({"master": "fault", "code": "out_of_memory"}, FaultClass.BUG),
    "a wrong checksum": ({"bad_checksum": True}, FaultClass.BAD_OUTPUT),
    "a master that is too short": ({"size_off": 7}, FaultClass.BAD_OUTPUT),
    "a master that is too long": ({"size_off": -7}, FaultClass.BAD_OUTPUT),
    "a page instead of its health": ({"answers": {"/v1/health": PAGE}}, FaultClass.UNREACHABLE),
    "a page instead of Gradio": ({"answers": {"/config": PAGE}}, FaultClass.BUG),
    "a page instead of the event": ({"answers": {"/gradio_api/queue/join": PAGE}}, FaultClass.BUG),
    "a page instead of the stream": ({"answers": {"/gradio_api/queue/data": PAGE}}, FaultClass.CRASH),
    "429 for the call": ({"answers": {"/gradio_api/queue/join": [429, {}, ""]}}, FaultClass.CAPACITY),
    "503 for the call": ({"answers": {"/gradio_api/queue/join": [503, {}, ""]}}, FaultClass.CAPACITY),
    "429 for the configuration": ({"answers": {"/config": [429, {}, ""]}}, FaultClass.CAPACITY),
    "503 for the configuration": ({"answers": {"/config": [503, {}, ""], "/$": [503, {}, ""]}}, FaultClass.CAPACITY),
    "500 for the configuration": ({"answers": {"/config": [500, {}, ""], "/$": [500, {}, ""]}}, FaultClass.BUG),
    "502 in its health": ({"answers": {"/v1/health": [502, {}, ""]}}, FaultClass.UNREACHABLE),
    "401": ({"answers": {"/v1/health": [401, {}, ""]}}, FaultClass.CONFIGURATION),
    "404": ({"answers": {"/v1/health": [404, {}, ""]}}, FaultClass.CONFIGURATION),
    "the master gone": ({"answers": {"/v1/jobs/": [404, {}, ""]}}, FaultClass.CONFIGURATION),
}


@pytest.mark.parametrize(("behaviour", "expected"), MISBEHAVIOURS.values(), ids=MISBEHAVIOURS)
async def test_a_misbehaving_space_is_told_from_the_others(
    behaviour: dict[str, Any], expected: FaultClass, backend: SpaceBackend, space: RoughSpace
) -> None:
    space.behave(**behaviour)
    fault = await fault_of(backend)
    assert fault.fault_class is expected
    assert "/home" not in fault.detail
    space.behave()
    assert isinstance((await all_of(backend))[-1], Finished)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("path", ["/v1/health", "/v1/jobs/"])
async def test_a_busy_space_says_when_to_come_again(
    status: int, path: str, backend: SpaceBackend, space: RoughSpace
) -> None:
    space.behave(answers={path: [status, {"retry-after": "7"}, ""]})
    fault = await fault_of(backend)
    assert (fault.fault_class, fault.retry_after_s) == (FaultClass.CAPACITY, 7.0)


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ({"slots": {"total": 1, "free": 0}}, FaultClass.CAPACITY),
        ({"state": "draining"}, FaultClass.CAPACITY),
        ({"max_bytes": 1000}, FaultClass.TOO_BIG),
        ({"max_duration_s": 5}, FaultClass.TOO_BIG),
        ({"slots": None}, FaultClass.UNREACHABLE),
    ],
)
async def test_what_a_small_question_refuses_costs_no_upload(
    health: dict[str, Any], expected: FaultClass, backend: SpaceBackend, space: RoughSpace
) -> None:
    space.behave(health=health)
    assert (await fault_of(backend)).fault_class is expected
    assert [one["method"] for one in space.saw()["seen"]] == ["GET"]


async def test_nobody_there_is_unreachable_and_spends_no_attempt() -> None:
    async with backend_of(f"http://127.0.0.1:{free_port()}") as backend:
        fault = await fault_of(backend)
        assert not (await backend.probe()).up
    assert (fault.fault_class, fault.consequence.spends) == (FaultClass.UNREACHABLE, False)


async def accepted(events: AsyncIterator[TierEvent]) -> None:
    async with asyncio.timeout(PATIENCE_S * 2):
        async for event in events:
            if isinstance(event, Heartbeat):
                return
    raise AssertionError("it ended before it was at work")


async def test_a_space_that_freezes_in_a_render_is_given_up_and_leaves_no_child() -> None:
    with rough_space() as space:
        space.behave(master="slow")
        async with backend_of(space.url) as backend:
            backend.silence_s = 5.0  # of 35: long enough that the start is no silence
            async with aclosing(backend.run(work())) as events:
                await accepted(events)
                space.send(signal.SIGSTOP)
                with pytest.raises(TierFault) as caught:
                    async for _ in events:
                        pass
            assert caught.value.fault_class is FaultClass.CRASH
            assert children() == []
            space.send(signal.SIGCONT)
            space.behave()
            await backend.probe()  # deletes what could not be deleted while it was frozen
            await until_empty(space)


async def test_a_space_that_is_killed_in_a_render_is_a_crash() -> None:
    with rough_space() as space:
        space.behave(master="slow")
        async with backend_of(space.url) as backend, aclosing(backend.run(work())) as events:
            await accepted(events)
            space.stop()
            with pytest.raises(TierFault) as caught:
                async for _ in events:
                    pass
        assert caught.value.fault_class is FaultClass.CRASH
        assert children() == []


async def test_cancelling_a_running_job_stops_it_and_leaves_its_sibling_alone(
    backend: SpaceBackend, space: RoughSpace
) -> None:
    space.behave(master="slow")
    sibling = asyncio.create_task(all_of(backend))
    async with aclosing(backend.run(work())) as events:
        await accepted(events)
        await eventually_rendering(space, 2)
    await eventually_rendering(space, 1)
    assert not sibling.done()
    assert len(await asyncio.to_thread(space.held)) == 1
    how = space.saw()
    assert how["rendering"] == 1
    await asyncio.to_thread(space.behave)
    assert isinstance((await sibling)[-1], Finished)
    await until_empty(space)


async def test_cancelling_a_job_in_the_spaces_queue_takes_it_out_and_harms_nobody(
    backend: SpaceBackend, space: RoughSpace
) -> None:
    space.behave(master="slow")
    running = [asyncio.create_task(all_of(backend)) for _ in range(2)]  # as many as the Space renders at once
    await eventually_rendering(space, 2)
    queued = asyncio.create_task(all_of(backend))

    async def third_is_there() -> bool:
        return len(await asyncio.to_thread(space.held)) == 3

    await eventually(third_is_there)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued

    async def gone() -> bool:
        return len(await asyncio.to_thread(space.held)) == 2

    await eventually(gone)
    await asyncio.to_thread(space.behave)
    assert [isinstance(events[-1], Finished) for events in await asyncio.gather(*running)] == [True, True]
    assert space.saw()["ended"] == ["ended", "ended"]
    await until_empty(space)


async def test_a_queue_that_does_not_move_is_no_crash(
    backend: SpaceBackend, space: RoughSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.behave(master="slow")
    running = [asyncio.create_task(all_of(backend)) for _ in range(2)]
    await eventually_rendering(space, 2)
    monkeypatch.setattr("router.tiers.space.backend.QUEUE_S", 0.0)
    assert (await fault_of(backend)).fault_class is FaultClass.CAPACITY
    await asyncio.to_thread(space.behave)
    await asyncio.gather(*running)


async def test_two_identical_songs_at_once_are_two_jobs(backend: SpaceBackend, space: RoughSpace) -> None:
    both = await asyncio.gather(all_of(backend), all_of(backend))
    assert [b"".join(e for e in events if isinstance(e, bytes)) == AUDIO for events in both] == [True, True]
    await until_empty(space)


async def test_a_router_that_was_killed_pays_its_debts_with_the_first_answer(space: RoughSpace) -> None:
    space.behave(master="slow")
    with ram_folder() as ram:
        dead = SpaceBackend("s", "cpu_space", SpaceAddress(space.url), Path(ram))
        events = dead.run(work())
        await accepted(events)
        assert len(await asyncio.to_thread(space.held)) == 1
        # What a kill leaves: the note in RAM, and nothing in this process that would clean up.
        notes = list((Path(ram) / "s" / "jobs").iterdir())
        assert [note.stat().st_size for note in notes] == [0]
        risen = SpaceBackend("s", "cpu_space", SpaceAddress(space.url), Path(ram))
        assert (await risen.probe()).up
        await until_empty(space)
        await events.aclose()
        await dead.close()
        await risen.probe()
        await risen.close()
        assert PendingDeletions(Path(ram) / "s" / "jobs").due() == []


async def test_a_key_and_a_token_go_to_every_address_and_to_the_call(space: RoughSpace) -> None:
    async with backend_of(space.url, key="the-key", token="hf_secret") as backend:
        await all_of(backend)
    seen = space.saw()["seen"]
    ours = [one for one in seen if one["path"].startswith("/v1/")]
    assert {one["headers"].get("x-mastering-key") for one in seen} == {"the-key"}
    assert {one["headers"].get("authorization") for one in ours} == {"Bearer hf_secret"}
    calls = [one for one in seen if one["path"].endswith("/queue/join")]
    assert [one["headers"].get("x-hf-authorization") for one in calls] == ["Bearer hf_secret"]


async def test_without_a_token_none_is_found_on_this_machine(
    backend: SpaceBackend, space: RoughSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    await all_of(backend)
    assert not any("hf_of_somebody" in str(one["headers"]) for one in space.saw()["seen"])


async def test_no_secret_stands_in_the_childs_command_line_or_environment(
    space: RoughSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "start", start_new_program)
    space.behave(master="slow")
    async with (
        backend_of(space.url, key="the-key", token="hf_secret") as backend,
        aclosing(backend.run(work())) as events,
    ):
        await accepted(events)
        (child,) = children()
        shown = (child / "cmdline").read_bytes() + (child / "environ").read_bytes()
    assert b"router.tiers.space.child" in shown
    assert b"hf_secret" not in shown
    assert b"the-key" not in shown


async def test_many_jobs_leave_no_thread_no_descriptor_and_no_file_on_either_side(
    backend: SpaceBackend, space: RoughSpace
) -> None:
    await all_of(backend)  # what stays for good is there after the first
    before, ours = space.saw(), descriptors()
    for _ in range(3):
        await asyncio.gather(all_of(backend), all_of(backend))
    await until_empty(space)

    async def settled() -> bool:
        after = await asyncio.to_thread(space.saw)
        return bool(after["fds"] <= before["fds"] + 4 and after["threads"] <= before["threads"] + 4)

    await eventually(settled)
    assert children() == []
    assert descriptors() <= ours + 4
    assert space.files() == []


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> list[Path]:
    """The call processes that this process has now."""
    found = []
    for pid in children_of(os.getpid()):
        with suppress(OSError):
            if b"router.tiers.space.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(Path(f"/proc/{pid}"))
    return found


async def eventually_rendering(space: RoughSpace, count: int) -> None:
    async def holds() -> bool:
        return bool((await asyncio.to_thread(space.saw))["rendering"] == count)

    await eventually(holds)


async def test_the_fault_code_of_the_engine_is_kept(backend: SpaceBackend, space: RoughSpace) -> None:
    space.behave(master="fault", code="truncated")
    assert (await fault_of(backend)).code is FaultCode.TRUNCATED


async def test_a_space_that_names_another_host_is_not_followed_there(backend: SpaceBackend, space: RoughSpace) -> None:
    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(await reader.readline())
        writer.close()

    met: list[bytes] = []
    server = await asyncio.start_server(nobody, "127.0.0.1", 0)
    elsewhere = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    config = json.dumps({"api_prefix": elsewhere, "dependencies": [], "components": []})
    space.behave(answers={"/config": [200, {"content-type": "application/json"}, config]})
    fault = await fault_of(backend)
    server.close()
    assert (fault.fault_class, met) == (FaultClass.CONFIGURATION, [])
