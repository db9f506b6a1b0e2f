"""What the sandbox costs: a warm probe and a verification, against the same decoding in one's own process."""

from __future__ import annotations

import asyncio
import io
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import soundfile

from mastering.contract.kinds import ExpectedAudio
from ops.bench.line import BenchmarkLine
from ops.bench.songs import RATE_HZ, as_wav, lasting, song
from router.probe.client import Probe

_ROUNDS = 15


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
        whole, plain = await _paired(lambda: probe.verify(_feed(fractions), master), lambda: _decode(fractions))
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
            "verification, 4 minutes of float WAV", whole * 1000, "ms", "lower", None, "in place", plain * 1000
        ),
        BenchmarkLine("verification of float over decoding in place", whole / plain, "x", "lower", 4.0),
    ]


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
    for at in range(0, len(data), 262_144):
        yield data[at : at + 262_144]


async def _decode(data: bytes) -> None:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        for block in file.blocks(65_536, dtype="float32", always_2d=True):
            block.max(), block.min()
