"""Spaces under a whole router: tiers die and come back, each kind of refusal leads to its next step, and managed only
means that nothing of a job leaves our own workers."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mastering.runtime import child_process
from ops import topology
from ops.demo import check, song_wav
from router.tiers.fake import FakeBackend
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import BackendHealth
from router.tiers.space.address import SpaceAddress
from router.tiers.space.backend import SpaceBackend
from tests import warm_children
from tests.rough_space import RoughSpace, rough_space
from tests.served import Served, served
from tests.services import SONG, eventually, ram_folder

pytestmark = pytest.mark.usefixtures("warm_space_calls")
SECONDS = 6.0
"""The check sends its song until traffic is back."""


@pytest.mark.timeout(600)
def test_the_demo_survives_every_tier_and_makes_the_same_samples_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    start = warm_children.blocking_starter(("app.py", "mastering.worker", "router"))
    monkeypatch.setattr(child_process, "start_blocking", start)
    said: list[str] = []
    check(song_wav(SECONDS), said.append)
    assert len(said) == 7
    assert all(line.startswith("ok ") for line in said)


@pytest.mark.timeout(300)
def test_a_demo_that_is_killed_takes_all_its_processes_with_it() -> None:
    command = (sys.executable, "-m", "ops.demo", "--check", "--seconds", "2")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as demo:
        try:
            assert demo.stdout is not None
            assert demo.stdout.readline().startswith(b"ok ")  # all are up
            children = [int(pid) for pid in Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()]
            assert len(children) == 5
        finally:
            demo.kill()

    def is_gone(pid: int) -> bool:
        try:
            return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return True

    for pid in children:
        while not is_gone(pid):
            time.sleep(0.05)
    with topology.own_folder(Path(tempfile.gettempdir())), topology.own_folder(topology.SHM):
        left = [*Path(tempfile.gettempdir()).glob("mastering-demo-*"), *topology.SHM.glob("mastering-demo-*")]
        assert len(left) == 2, "the next start removes what the killed one left, keys and songs"


@pytest.fixture(scope="module")
def gpu() -> Iterator[RoughSpace]:
    with rough_space() as space:
        yield space


@pytest.fixture(scope="module")
def cpu() -> Iterator[RoughSpace]:
    with rough_space() as space:
        yield space


@asynccontextmanager
async def routed(folder: Path, *spaces: RoughSpace, worker: FakeBackend | None = None) -> AsyncIterator[Served]:
    """A router before these Spaces, the first on the GPU's tier and the second on the CPU's."""
    with ram_folder() as ram:
        backends = [
            SpaceBackend(tier.removesuffix("_space"), tier, SpaceAddress(space.url), Path(ram))
            for tier, space in zip(("gpu_space", "cpu_space"), spaces, strict=False)
        ]
        for space in spaces:
            space.behave(forget=True)
        async with served(folder, [*backends, worker] if worker else backends) as router:
            yield router


def outcomes(job: dict[str, Any]) -> list[tuple[str, str]]:
    return [(attempt["tier"], attempt["outcome"]) for attempt in job["attempts"]]


ON = [("cpu_space", "done")]
STEPS: dict[str, tuple[dict[str, Any], str, str]] = {
    "quota": ({"master": "title", "title": "ZeroGPU quota exceeded"}, "quota", "quota-out"),
    "credits": ({"master": "title", "title": "ZeroGPU pending credits exceeded"}, "quota", "quota-out"),
    "duration": ({"master": "title", "title": "ZeroGPU illegal duration"}, "too_big", "healthy"),
    "no GPU": ({"master": "title", "title": "ZeroGPU client error"}, "capacity", "healthy"),
    "queue": ({"master": "title", "title": "ZeroGPU queue timeout"}, "capacity", "healthy"),
    "aborted": (
        {"master": "title", "title": "ZeroGPU worker error", "message": "GPU task aborted"},
        "crash",
        "suspect",
    ),
    "out of memory": ({"master": "fault", "code": "out_of_memory"}, "bug", "healthy"),
    "a bug": ({"master": "raise"}, "bug", "healthy"),
    "503": ({"answers": {"/v1/jobs/": [503, {"retry-after": "30"}, ""]}}, "capacity", "healthy"),
    "a wrong checksum": ({"bad_checksum": True}, "bad_output", "healthy"),
    "a page instead of Gradio": (
        {"answers": {"/config": [200, {"content-type": "text/html"}, "<html>"]}},
        "bug",
        "healthy",
    ),
    "no token": ({"answers": {"/v1/jobs/": [401, {}, ""]}}, "configuration", "open"),
}


@pytest.mark.parametrize(("behaviour", "outcome", "state"), STEPS.values(), ids=STEPS)
async def test_what_the_gpu_space_refuses_the_cpu_space_masters(
    behaviour: dict[str, Any], outcome: str, state: str, gpu: RoughSpace, cpu: RoughSpace, tmp_path: Path
) -> None:
    async with routed(tmp_path, gpu, cpu) as router:
        gpu.behave(**behaviour)
        job = await router.over((await router.send())["id"])
        assert job["state"] == "mastered"
        assert outcomes(job) == [("gpu_space", outcome), *ON]
        shown = [entry.what for entry in router.services.fleet.journal.latest() if entry.kind == "state"]
        assert state == "healthy" or state in shown
    assert cpu.saw()["ended"] == ["ended"]


async def test_the_songs_own_fault_ends_the_job_at_the_first_space(
    gpu: RoughSpace, cpu: RoughSpace, tmp_path: Path
) -> None:
    async with routed(tmp_path, gpu, cpu) as router:
        gpu.behave(master="fault", code="silent")
        job = await router.over((await router.send())["id"])
    assert (job["state"], outcomes(job)) == ("failed", [("gpu_space", "user")])
    assert not [one for one in cpu.saw()["seen"] if one["method"] == "PUT"]


async def test_a_space_killed_with_the_song_in_hand_loses_nothing(cpu: RoughSpace, tmp_path: Path) -> None:
    with rough_space() as mortal:
        async with routed(tmp_path, mortal, cpu) as router:
            mortal.behave(master="slow")
            job = await router.send()

            async def at_work() -> bool:
                return bool((await router.http.get(f"/v1/jobs/{job['id']}")).json()["attempts"]) and bool(
                    mortal.saw()["rendering"]
                )

            await eventually(at_work)
            mortal.send(signal.SIGKILL)
            done = await router.over(job["id"])
    assert outcomes(done) == [("gpu_space", "crash"), *ON]


async def test_a_job_that_is_cancelled_is_gone_from_its_space(gpu: RoughSpace, tmp_path: Path) -> None:
    async with routed(tmp_path, gpu) as router:
        gpu.behave(master="slow")
        job = await router.send()

        async def at_work() -> bool:
            return bool(gpu.saw()["rendering"])

        async def idle() -> bool:
            seen = gpu.saw()
            return not seen["rendering"] and not seen["held"]

        await eventually(at_work)
        await router.http.delete(f"/v1/jobs/{job['id']}")
        await eventually(idle)


async def test_managed_only_sends_no_byte_of_a_job_to_a_space_whatever_is_down(
    gpu: RoughSpace, cpu: RoughSpace, tmp_path: Path
) -> None:
    worker = FakeBackend("worker", [[TierFault(FaultClass.UNREACHABLE, "it is down")]])
    worker.health = BackendHealth(False, "down")
    async with routed(tmp_path, gpu, cpu, worker=worker) as router:
        private = await router.send(SONG, managed_only=True)
        other = await router.over((await router.send(SONG))["id"])
        waiting = (await router.http.get(f"/v1/jobs/{private['id']}")).json()
    assert (other["state"], outcomes(other)) == ("mastered", [("gpu_space", "done")])
    assert (waiting["state"], waiting["attempts"]) == ("queued", [])
    puts = [one["path"] for space in (gpu, cpu) for one in space.saw()["seen"] if one["method"] in ("PUT", "POST")]
    assert len([path for path in puts if path.startswith("/v1/")]) == 1  # the other's song
    assert all(one["path"] == "/v1/health" for one in cpu.saw()["seen"])
