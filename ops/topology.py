"""All tiers on one machine: a router, local workers, both Spaces as real Gradio processes. All on loopback.

    with running_topology() as topology:
        topology.router.url
        topology.workers[0].kill()

Every process is a child that dies with this one, however this one ends, and is stopped by its own id.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from mastering.runtime import child_process
from mastering_space import upload

_TLS = ssl.create_default_context()
"""One for all questions: reading the machine's certificates takes 30 ms of a core."""
START_S = 180.0
STOP_S = 15.0
_KEPT = ("HOME", "TMPDIR", "XDG_STATE_HOME")
"""Of this environment; no setting of a router, worker or Space: the children know only what they are told here."""
_DEMO = "mastering-demo-"
SHM = Path("/dev/shm")  # noqa: S108 — the folders made in it are random and 0700
"""Where keys and songs are, if they can be: a folder in RAM."""


@dataclass
class TopologyProcess:
    """One process of the topology, at the same address whenever it runs."""

    name: str
    tier: str
    url: str
    health: str
    command: Sequence[str]
    output: Path
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        with self.output.open("ab") as sink:
            self.process = child_process.start_blocking(
                self.command,
                child_process.environment(_KEPT, child_process.RENDER_PREFIXES, self.environment),
                stdout=sink,
                stderr=child_process.STDOUT,
                cwd=self.folder,
            )

    def wait(self, limit_s: float = START_S) -> None:
        """Until it answers that it is ready. Raises RuntimeError with the end of its output."""
        give_up_s = time.monotonic() + limit_s
        while not self._is_ready():
            if not self.is_alive or time.monotonic() > give_up_s:
                output = self.output.read_text("utf-8", errors="replace")[-4000:]
                raise RuntimeError(f"{self.name} did not get ready:\n{output}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        if self.process is None or not self.is_alive:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _is_ready(self) -> bool:
        try:
            answer = httpx.get(f"{self.url}{self.health}", timeout=2, trust_env=False, verify=_TLS)
            # A worker that wants signatures refuses this request: it listens.
            return answer.status_code == 401 or (answer.is_success and answer.json().get("state") in (None, "ready"))
        except (httpx.HTTPError, ValueError):
            return False


@dataclass
class Topology:
    """The processes, and the addresses by which they are reached."""

    router: TopologyProcess
    operators: str
    """The operators' port."""
    workers: list[TopologyProcess]
    gpu_space: TopologyProcess
    cpu_space: TopologyProcess
    ram: Path
    folder: Path
    """Of the processes' output, the router's spool and its state."""

    @property
    def backends(self) -> list[TopologyProcess]:
        return [*self.workers, self.gpu_space, self.cpu_space]


def _itself(child: TopologyProcess) -> str:
    return child.url


@contextmanager
def running_topology(
    *,
    port: int = 0,
    operators_port: int = 0,
    workers: int = 2,
    reached_by: Callable[[TopologyProcess], str] = _itself,
    prepare: Callable[[Topology], None] | None = None,
    with_router: bool = True,
    prefix: str = _DEMO,
    **settings: object,
) -> Iterator[Topology]:
    """The whole topology, ready; ports of 0 take free ones. `settings` are the router's.

    `reached_by`: the address by which the router reaches a backend, where something stands between them. `prepare` may
    change what is to be started. Not `with_router`: the caller starts it, and it is stopped with the rest. `prefix`: of
    the names of its folders.
    """
    with ExitStack() as cleanup:
        folder = cleanup.enter_context(own_folder(Path(tempfile.gettempdir()), prefix))
        ram = cleanup.enter_context(own_folder(SHM if os.access(SHM, os.W_OK) else Path(tempfile.gettempdir()), prefix))
        ports = port or free_port(), operators_port or free_port()
        topology = _topology(folder, ram, ports, workers, reached_by, settings)
        if prepare is not None:
            prepare(topology)
        for child in (*topology.backends, topology.router):
            cleanup.callback(child.stop)
        for child in topology.backends:
            child.start()
        for child in topology.backends:
            child.wait()
        if with_router:
            topology.router.start()
            topology.router.wait()
        yield topology


@contextmanager
def own_folder(beneath: Path, prefix: str = _DEMO) -> Iterator[Path]:
    """A folder that is removed with this process, after those that killed processes left behind."""
    for stale in beneath.glob(f"{prefix}*"):
        with suppress(OSError), (stale / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=beneath) as folder, (Path(folder) / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Path(folder)


def _topology(
    folder: Path,
    ram: Path,
    ports: tuple[int, int],
    worker_count: int,
    reached_by: Callable[[TopologyProcess], str],
    settings: Mapping[str, object],
) -> Topology:
    """The processes, not started. `ports`: the router's, and the operators' port."""
    key, (port, operators_port) = secrets.token_hex(32), ports
    workers = [_worker(folder, number, key) for number in range(1, worker_count + 1)]
    gpu_space = _space(folder, "zero_gpu", "gpu_space")
    cpu_space = _space(folder, "cpu", "cpu_space")
    catalogue = folder / "catalogue.toml"
    entries = [_entry(child, reached_by(child)) for child in (*workers, gpu_space, cpu_space)]
    catalogue.write_text("\n".join(entries), "utf-8")
    given = {
        "catalogue": catalogue,
        "worker_secret": key,
        "ram_dir": ram / "router",
        "ram_check": "warn",
        "spool_dir": folder / "spool",
        "state_dir": folder / "state",
        "admin_port": operators_port,
        **settings,
    }
    environment = {f"ROUTER_{name.upper()}": str(value) for name, value in given.items()}
    command = child_process.python("router", "serve", "--port", port)
    router = TopologyProcess(
        "router", "", f"http://127.0.0.1:{port}", "/v1/options", command, folder / "router.txt", environment=environment
    )
    return Topology(router, f"http://127.0.0.1:{operators_port}", workers, gpu_space, cpu_space, ram, folder)


def _entry(child: TopologyProcess, url: str) -> str:
    region = "here, in place of Hugging Face" if child.tier != "managed" else "here"
    return f'[[backend]]\nname = "{child.name}"\ntier = "{child.tier}"\nurl = "{url}"\nregion = "{region}"\n'


def _worker(folder: Path, number: int, key: str) -> TopologyProcess:
    port = free_port()
    command = child_process.python("mastering.worker", "--host", "127.0.0.1", "--port", port)
    environment = {"MASTERING_WORKER_KEYS": json.dumps({"router": key})}
    name, url = f"worker-{number}", f"http://127.0.0.1:{port}"
    return TopologyProcess(name, "managed", url, "/v1/health", command, folder / f"{name}.txt", environment=environment)


def _space(folder: Path, kind: str, tier: str) -> TopologyProcess:
    """A Space as Hugging Face runs it: the folder that is uploaded, and `python app.py` in it."""
    name, port, place = tier.replace("_", "-"), free_port(), folder / tier
    for path, source in upload.files(kind).items():
        target = place / "app" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    home = place / "home"
    home.mkdir()
    environment = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "MASTERING_SPACE_CONCURRENCY": "1"}
    command = (sys.executable, "app.py")
    url = f"http://127.0.0.1:{port}"
    return TopologyProcess(name, tier, url, "/v1/health", command, folder / f"{name}.txt", place / "app", environment)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
