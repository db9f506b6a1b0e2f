"""What a Space keeps of a job, and for how long: nothing a second after it ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client

from mastering.contract import Settings
from tests.processes import family, is_alive, renderers
from tests.songs import demo
from tests.space_process import SpaceProcess, call, fetch, put, running_space, until

LONG_S = 400
"""Of music: a render of it takes long enough to be caught in the middle."""


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return demo(tmp_path_factory.mktemp("song") / "song.wav", 4).read_bytes()


@pytest.fixture(scope="module")
def long_song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return demo(tmp_path_factory.mktemp("song") / "song.wav", LONG_S).read_bytes()


@pytest.fixture(scope="module")
def space() -> Iterator[SpaceProcess]:
    with running_space("cpu", concurrency=1) as running:
        yield running


@pytest.fixture(scope="module")
def impatient() -> Iterator[SpaceProcess]:
    """A Space that keeps little for long and gives up soon."""
    with running_space("cpu", keep_s=3, stall_s=2) as running:
        yield running


@pytest.fixture(scope="module")
def small(song: bytes) -> Iterator[SpaceProcess]:
    """A Space with room for `song` and 2 MiB more, and for songs of five seconds."""
    with running_space("cpu", memory_bytes=len(song) + (2 << 20), max_duration_s=5) as running:
        yield running


def new_job() -> str:
    return secrets.token_hex(16)


def memories(pid: int) -> int:
    """Memory files without a name that the process holds: inputs, outputs, reports."""
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(link.readlink()).startswith("/memfd:")
    return found


def files_left(space: SpaceProcess) -> list[str]:
    """Every file that the Space could have written: its temporary folder and home, its own folder, Gradio's cache."""
    shm = list(Path("/dev/shm").glob("mastering-space-gradio-*/**/*"))  # noqa: S108
    own = [path for path in space.folder.rglob("*") if "__pycache__" not in path.parts]
    strangers = [path for path in own if path.is_file() and path.suffix not in OWN]
    return [str(path) for path in (*space.temp.rglob("*"), *shm, *strangers) if path.is_file()]


OWN = {".py", ".md", ".txt", ".toml", ".typed", ".html", ".css", ".js", ".svg"}


