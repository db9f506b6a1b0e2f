"""The processes of the routing benchmarks: stub workers, a router on folders of its own, a client. All on loopback."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ops.topology import free_port

_TLS = ssl.create_default_context()
"""One for all questions: reading the machine's certificates takes 30 ms of a core."""
_START_S = 60.0
_SHM = Path("/dev/shm")  # noqa: S108 — the folders made in it are random and 0700


def song(size_bytes: int) -> bytes:
    """A WAV file of that size: sixteen-bit stereo noise, which no codec on the way can shorten."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(44_100)
        out.writeframes(os.urandom((size_bytes - 44) // 4 * 4))
    return file.getvalue()


@dataclass
class StubWorkerProcess:
    """A stub worker's process, and the log of what it noted."""

    name: str
    tier: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def notes(self, what: str) -> list[float]:
        """When it noted `what`, on the machine's monotonic clock."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [note["at"] for note in map(json.loads, lines) if note["what"] == what]

    def stop(self, how: signal.Signals = signal.SIGKILL) -> float:
        """Send the signal; when it was sent."""
        at = time.monotonic()
        self.process.send_signal(how)
        return at


@dataclass
class BenchSetup:
    """Running workers, and the router before them."""

    folder: Path
    workers: list[StubWorkerProcess] = field(default_factory=list)
    router: subprocess.Popen[bytes] | None = None
    url: str = ""
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    clients: list[Client] = field(default_factory=list)

    def client(self) -> Client:
        """A new client of the router, closed with the setup."""
        self.clients.append(Client(self.url))
        return self.clients[-1]

    @property
    def stall_file(self) -> Path:
        """Made by a benchmark: the next worker that gets an upload removes it and stops reading amid the upload."""
        return self.folder / "stall"

    def restart_router(self) -> None:
        """Kill the router and start it again on the same folders and port."""
        if self.router is not None:
            self.router.kill()
            self.router.wait()
        self.start_router()

    def start_router(self) -> None:
        self.router = subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _wait_for_answer(f"{self.url}/v1/options")

    def latest(self, what: str, after_s: float, limit_s: float) -> tuple[StubWorkerProcess, float]:
        """The first worker that notes `what` after that moment. Raises TimeoutError."""
        give_up_s = time.monotonic() + limit_s
        while time.monotonic() < give_up_s:
            found = [(at, n) for n, one in enumerate(self.workers) for at in one.notes(what) if at > after_s]
            if found:
                at, n = min(found)
                return self.workers[n], at
            time.sleep(0.002)
        raise TimeoutError(what)


class Client:
    """A client of the router's API, by http.client: what a client's own reading costs is not the router's
    doing, and httpx takes some 35 ms for 20 MB, where curl takes a few."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._http = http.client.HTTPConnection(host, int(port), timeout=120)
        self._buffer = bytearray(256 * 1024)

    def close(self) -> None:
        self._http.close()

    def _request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        return self._response(method, path, body, **headers).read()

    def _response(self, method: str, path: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        self._http.request(method, path, body, headers)
        response = self._http.getresponse()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {response.read(500)!r}")
        return response

    def send(self, audio: bytes) -> str:
        body = json.dumps({"size_bytes": len(audio)}).encode()
        job_id = str(json.loads(self._request("POST", "/v1/jobs", body, **{"content-type": "application/json"}))["id"])
        self._request("PUT", f"/v1/jobs/{job_id}/audio", audio)
        return job_id

    def wait(self, job_id: str, limit_s: float = 60) -> dict[str, Any]:
        """The job at its end."""
        give_up_s = time.monotonic() + limit_s
        while True:
            job = json.loads(self._request("GET", f"/v1/jobs/{job_id}", prefer="wait=5"))
            if job["state"] in ("mastered", "failed", "expired") or time.monotonic() > give_up_s:
                return dict(job)

    def fetch(self, job_id: str) -> bytes:
        return self._request("GET", f"/v1/jobs/{job_id}/outputs/wav24")

    def take(self, job_id: str) -> int:
        """The master as soon as it is made, keeping nothing of it, as the direct call does; how many bytes came."""
        response, taken = self._response("GET", f"/v1/jobs/{job_id}/outputs/wav24", prefer="wait=60"), 0
        while count := response.readinto(self._buffer):
            taken += count
        return taken

    def end(self, job_id: str) -> None:
        self._request("DELETE", f"/v1/jobs/{job_id}")

    def run_job(self, audio: bytes) -> None:
        """Send a song, fetch its master and delete the job. Raises RuntimeError where it comes back shorter."""
        job_id = self.send(audio)
        if self.take(job_id) != len(audio):
            raise RuntimeError("the master did not come whole")
        self.end(job_id)


@contextmanager
def running_setup(
    tiers: Sequence[str], *, render_s: float = 0.0, router: bool = True, **settings: Any
) -> Iterator[BenchSetup]:
    """Stub workers of these tiers and a router before them."""
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        made = BenchSetup(folder)
        for number, tier in enumerate(tiers):
            made.workers.append(_worker(folder, number, tier, render_s))
            cleanup.callback(_kill, made.workers[-1].process)
        for one in made.workers:
            _wait_for_answer(f"{one.url}/v1/health")
        if router:
            ram = cleanup.enter_context(tempfile.TemporaryDirectory(dir=_SHM if os.access(_SHM, os.W_OK) else None))
            cleanup.callback(lambda: _end(made.router))
            _start_router(made, Path(ram) / "router", settings)  # the lock beside it goes with it
        try:
            yield made
        finally:
            for client in made.clients:
                client.close()


def _worker(folder: Path, number: int, tier: str, render_s: float) -> StubWorkerProcess:
    port, log = free_port(), folder / f"worker-{number}.log"
    command = [
        sys.executable,
        "-m",
        "ops.bench._stub_worker",
        str(port),
        str(render_s),
        str(log),
        str(folder / "stall"),
    ]
    return StubWorkerProcess(f"stub-{number}", tier, port, log, subprocess.Popen(command))


def _start_router(made: BenchSetup, ram: Path, settings: dict[str, Any]) -> None:
    lines = [
        f'[[backend]]\nname = "{w.name}"\ntier = "{w.tier}"\nurl = "{w.url}"\nprotocol = "worker"\n'
        for w in made.workers
    ]
    catalogue = made.folder / "catalogue.toml"
    catalogue.write_text("\n".join(lines))
    port = free_port()
    given = {
        "CATALOGUE": catalogue,
        "RAM_DIR": ram,
        "RAM_CHECK": "warn",
        "SPOOL_DIR": made.folder / "spool",
        "STATE_DIR": made.folder / "state",
        **{name.upper(): value for name, value in settings.items()},
    }
    made.url = f"http://127.0.0.1:{port}"
    made.command = (sys.executable, "-m", "router", "serve", "--port", str(port))
    made.environment = {**os.environ, **{f"ROUTER_{name}": str(value) for name, value in given.items()}}
    made.start_router()


def _wait_for_answer(url: str) -> None:
    """Until a GET succeeds. Raises httpx.HTTPError."""
    give_up_s = time.monotonic() + _START_S
    while True:
        try:
            httpx.get(url, timeout=1, verify=_TLS).raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.02)
        else:
            return


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        _kill(process)
