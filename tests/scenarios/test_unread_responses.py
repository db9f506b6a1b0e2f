"""Callers who ask for more than they read keep nobody out, however few descriptors the router may have."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

from router.web.pages.static_files import static_digest, static_files
from tests.api import Api
from tests.songs import demo
from tests.stack import Stack, stack

CALLERS = 300
DESCRIPTORS = 400
ANSWER_S = 5.0
_TINY_BYTES = 2_304
"""The smallest receive buffer that the kernel gives."""


@contextmanager
def callers_who_never_read(running: Stack, path: str, requests: int, count: int = CALLERS) -> Iterator[None]:
    """Connections on which so many requests for `path` were sent ahead, of whose answers nothing is read."""
    port = int(running.url.rpartition(":")[2])
    pipelined = requests * f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with ExitStack() as cleanup:
        for _ in range(count):
            caller = cleanup.enter_context(socket.socket())
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TINY_BYTES)
            caller.settimeout(10)
            caller.connect(("127.0.0.1", port))
            caller.setblocking(False)
            with suppress(OSError):  # what the router does not take, or a connection that it has closed
                caller.send(pipelined)
        yield


def _seconds_until_answered(running: Stack, path: str) -> float:
    """How long a stranger's GET takes, over a connection of its own. Raises httpx.HTTPError where there is none."""
    began = time.monotonic()
    with httpx.Client(base_url=running.url, trust_env=False, timeout=ANSWER_S) as stranger:
        assert stranger.get(path).status_code == 200
    return time.monotonic() - began


def _until_calm(pid: int, limit_s: float = 45.0) -> None:
    """Until the callers' places are taken and the router does little any more, or the time is over."""
    give_up_at = time.monotonic() + limit_s
    worked_s = -1.0
    while time.monotonic() < give_up_at:
        before_s, worked_s = worked_s, _cpu_s(pid)
        if before_s >= 0 and worked_s - before_s < 0.1:
            return
        time.sleep(0.5)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _strangers_are_answered(running: Stack) -> None:
    for path in ("/v1/options", "/", "/v1/health"):
        assert _seconds_until_answered(running, path) <= ANSWER_S
    assert "Traceback" not in running.router.said()


def test_a_stranger_is_answered_while_hundreds_read_nothing_of_what_they_asked_for(tmp_path: Path) -> None:
    """Each asks for more than the kernel's buffers take: 2 MB and more on loopback."""
    largest = max(static_files(), key=lambda path: len(static_files()[path].plain))
    requests = 4_000_000 // len(static_files()[largest].plain)
    path = f"/static/{static_digest()}/{largest}"
    with (
        stack(tmp_path, workers=0, descriptors=DESCRIPTORS) as running,
        callers_who_never_read(running, path, requests),
    ):
        _until_calm(running.router.pid)
        _strangers_are_answered(running)


def test_a_stranger_is_answered_while_hundreds_read_nothing_of_an_own_master(tmp_path: Path) -> None:
    song = demo(tmp_path / "song.wav", 20)
    with stack(tmp_path, descriptors=DESCRIPTORS, settings={"streams_per_account": CALLERS}) as running:
        with Api(running.url) as api:
            job = api.mastered(api.send(song, outputs=["wav24"])["id"])
        with callers_who_never_read(running, job["outputs"][0]["url"], requests=1):
            _until_calm(running.router.pid)
            _strangers_are_answered(running)
