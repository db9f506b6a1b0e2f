"""What encryption costs an upload, what an upload costs in RAM, and how soon a killed router is back."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from ops.bench.line import BenchmarkLine
from router.spool import records

_MIB = 1024 * 1024
_SIZE = 200 * _MIB
_LARGE = 500 * _MIB
_ROUNDS = 5
_WITHOUT_ENCRYPTION = """
from router.spool import records
records.AESGCM = type("Plain", (), {
    "__init__": lambda self, key: None,
    "encrypt_into": lambda self, nonce, data, associated, room: room.__setitem__(slice(len(data)), data),
    "decrypt": lambda self, nonce, data, associated: data[:-16],
    "generate_key": staticmethod(lambda bit_length: bytes(bit_length // 8)),
})
from router.cli.main import main
main()
"""


class Router:
    """A router process without workers, on folders of its own."""

    def __init__(self, folder: Path, ram: Path, port: int, entry: list[str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, *entry, "serve", "--port", str(port)]
        folders = {"ROUTER_RAM_DIR": ram, "ROUTER_SPOOL_DIR": folder / "spool", "ROUTER_STATE_DIR": folder / "state"}
        self._environment = {**os.environ, **{name: str(path) for name, path in folders.items()}}

    def start(self) -> float:
        """Seconds from the start of the process to its first answer."""
        began = time.perf_counter()
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while time.perf_counter() - began < 60:
            try:
                httpx.get(f"{self.url}/v1/options", timeout=1)
            except httpx.HTTPError:
                time.sleep(0.01)
            else:
                return time.perf_counter() - began
        raise RuntimeError("the router did not start")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(how)
        self._process.wait(30)

    def upload_s(self, size: int) -> float:
        """Seconds for taking `size` bytes; the upload is left one byte short, so that nothing else happens."""
        with httpx.Client(base_url=self.url, timeout=120) as http:
            job = http.post("/v1/jobs", json={"size_bytes": size + 1}).json()
            began = time.perf_counter()
            headers = {"content-length": str(size)}
            http.put(f"/v1/jobs/{job['id']}/audio", content=_bytes(size), headers=headers).raise_for_status()
            took = time.perf_counter() - began
            http.delete(f"/v1/jobs/{job['id']}")
        return took

    def growth_mib(self, size: int) -> float:
        """How much more RAM the router holds at its peak while it takes one upload."""
        status = Path(f"/proc/{self._process.pid}")
        (status / "clear_refs").write_text("5")
        before = _status_mib(status, "VmRSS")
        self.upload_s(size)
        return _status_mib(status, "VmHWM") - before


def measure() -> list[BenchmarkLine]:
    with _router(["-m", "router"]) as ours, _router(["-c", _WITHOUT_ENCRYPTION]) as plain:
        ours.start()
        plain.start()
        try:
            for router in (ours, plain):
                router.upload_s(_SIZE)
            rounds = [(ours.upload_s(_SIZE), plain.upload_s(_SIZE), _encrypted_s(_SIZE)) for _ in range(_ROUNDS)]
            growth_mib = max(ours.growth_mib(_LARGE) for _ in range(3))
        finally:
            plain.end()
            ours.end(signal.SIGKILL)
        recoveries_s = []
        for _ in range(_ROUNDS):
            recoveries_s.append(ours.start())
            ours.end(signal.SIGKILL)
    return [
        BenchmarkLine(
            "200 MiB upload, time",
            statistics.median(encrypted / bare for encrypted, bare, _ in rounds),
            "×",
            "lower",
            None,
            "the same without encryption",
            1.0,
        ),
        BenchmarkLine(
            "what encryption adds to an upload, of AES-256-GCM over the same bytes",
            statistics.median((encrypted - bare) / in_memory for encrypted, bare, in_memory in rounds),
            "×",
            "lower",
            1.0,
            "in memory, 200 MiB (s)",
            statistics.median(in_memory for *_, in_memory in rounds),
        ),
        BenchmarkLine("RAM per upload of 500 MiB", growth_mib, "MiB", "lower", 2.0),
        BenchmarkLine("killed router, start to answer", statistics.median(recoveries_s), "s", "lower", 2.0),
    ]


def _encrypted_s(size: int) -> float:
    """Seconds of AES-256-GCM over so many bytes in memory, in records as the spool has them."""
    key, plain = records.new_key(), bytes(records.RECORD_BYTES)
    sealed = memoryview(bytearray(records.sealed_size(len(plain))))
    began = time.perf_counter()
    for index in range(size // len(plain)):
        records.seal(key, "ref", index, memoryview(plain), sealed, last=False)
    return time.perf_counter() - began


@contextmanager
def _router(entry: list[str]) -> Iterator[Router]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as ram:
        yield Router(Path(folder), Path(ram) / "router", port, entry)  # the lock beside it goes with it


def _bytes(size: int) -> Iterator[bytes]:
    block = os.urandom(_MIB)
    for _ in range(size // _MIB):
        yield block


def _status_mib(process: Path, name: str) -> float:
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024
