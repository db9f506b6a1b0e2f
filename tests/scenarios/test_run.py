"""`router run`: one command starts all that one machine needs, the operators' port too."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from router.serving import ADMIN_PORT
from tests.stack import Running, free_port, ram, wait_for


def test_one_command_starts_router_worker_and_operators_port(tmp_path: Path) -> None:
    admin_port, port = free_port(), free_port()
    with tempfile.TemporaryDirectory(dir=ram()) as ram_dir:
        folders = {"RAM_DIR": ram_dir, "SPOOL_DIR": str(tmp_path / "spool"), "STATE_DIR": str(tmp_path / "state")}
        environment = {**os.environ, **{f"ROUTER_{name}": value for name, value in folders.items()}}
        # The default port, which may be taken on the machine that runs the tests, by a name of our own.
        script = f"import router.serving as s; s.ADMIN_PORT = {admin_port}; from router.cli import main; main()"
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
