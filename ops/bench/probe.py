"""What the sandbox costs: a warm probe and a verification, against the same decoding in one's own process."""

from __future__ import annotations

import asyncio
import io
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import soundfile

from mastering.contract.kinds import ExpectedAudio
from ops.bench.line import BenchmarkLine
from ops.bench.songs import RATE_HZ, as_wav, lasting, song
from router.probe.client import Probe

_ROUNDS = 15
_PIECE_BYTES = 256 * 1024
"""Sent at a time."""


def measure() -> list[BenchmarkLine]:
    return asyncio.run(_measure())


async def _measure() -> list[BenchmarkLine]:
    short, music = as_wav(lasting(song("vibe_ace"), 3), "PCM_16"), lasting(song("vibe_ace"), 240)
    numbers, fractions = as_wav(music), as_wav(music, "FLOAT")
    master = ExpectedAudio(frames=240 * RATE_HZ, rate_hz=RATE_HZ, channels=2)
    probe = Probe()
    await probe.start()
    try:
        warm, decode = await _paired(lambda: probe.probe(_feed(short)), lambda: _decode(short))
        sent, decoded = await _paired(lambda: probe.verify(_feed(numbers), master), lambda: _decode(numbers))
        with _other_process() as there:
            whole, plain, moved = await _paired(
                lambda: _verified_as_it_arrives(probe, master, fractions),
                lambda: _decode(fractions),
                lambda: asyncio.to_thread(_send_and_check, there, fractions),
            )
    finally:
        await probe.close()
    return [
        BenchmarkLine("warm probe, 3 s of WAV", warm * 1000, "ms", "lower", 20.0, "decoded in place", decode * 1000),
        BenchmarkLine(
            "verification, 4 minutes of 24-bit WAV, sent whole",
            sent * 1000,
            "ms",
            "lower",
            None,
            "in place",
            decoded * 1000,
        ),
        BenchmarkLine(
            "verification, 4 minutes of float WAV, as it arrives",
            whole * 1000,
            "ms",
            "lower",
            None,
            "in place",
            plain * 1000,
        ),
        BenchmarkLine("verification of float over decoding in place", whole / plain, "x", "lower", 4.0),
        BenchmarkLine(
            "verification of float over sending and checking the same floats",
            whole / moved,
            "x",
            "lower",
            2.0,
            "a process that only does that (ms)",
            moved * 1000,
        ),
    ]


_CHECKER = """
import socket, sys
import numpy as np
source, piece = socket.socket(fileno=int(sys.argv[1])), bytearray(256 * 1024)
while size := int.from_bytes(source.recv(8), "big"):
    peak = 0.0
    while size:
        wanted = memoryview(piece)[: min(size, len(piece))]
        size -= len(wanted)
        while wanted:
            wanted = wanted[source.recv_into(wanted) :]
        floats = np.frombuffer(piece, "<f4")
        peak = max(peak, float(floats.max()), -float(floats.min()))
    source.send(b"+")
"""
"""Reads floats from a socket and looks for the largest: the least that a check in another process can do."""


@contextmanager
def _other_process() -> Iterator[socket.socket]:
    """A socket to a process that checks floats and does nothing else."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", _CHECKER, str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        yield ours
        ours.close()
        process.wait(30)


def _send_and_check(there: socket.socket, data: bytes) -> None:
    floats = memoryview(data)[len(data) % 4 :]
    there.sendall(len(floats).to_bytes(8, "big"))
    for at in range(0, len(floats), _PIECE_BYTES):
        there.sendall(floats[at : at + _PIECE_BYTES])
    there.recv(1)


async def _verified_as_it_arrives(probe: Probe, master: ExpectedAudio, data: bytes) -> None:
    """As an output is verified that a backend sends: each piece goes to the probe from the thread that has it."""
    tap = probe.tap_output(master, len(data))
    if tap is None:
        raise RuntimeError("an output of known size is verified as it arrives")

    def write_all() -> None:
        for at in range(0, len(data), _PIECE_BYTES):
            tap.write(memoryview(data)[at : at + _PIECE_BYTES])

    try:
        await asyncio.to_thread(write_all)
        if await tap.result() is None:
            raise RuntimeError("the probe fell behind")
    finally:
        tap.close()


async def _paired(*runs: Callable[[], Awaitable[object]]) -> list[float]:
    """Medians of runs taken in turn."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        await run()
    for _ in range(_ROUNDS):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            await run()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


async def _feed(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), _PIECE_BYTES):
        yield data[at : at + _PIECE_BYTES]


async def _decode(data: bytes) -> None:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        for block in file.blocks(65_536, dtype="float32", always_2d=True):
            block.max(), block.min()
