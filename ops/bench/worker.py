"""What one exchange with a worker costs beyond the render: 20 MB in, 20 MB out, an engine that only copies."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable

from mastering.protocol.frames import Seal
from mastering.protocol.signing import Signer
from ops.bench.line import BenchmarkLine
from tests.mastering.worker_process import WorkerProcess, request_body, running_worker, until

_ROUNDS = 7
_SECRET = "a secret for a benchmark, of 32 bytes"  # noqa: S105 - of a worker that lives for a second
_SONG = os.urandom(20_000_000)


def measure() -> list[BenchmarkLine]:
    with (
        running_worker() as plain,
        running_worker(signer=Signer("bench", _SECRET.encode()), keys=json.dumps({"bench": _SECRET})) as signed,
    ):
        open_s, sealed_s, floor_s = _paired(lambda: _exchange(plain), lambda: _exchange(signed), _floor)
        hang_up_s = _hang_up()
    return [
        BenchmarkLine(
            "exchange, 20 MB each way", open_s * 1000, "ms", "lower", None, "copied and sealed in place", floor_s * 1000
        ),
        BenchmarkLine("signed and sealed over plain", sealed_s / open_s, "x", "lower", 2.0),
        BenchmarkLine("hang-up to free slot", hang_up_s * 1000, "ms", "lower", 1000.0),
    ]


def _paired(*runs: Callable[[], float]) -> list[float]:
    """Medians of runs taken in turn; each says itself how long it took."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(_ROUNDS):
        for run, taken in zip(runs, times, strict=True):
            taken.append(run())
    return [statistics.median(taken) for taken in times]


def _exchange(worker: WorkerProcess) -> float:
    slot = worker.slot()
    start = time.perf_counter()
    worker.exchange(lambda seal: request_body(_SONG, seal=seal), slot)
    return time.perf_counter() - start


def _floor() -> float:
    """Four seals (each side, each way) and a copy of the bytes for each of the four buffers they pass through."""
    start = time.perf_counter()
    for _ in range(4):
        Seal().pass_on(bytes(bytearray(_SONG)))
    return time.perf_counter() - start


def _hang_up() -> float:
    with running_worker("tests.mastering.worker_engines:hang") as worker:
        slot = worker.slot()
        headers = {"mastering-slot": slot}
        with worker.client.stream("POST", "/v1/renders", content=request_body(b"abc"), headers=headers) as response:
            next(response.iter_raw())
        start = time.perf_counter()
        until(lambda: worker.free_slots() == 1)
        return time.perf_counter() - start
