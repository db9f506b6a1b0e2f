"""How long the engine takes and how much memory. One core each, unless a line says two.

Peers: ffmpeg's loudnorm in two passes, pedalboard's BrickwallLimiter (true peak) after a gain, Matchering with a minute
of another song as its reference. Each decodes the same 24-bit WAV and writes one. The others do less than the engine:
loudnorm and Matchering check nothing they wrote, and the limiter alone neither measures nor shapes.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pedalboard
import soundfile

from mastering.contract import Settings
from mastering.engine import pipeline
from ops.bench._cores import on_cores
from ops.bench.line import BenchmarkLine
from ops.bench.songs import RATE_HZ, as_wav, lasting, song

_ROUNDS = 5


def measure() -> list[BenchmarkLine]:
    data = as_wav(lasting(song("vibe_ace"), 240))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.wav"
        path.write_bytes(data)
        return [
            *_times(data, path),
            BenchmarkLine("peak memory, 4 minutes", _peak_mb(path), "MB", "lower", 450.0),
            BenchmarkLine("peak memory, 60 minutes", _peak_of_an_hour_mb(Path(folder)), "MB", "lower", 1500.0),
        ]


def _times(data: bytes, path: Path) -> list[BenchmarkLine]:
    peers: dict[str, Callable[[], object]] = {
        "ffmpeg loudnorm, 2 passes": lambda: _loudnorm(path),
        "pedalboard BrickwallLimiter": lambda: _brickwall(data),
        "Matchering 2.0.6": lambda: _matchering(path),
    }
    with on_cores(1):
        floor, ours, *theirs = _paired(lambda: _floor(data), lambda: _master(data), *peers.values())
    lines = [
        BenchmarkLine(f"time, 4 minutes, against {peer}", ours / floor, "x floor", "lower", 4.0, peer, taken / floor)
        for peer, taken in zip(peers, theirs, strict=True)
    ]
    # 4 x floor beside Matchering's 16 x: a machine that is quick at copying and slow at computing changes both.
    lines.append(
        BenchmarkLine(
            "time, 4 minutes, over Matchering's", ours / theirs[-1], "x", "lower", 0.25, "Matchering 2.0.6", 1.0
        )
    )
    if len(os.sched_getaffinity(0)) > 1:
        with on_cores(2):
            floor, ours = _paired(lambda: _floor(data), lambda: _master(data))
        lines.append(BenchmarkLine("time, 4 minutes, two threads", ours / floor, "x floor", "lower", 3.0))
    return lines


def _paired(*runs: Callable[[], object]) -> list[float]:
    """Medians of runs taken in turn, so that whatever else the machine does falls on all alike."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(_ROUNDS):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def _floor(data: bytes) -> None:
    samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32")
    soundfile.write(io.BytesIO(), samples, rate_hz, format="WAV", subtype="PCM_24")


def _master(data: bytes) -> None:
    pipeline.master(io.BytesIO(data), Settings(), open_output=lambda kind: io.BytesIO())


def _loudnorm(path: Path) -> None:
    goal = "loudnorm=I=-14:TP=-1:LRA=11"
    first = _ffmpeg("-i", path, "-af", f"{goal}:print_format=json", "-f", "null", "-")
    found = json.loads(first[first.rindex("{") : first.rindex("}") + 1])
    measured = (
        f"measured_I={found['input_i']}:measured_TP={found['input_tp']}:measured_LRA={found['input_lra']}"
        f":measured_thresh={found['input_thresh']}:offset={found['target_offset']}:linear=false"
    )
    out = path.with_name("loudnorm.wav")
    _ffmpeg("-i", path, "-af", f"{goal}:{measured}", "-ar", RATE_HZ, "-c:a", "pcm_s24le", out)


def _brickwall(data: bytes) -> None:
    samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32")
    limited = pedalboard.BrickwallLimiter(-1.0, true_peak=True)(samples * 2, rate_hz)
    soundfile.write(io.BytesIO(), limited, rate_hz, format="WAV", subtype="PCM_24")


def _matchering(path: Path) -> None:
    import matchering

    reference = path.with_name("reference.wav")
    if not reference.exists():
        reference.write_bytes(as_wav(lasting(song("sugar_plum_fairy"), 60)))
    matchering.process(str(path), str(reference), [matchering.pcm24(str(path.with_name("matchering.wav")))])


def _ffmpeg(*arguments: object) -> str:
    command = ["ffmpeg", "-hide_banner", "-nostats", "-y", "-threads", "1", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def _peak_of_an_hour_mb(folder: Path) -> float:
    path = folder / "hour.flac"
    minute = lasting(song("vibe_ace"), 60)
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, "PCM_16") as file:
        for _ in range(60):
            file.write(minute.T)
    return _peak_mb(path)


_MASTER_ALONE = """
import sys
from pathlib import Path
from mastering.engine.pipeline import master
from mastering.contract import Settings
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "w+b") as target:
    master(source, Settings(), open_output=lambda kind: target)
# Not ru_maxrss: that of a child starts at its parent's.
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def _peak_mb(path: Path) -> float:
    """Peak resident memory of a process that masters one file and does nothing else."""
    command = [sys.executable, "-c", _MASTER_ALONE, str(path), str(path.with_name("out.wav"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024
