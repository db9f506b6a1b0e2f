"""P25, P26: no process that holds audio may leave a core dump, be read by its neighbours, or speak past the log."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mastering.contract import Settings
from mastering.worker.event_log import EVENTS
from tests.hostile_audio import all_hostile
from tests.mastering.worker_process import request_body, running_worker, until
from tests.stack import Stack, stack
from tests.tracing import traced

_PRIVATE = re.compile(r"prctl\(PR_SET_DUMPABLE, (?:SUID_DUMP_DISABLE|0)[,)].*= 0")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    folder = tmp_path_factory.mktemp("stack")
    with pytest.MonkeyPatch.context() as patch, traced(folder, patch, "trace=prctl"), stack(folder) as whole:
        until(lambda: len(list(tree(whole))) >= 5)
        yield whole, folder


def tree(running: Stack) -> Iterator[int]:
    """Router, worker, the probe's fork server and the rendering processes, as they run now."""
    waiting = [running.router.pid, *(worker.pid for worker in running.workers)]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def forked_from(pid: int) -> int | None:
    """Its parent, where it is a fork without exec, which inherits what the parent set by prctl(2)."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return parent if command(parent) == command(pid) else None


def test_p25_every_process_has_a_core_limit_of_zero(running: tuple[Stack, Path]) -> None:
    limits = {command(pid): Path(f"/proc/{pid}/limits").read_text() for pid in tree(running[0])}
    kinds = ("router serve", "mastering.worker --host", "mastering.probe", "mastering.worker.fork_server")
    assert {kind for kind in kinds if any(kind in line for line in limits)} == set(kinds)
    for line, text in limits.items():
        assert re.search(r"^Max core file size +0 +0 ", text, re.MULTILINE), line


def test_p25_every_process_keeps_its_memory_from_others(running: tuple[Stack, Path]) -> None:
    whole, folder = running
    open_ones: list[str] = ["not looked yet"]

    def all_private() -> bool:  # a process that has only begun has not seen a song yet
        lines = [line for trace in folder.glob("*.trace") for line in trace.read_text(errors="replace").splitlines()]
        private = {int(line.split()[0]) for line in lines if _PRIVATE.search(line)}
        open_ones[:] = [command(pid) for pid in tree(whole) if not {pid, forked_from(pid)} & private]
        return not open_ones

    until(all_private)
    assert open_ones == []


def test_p25_a_decoder_that_complains_is_heard_by_nobody() -> None:
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, control:
        argv = [sys.executable, "-m", "mastering.probe", "--fork-server", str(theirs.fileno())]
        fork_server = subprocess.Popen(
            argv, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        theirs.close()
        control.recv(4096)
        for sound, _ in all_hostile().values():
            ours, other = socket.socketpair()
            with ours:
                packet = json.dumps({"op": "probe"}).encode()
                socket.send_fds(control, [packet], [other.fileno()])
                other.close()
                ours.recv(2)
                try:
                    ours.sendall(sound)
                    ours.shutdown(socket.SHUT_WR)
                except OSError:
                    continue
                while ours.recv(4096):
                    pass
        control.close()
        said, _ = fork_server.communicate(timeout=30)
    assert said == b""


def test_p25_an_engine_that_prints_is_heard_by_nobody() -> None:
    with running_worker("tests.mastering.worker_engines:chatter") as worker:
        worker.render(request_body(b"canary-7f3a", Settings()))
        worker.process.terminate()
        assert worker.process.stdout is not None
        said = worker.process.stdout.read().decode()
    assert "canary" not in said
    assert {json.loads(line)["event"] for line in said.splitlines()} <= {*EVENTS, "broken", "library", "warned"}


def test_p26_the_log_goes_where_it_was_said_to_go_and_nowhere_else(tmp_path: Path) -> None:
    log_dir = tmp_path / "log"
    with stack(tmp_path, workers=0, settings={"log_dir": log_dir}) as running:
        pass
    (written,) = log_dir.iterdir()
    said = [json.loads(line)["event"] for line in written.read_text().splitlines()]
    assert {"started", "http", "stopped"} <= set(said)
    assert re.fullmatch(r"Ready: http://127\.0\.0\.1:\d+ .*\n", running.router.said())
