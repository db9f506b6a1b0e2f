"""How long the engine takes and how much memory. One core each, unless a line says two.

The engine is measured with the second meters (pyloudnorm, soxr), which read every master before it is delivered, and
without them, as its peers are: none of those looks at what it wrote.

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

from mastering.contract import OutputFormat, Settings
from mastering.engine import pipeline
from ops.bench._cores import on_cores
from ops.bench.line import BenchmarkLine
from ops.bench.songs import RATE_HZ, as_wav, lasting, song

_ROUNDS = 5
_MOST_FLOORS, _MOST_FLOORS_TWICE, _MOST_FLOORS_TWO_THREADS = 3.0, 5.5, 3.0
"""Of the engine: without the second meters and with them on one core; on two, either way."""
_THREE_FORMATS = OutputFormat.WAV24, OutputFormat.FLAC, OutputFormat.MP3
_MOST_OF_THREE = 2.5
_SECOND_METER_FRAMES = 29_100_000
_MOST_SECOND_METERS_MB = 1200.0


def measure() -> list[BenchmarkLine]:
    data = as_wav(lasting(song("vibe_ace"), 240))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.wav"
        path.write_bytes(data)
        return [
            *_times(data, path),
            _time_of_formats(data),
            *_memory(path, Path(folder)),
        ]


def _times(data: bytes, path: Path) -> list[BenchmarkLine]:
    peers: dict[str, Callable[[], object]] = {
        "ffmpeg loudnorm, 2 passes": lambda: _loudnorm(path),
        "pedalboard BrickwallLimiter": lambda: _brickwall(data),
        "Matchering 2.0.6": lambda: _matchering(path),
    }
    with on_cores(1):
        floor, ours, both, *theirs = _paired(
            lambda: _floor(data), lambda: _master(data, twice=False), lambda: _master(data), *peers.values()
        )
    lines = [
        BenchmarkLine(
            f"time, 4 minutes, against {peer}", ours / floor, "x floor", "lower", _MOST_FLOORS, peer, taken / floor
        )
        for peer, taken in zip(peers, theirs, strict=True)
    ]
    lines.append(
        BenchmarkLine("time, 4 minutes, with the second meters", both / floor, "x floor", "lower", _MOST_FLOORS_TWICE)
    )
    # 3 x floor beside Matchering's 16 x: a machine that is quick at copying and slow at computing changes both.
    lines.append(
        BenchmarkLine(
            "time, 4 minutes, over Matchering's", ours / theirs[-1], "x", "lower", 0.25, "Matchering 2.0.6", 1.0
        )
    )
    if len(os.sched_getaffinity(0)) > 1:
        with on_cores(2):
            floor, ours, both = _paired(lambda: _floor(data), lambda: _master(data, twice=False), lambda: _master(data))
        two, limit = "time, 4 minutes, two threads", _MOST_FLOORS_TWO_THREADS
        lines.append(BenchmarkLine(two, ours / floor, "x floor", "lower", limit))
        lines.append(BenchmarkLine(f"{two}, with the second meters", both / floor, "x floor", "lower", limit))
    return lines


def _time_of_formats(data: bytes) -> BenchmarkLine:
    """On two cores where there are two, as people wait for it."""
    with on_cores(min(2, len(os.sched_getaffinity(0)))):
        wav, three = _paired(lambda: _master(data), lambda: _master(data, *_THREE_FORMATS))
    return BenchmarkLine("time, 4 minutes, WAV, FLAC and MP3 over WAV alone", three / wav, "x", "lower", _MOST_OF_THREE)


def _memory(path: Path, folder: Path) -> list[BenchmarkLine]:
    second = f"second meters' memory, {_SECOND_METER_FRAMES / 1e6:.1f} million frames"
    return [
        BenchmarkLine("peak memory, 4 minutes", _peak_mb(path, twice=False), "MB", "lower", 450.0),
        BenchmarkLine("peak memory, 60 minutes", _peak_of_an_hour_mb(folder), "MB", "lower", 1500.0),
        BenchmarkLine(second, _second_meters_mb(), "MB", "lower", _MOST_SECOND_METERS_MB),
    ]


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


def _master(data: bytes, *formats: OutputFormat, twice: bool = True) -> None:
    settings = Settings(outputs=formats or (OutputFormat.WAV24,))
    pipeline.master(io.BytesIO(data), settings, open_output=lambda kind: io.BytesIO(), twice=twice)


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
    master(source, Settings(), open_output=lambda kind: target, twice=sys.argv[3] == "twice")
# Not ru_maxrss: that of a child starts at its parent's.
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def _peak_mb(path: Path, *, twice: bool = True) -> float:
    """Peak resident memory of a process that masters one file and does nothing else."""
    meters = "twice" if twice else "once"
    command = [sys.executable, "-c", _MASTER_ALONE, str(path), str(path.with_name("out.wav")), meters]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


_SECOND_METERS_ALONE = """
import sys
from pathlib import Path
import numpy as np
from mastering.dsp.second_meter import SecondMeter
from mastering.dsp.stream import BLOCK_FRAMES
def kilobytes(name):
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name)))
noise = np.random.default_rng(1).normal(0, 0.1, (2, BLOCK_FRAMES)).astype(np.float32)
idle = kilobytes("VmRSS")
with SecondMeter(44_100, 2) as meter:
    for _ in range(int(sys.argv[1]) // BLOCK_FRAMES):
        meter.feed(noise)
    meter.readings()
print(kilobytes("VmHWM") - idle)
"""


def _second_meters_mb() -> float:
    """What the second meters take above an idle process for so many stereo frames."""
    command = [sys.executable, "-c", _SECOND_METERS_ALONE, str(_SECOND_METER_FRAMES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024
