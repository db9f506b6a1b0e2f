"""The real stack for tests: router and worker as processes of their own, on loopback, in folders of their own.

    with stack(tmp_path) as running:
        httpx.get(f"{running.url}/v1/options")
        running.workers[0].kill()

Every process is stopped by its own id when the context ends. Waiting is bounded and reads the processes' own words.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from mastering.contract import kinds
from tests import warm_start
from tests.loopback import TLS
from tests.warm_start import WarmProcess

START_S = 60.0
STOP_S = 15.0
_POLL_S = 0.05


@dataclass
class Running:
    """One process and where its output goes."""

    process: subprocess.Popen[bytes] | WarmProcess
    output: Path
    url: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self.output.read_text("utf-8", errors="replace")

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns when the process is gone."""
        self.process.kill()
        self.process.wait(STOP_S)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        self.thaw()
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass
class Stack:
    """A router with its workers. `router` is replaced when it is started again."""

    router: Running
    workers: list[Running]
    ram_dir: Path
    spool_dir: Path
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.router.url

    def restart_router(self) -> None:
        """Start the router again on the same folders and port; the old process must be gone or is stopped."""
        self.router.stop()
        port = int(self.url.rpartition(":")[2])
        self.router = start_router(
            self.folder, [worker.url for worker in self.workers], self.ram_dir, self.spool_dir, self.settings, port
        )


@contextmanager
def stack(
    folder: Path,
    workers: int = 1,
    settings: Mapping[str, object] | None = None,
    descriptors: int | None = None,
    port: int | None = None,
) -> Iterator[Stack]:
    """A running stack. `settings` are the router's, by name: ``{"max_bytes": 1_000_000}``.

    The router may open so many file `descriptors`, where they are given; its `port` is any free one where not.
    """
    environment = {f"ROUTER_{name.upper()}": str(value) for name, value in (settings or {}).items()}
    with ExitStack() as cleanup:
        ram_dir = cleanup.enter_context(own_ram())
        running: list[Running] = []
        cleanup.callback(_stop_all, running)  # those too that a test starts in the place of one that it killed
        running += [start_worker(folder, number) for number in range(workers)]
        for worker in running:
            wait_for(worker, f"{worker.url}/v1/health")
        spool_dir = folder / "spool"
        urls = [worker.url for worker in running]
        router = start_router(folder, urls, ram_dir, spool_dir, environment, port, descriptors=descriptors)
        whole = Stack(router, running, ram_dir, spool_dir, folder, environment)
        cleanup.callback(lambda: whole.router.stop())
        yield whole


def _stop_all(running: list[Running]) -> None:
    for one in running:
        one.stop()


def ram() -> str | None:
    """A RAM-backed folder, where the machine has one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 — the folders made in it are random and 0700


@contextmanager
def own_ram() -> Iterator[Path]:
    """A router's RAM folder. The lock beside it goes with it."""
    with tempfile.TemporaryDirectory(prefix="mastering-test-", dir=ram()) as outer:
        inner = Path(outer) / "ram"
        inner.mkdir(mode=0o700)
        yield inner


def start_worker(
    folder: Path, number: int = 0, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Running:
    """Start a worker; it is not up yet when this returns: `wait_for` its health."""
    port = port or free_port()
    command = [sys.executable, "-m", "mastering.worker", "--host", "127.0.0.1", "--port", str(port)]
    return _start(command, folder / f"worker-{number}.txt", f"http://127.0.0.1:{port}", environment or {})


def start_router(
    folder: Path,
    workers: Sequence[str],
    ram_dir: Path,
    spool_dir: Path,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
    descriptors: int | None = None,
) -> Running:
    """Start a router and return when it answers."""
    port = port or free_port()
    limited = ["prlimit", f"--nofile={descriptors}:{descriptors}"] if descriptors else []
    command = [*limited, sys.executable, "-m", "router", "serve", "--port", str(port)]
    for worker in workers:
        command += ["--worker", worker]
    folders = {"ROUTER_RAM_DIR": str(ram_dir), "ROUTER_SPOOL_DIR": str(spool_dir)}
    folders["ROUTER_STATE_DIR"] = str(folder / "state")
    router = _start(command, folder / "router.txt", f"http://127.0.0.1:{port}", {**folders, **(environment or {})})
    try:
        wait_for(router, f"{router.url}/v1/options")
    except BaseException:
        router.stop()
        raise
    return router


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(running: Running, url: str, limit_s: float = START_S) -> None:
    """Until `url` answers 200; fails with the process's own words when it ends or the limit passes."""
    give_up_at = time.monotonic() + limit_s
    while time.monotonic() < give_up_at:
        if running.process.poll() is not None:
            raise RuntimeError(f"exit code {running.process.returncode} before it was up:\n{running.said()}")
        try:
            if httpx.get(url, timeout=1, trust_env=False, verify=TLS).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(_POLL_S)
    raise RuntimeError(f"{url} did not answer within {limit_s:.0f} s:\n{running.said()}")


def _start(command: list[str], output: Path, url: str, environment: Mapping[str, str]) -> Running:
    """`python -m …` starts warm; what is traced, limited or has kinds of its own starts as a new program."""
    whole = {**os.environ, **environment}
    process: subprocess.Popen[bytes] | WarmProcess
    with output.open("ab") as sink:
        match command:
            case [sys.executable, "-m", module, *arguments] if kinds.VARIABLE not in environment:
                process = warm_start.start(module, arguments, whole, sink, subprocess.STDOUT)
            case _:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=whole
                )
    return Running(process, output, url)
