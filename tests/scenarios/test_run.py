"""`router run`: one command starts all that one machine needs, the operators' port too."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from router.app import local_workers
from router.app.server import ADMIN_PORT
from tests.api import Api
from tests.stack import STOP_S, Running, free_port, own_ram, stack, wait_for


def test_one_command_starts_router_worker_and_operators_port(tmp_path: Path) -> None:
    admin_port, port = free_port(), free_port()
    with own_ram() as ram_dir:
        folders = {"RAM_DIR": str(ram_dir), "SPOOL_DIR": str(tmp_path / "spool"), "STATE_DIR": str(tmp_path / "state")}
        environment = {**os.environ, **{f"ROUTER_{name}": value for name, value in folders.items()}}
        # The default port, which may be taken on the machine that runs the tests, by a name of our own.
        script = f"import router.app.server as s; s.ADMIN_PORT = {admin_port}; from router.cli.main import main; main()"
        output = tmp_path / "run.txt"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-c", script, "run", "--port", str(port)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        running = Running(process, output, f"http://127.0.0.1:{port}")
        try:
            wait_for(running, f"{running.url}/v1/options")
            wait_for(running, f"http://127.0.0.1:{admin_port}/livez")
        finally:
            running.stop()
        assert f"Operators: http://127.0.0.1:{admin_port}" in running.said()
    assert ADMIN_PORT == 8081, "where `router status` looks by itself"


def test_a_router_that_is_told_to_stop_does_not_wait_for_who_only_listens(tmp_path: Path) -> None:
    """The server's own patience with open connections is ten seconds; the stream must have ended before."""
    with stack(tmp_path, workers=0) as running, Api(running.url) as api:
        with closing(api.events(api.create()["id"])) as events:
            assert next(events)["state"] == "received"
            running.router.process.terminate()
            assert list(events) == []  # a stream that is cut off raises
        assert running.router.process.wait(STOP_S) is not None


def test_a_port_of_our_own_worker_is_never_free_and_never_answers_by_itself() -> None:
    with local_workers.reserve_port() as claim:
        port = int(claim.getsockname()[1])
        for is_shared in (False, True):
            with socket.socket() as stranger:
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, is_shared)
                with pytest.raises(OSError, match="in use"):
                    stranger.bind(("127.0.0.1", port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        for _ in range(2):  # a worker dies and its successor takes its place
            with local_workers.reserve_port(port) as bound:
                bound.listen()
                socket.create_connection(("127.0.0.1", port), 5).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
