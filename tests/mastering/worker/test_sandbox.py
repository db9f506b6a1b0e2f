"""P73, the rendering process: what it must not be able to do is refused by whichever mechanism the host has, its memory
and processor time are bounded by the song, nothing outlives it, and a worker that lacks something does not render."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from mastering.contract import FaultCode, Settings
from mastering.contract.kinds import MASTER
from mastering.contract.records import Effort
from tests.mastering.worker_process import FAKE, WorkerProcess, request_body, running_worker, until
from tests.processes import is_alive
from tests.songs import demo
from tests.warm_start import WarmProcess

MIB = 1 << 20


@contextmanager
def worker_lacking(calls: str, engine: str, *, allowed: bool) -> Iterator[subprocess.Popen[bytes]]:
    """A worker on a machine that lacks these system calls."""
    environment = {**os.environ, "PYTHONPATH": ".", "MASTERING_WORKER_ENGINE": f"{FAKE}:{engine}"}
    environment["MASTERING_WORKER_ALLOW_INCOMPLETE_SANDBOX"] = str(allowed).lower()
    command = [
        sys.executable,
        "-m",
        "tests.refuse_calls",
        calls,
        sys.executable,
        "-m",
        "mastering.worker",
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def client_of(process: subprocess.Popen[bytes]) -> Iterator[WorkerProcess]:
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["port"]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
        worker = WorkerProcess(_as_warm(process), client)
        until(lambda: worker.health()["state"] == "ready", tries=6000)
        yield worker


def _as_warm(process: subprocess.Popen[bytes]) -> WarmProcess:
    return process  # type: ignore[return-value]  # it has all that is asked of one here


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return demo(tmp_path_factory.mktemp("song") / "song.wav", 4).read_bytes()


def test_a_hostile_engine_is_refused_everything_and_its_limits_are_those_of_the_song(song: bytes) -> None:
    with running_worker(f"{FAKE}:try_everything") as worker:
        assert worker.health()["sandbox_gaps"] == []
        found = json.loads(worker.render(request_body(song)).outputs["output/wav16"])
    assert found["gaps"] == []
    soft, hard = found["limits"]["RLIMIT_DATA"]
    allowed = MASTER.memory_bytes(Settings(), 4.0, 44_100, 2)
    assert soft == hard
    assert allowed < hard < allowed + 400 * MIB
    assert found["limits"]["RLIMIT_CPU"] == [MASTER.processor_s(Settings(), 4.0)] * 2


def test_without_user_namespaces_it_is_refused_the_same(song: bytes) -> None:
    with worker_lacking("unshare", "try_everything", allowed=False) as process, client_of(process) as worker:
        assert worker.health()["sandbox_gaps"] == []
        assert json.loads(worker.render(request_body(song)).outputs["output/wav16"])["gaps"] == []


def test_a_machine_without_landlock_renders_nothing_unless_that_is_allowed() -> None:
    with worker_lacking("landlock_create_ruleset", "copy", allowed=False) as process:
        said, complaint = process.communicate(timeout=120)
        assert process.returncode == 3
        assert complaint.decode().count("\n") == 1
        assert "read a file, list a folder, create a file" in complaint.decode()
        assert "MASTERING_WORKER_ALLOW_INCOMPLETE_SANDBOX" in complaint.decode()
        assert b'"event": "sandbox_incomplete"' in said


def test_what_a_render_leaves_behind_ends_with_it_and_an_allowed_gap_is_told(song: bytes) -> None:
    with worker_lacking("seccomp", "leave_a_process_behind", allowed=True) as process, client_of(process) as worker:
        assert "start a process" in worker.health()["sandbox_gaps"]
        answer = worker.render(request_body(song))
        left = int(answer.outputs["output/wav16"])
        until(lambda: not is_alive(left))


def test_a_song_that_wants_all_memory_gets_a_bounded_share_and_its_sender_the_blame(song: bytes) -> None:
    with running_worker(f"{FAKE}:take_memory") as worker:
        peaks = {0}
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                peaks.update(_resident_bytes(pid) for pid in worker.renderers())

        watching = threading.Thread(target=watch)
        watching.start()
        began = time.monotonic()
        try:
            answer = worker.render(request_body(song))
        finally:
            done.set()
            watching.join()
        assert answer.fault.code is FaultCode.RESOURCE_LIMIT
        assert time.monotonic() - began < 5
        assert 300 * MIB < max(peaks) < 600_000_000
        until(lambda: worker.health()["state"] == "ready")


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_longer_songs_and_fits_may_take_more() -> None:
    short, long = MASTER.memory_bytes(Settings(), 60, 44_100, 2), MASTER.memory_bytes(Settings(), 600, 44_100, 2)
    assert short < long
    assert MASTER.memory_bytes(Settings(effort=Effort.FIT), 60, 44_100, 2) > short
    assert MASTER.processor_s(Settings(), 60) < MASTER.processor_s(Settings(), 600)