class Running:
    """A call of /master in a thread, seen to render. `last` is its last event once `join` returns."""

    def __init__(
        self,
        space: SpaceProcess,
        job: str,
        settings: Settings | None = None,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> None:
        self.last: dict[str, Any] = {}
        self._on_event = on_event
        self._seen = threading.Event()
        self._thread = threading.Thread(target=self._call, args=(space, job, settings), daemon=True)
        self._thread.start()

    def _call(self, space: SpaceProcess, job: str, settings: Settings | None) -> None:
        with contextlib.suppress(httpx.HTTPError):
            self.last = call(space, job, settings, on_event=self._look)
        self._seen.set()

    def _look(self, event: dict[str, Any]) -> None:
        self._on_event(event)
        if event["type"] == "progress":
            self._seen.set()

    def until_it_renders(self) -> Running:
        assert self._seen.wait(60)
        return self

    def join(self) -> dict[str, Any]:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.last


def test_delete_leaves_nothing_of_a_finished_job(space: SpaceProcess, song: bytes) -> None:
    job = new_job()
    put(space, job, song)
    assert call(space, job)["type"] == "end"
    assert memories(space.pid) == 1, "the input goes when the render ends, the output waits"
    with space.client() as client:
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
        assert memories(space.pid) == 0
        assert client.get(f"/v1/jobs/{job}/outputs/wav24").status_code == 404
        assert client.delete(f"/v1/jobs/{job}").status_code == 204, "to delete twice is no mistake"
    assert files_left(space) == []


def test_masters_that_would_not_fit_beside_their_song_are_refused_before_they_are_made(
    small: SpaceProcess, song: bytes
) -> None:
    job = new_job()
    put(small, job, song)
    last = call(small, job, Settings(outputs=("wav32f", "wav24"), rate_hz=192_000))
    assert (last["code"], last["numbers"]["allowed_bytes"]) == ("too_large", 2 << 20)
    assert last["numbers"]["needed_bytes"] > 4 * 192_000 * 2 * (4 + 3)
    assert memories(small.pid) == 0


def test_a_song_longer_than_the_space_says_is_refused(small: SpaceProcess, tmp_path: Path) -> None:
    job = new_job()
    put(small, job, demo(tmp_path / "song.wav", 6))
    last = call(small, job)
    assert (last["code"], last["numbers"]) == ("too_long", {"duration_s": 6.0, "allowed_s": 5.0})


def test_delete_in_mid_render_kills_the_process_and_tells_the_caller(space: SpaceProcess, long_song: bytes) -> None:
    job = new_job()
    put(space, job, long_song)
    running = Running(space, job).until_it_renders()
    before = renderers(space.pid)
    with space.client() as client:
        client.delete(f"/v1/jobs/{job}")
    until(lambda: bool(before - renderers(space.pid)) and memories(space.pid) == 0, 1)
    last = running.join()
    assert (last["type"], last["code"]) == ("fault", "cancelled")


def test_a_caller_who_hangs_up_ends_the_render(space: SpaceProcess, long_song: bytes) -> None:
    job = new_job()
    put(space, job, long_song)
    with space.client() as client:
        asked = {"data": [job, Settings().model_dump(mode="json"), None]}
        event = client.post("/gradio_api/call/master", json=asked).json()["event_id"]
        with client.stream("GET", f"/gradio_api/call/master/{event}") as stream:
            for line in stream.iter_lines():
                if '"progress"' in line:
                    break
        before = renderers(space.pid)
    until(lambda: bool(before - renderers(space.pid)) and memories(space.pid) == 0, 2)


def test_gradio_clients_cancel_ends_a_running_render_and_a_waiting_one(space: SpaceProcess, long_song: bytes) -> None:
    jobs, clients = [new_job(), new_job()], [Client(space.url, verbose=False) for _ in range(2)]
    for job in jobs:
        put(space, job, long_song)
    asked = Settings().model_dump(mode="json")
    running = clients[0].submit(jobs[0], asked, api_name="/master")
    until(lambda: any(event["type"] == "progress" for event in running.outputs()))
    waiting = clients[1].submit(jobs[1], asked, api_name="/master")
    until(lambda: bool(waiting.outputs()))
    assert {"heartbeat"} == {event["type"] for event in waiting.outputs()}, "one slot: the other one waits"
    before = renderers(space.pid)
    waiting.cancel()
    until(lambda: memories(space.pid) == 1, 2)
    assert before == renderers(space.pid), "the sibling renders on"
    running.cancel()
    until(lambda: bool(before - renderers(space.pid)) and memories(space.pid) == 0, 2)
    for client in clients:
        client.close()


def test_two_identical_uploads_at_once_are_two_songs(space: SpaceProcess, song: bytes) -> None:
    jobs = [new_job(), new_job()]
    for job in jobs:
        assert put(space, job, song).status_code == 201
    assert memories(space.pid) == 2
    both = [Running(space, job) for job in jobs]
    assert [one.join()["type"] for one in both] == ["end", "end"]
    with space.client() as client:
        client.delete(f"/v1/jobs/{jobs[0]}")
    assert fetch(space, jobs[1])[:4] == b"RIFF", "to wipe one is not to wipe the other"
    with space.client() as client:
        client.delete(f"/v1/jobs/{jobs[1]}")


def test_an_input_that_nobody_renders_is_dropped(impatient: SpaceProcess, song: bytes) -> None:
    job = new_job()
    put(impatient, job, song)
    until(lambda: memories(impatient.pid) == 0, 10)
    last = call(impatient, job)
    assert (last["type"], last["code"]) == ("fault", "bad_request")


def test_an_output_that_nobody_fetches_is_dropped(impatient: SpaceProcess, song: bytes) -> None:
    job = new_job()
    put(impatient, job, song)
    assert call(impatient, job)["type"] == "end"
    until(lambda: memories(impatient.pid) == 0, 10)
    with impatient.client() as client:
        assert client.get(f"/v1/jobs/{job}/outputs/wav24").status_code == 404


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_space_that_dies_in_mid_render_leaves_no_process_and_no_file(how: str, long_song: bytes) -> None:
    with running_space("cpu") as space:
        job = new_job()
        put(space, job, long_song)
        running = Running(space, job).until_it_renders()
        before = family(space.pid)
        assert len(before) > 1
        began = time.monotonic()
        status = getattr(space, how)()
        until(lambda: not any(is_alive(pid) for pid in before), 1)
        assert time.monotonic() - began < 5
        assert files_left(space) == []
        if how == "terminate":
            assert status == 0
            last = running.join()
            assert (last["type"], last["code"]) == ("fault", "busy")


def test_an_upload_that_stands_still_is_given_up(impatient: SpaceProcess) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port)) as slow:
        slow.sendall(f"PUT /v1/jobs/{new_job()}/audio HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nRIFF".encode())
        slow.settimeout(20)
        with slow.makefile("rb") as reading:
            answer = reading.read()
        assert b"408" in answer.split(b"\r\n")[0]
        assert b'"code": "deadline"' in answer
        until(lambda: memories(impatient.pid) == 0, 2)


def test_an_upload_that_is_cut_off_leaves_nothing(space: SpaceProcess) -> None:
    with socket.create_connection(("127.0.0.1", space.port)) as cut:
        cut.sendall(f"PUT /v1/jobs/{new_job()}/audio HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\nRIFF".encode())
        until(lambda: memories(space.pid) == 1, 5)
    until(lambda: memories(space.pid) == 0, 5)


def test_a_rendering_process_that_freezes_is_killed_and_the_caller_told(
    impatient: SpaceProcess, long_song: bytes
) -> None:
    job = new_job()
    put(impatient, job, long_song)
    running = Running(impatient, job).until_it_renders()
    frozen = renderers(impatient.pid)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)  # the spare ones with it
    last = running.join()
    assert (last["type"], last["code"]) == ("fault", "internal")
    assert memories(impatient.pid) == 0
    for pid in set(frozen) & set(renderers(impatient.pid)):
        os.kill(pid, signal.SIGCONT)


def test_a_rendering_process_that_is_killed_is_told_as_such(space: SpaceProcess, long_song: bytes) -> None:
    job = new_job()
    put(space, job, long_song)
    running = Running(space, job).until_it_renders()
    for pid in renderers(space.pid):
        os.kill(pid, 9)
    last = running.join()
    assert (last["type"], last["code"]) == ("fault", "out_of_memory")


def test_a_deadline_ends_the_render(space: SpaceProcess, long_song: bytes) -> None:
    job = new_job()
    put(space, job, long_song)
    last = call(space, job, deadline_s=1)
    assert (last["type"], last["code"]) == ("fault", "deadline")
    until(lambda: memories(space.pid) == 0, 1)
