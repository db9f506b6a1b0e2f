"""Signals, real songs and independent meters that the engine's tests share."""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mastering.contract import OutputFormat, Report, Settings, Stage
from mastering.engine import pipeline
from mastering.engine.demo import demo_song

SONGS = ("vibe_ace.ogg", "sugar_plum_fairy.ogg")
_FOLDER = Path(os.environ.get("MASTERING_TEST_AUDIO") or Path(__file__).parents[3] / "shared" / "audio")


def real_song(name: str) -> Path:
    """The path of a real song; skips the test where there are none, fails where they are promised."""
    path = _FOLDER / name
    if path.exists():
        return path
    if os.environ.get("CI") == "true" and _FOLDER.exists():
        pytest.fail(f"{name} is missing beside the other songs")
    pytest.skip("no real songs here: set MASTERING_TEST_AUDIO to their folder")


def music(rate_hz: int = 44_100, channels: int = 2, seconds: float = 12.0) -> np.ndarray:
    """Music-like float32 (channels, frames)."""
    song = demo_song(rate_hz, seconds)
    return song if channels == 2 else song.mean(axis=0, keepdims=True).astype(np.float32)


def loud_mix(rate_hz: int = 44_100, channels: int = 2, seconds: float = 12.0) -> np.ndarray:
    """Music as producers hand it in who like it loud: driven into soft clipping."""
    return (0.5 * np.tanh(6 * music(rate_hz, channels, seconds))).astype(np.float32)


def wav(samples: np.ndarray, rate_hz: int = 44_100, subtype: str = "FLOAT", container: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.T, rate_hz, format=container, subtype=subtype)
    return file.getvalue()


def decoded(audio: bytes) -> np.ndarray:
    """Float64 (channels, frames)."""
    samples, _ = soundfile.read(io.BytesIO(audio), always_2d=True)
    return samples.T


def master(
    source: bytes, settings: Settings, progress: Callable[[Stage, float], None] = lambda stage, fraction: None
) -> tuple[Report, dict[OutputFormat, bytes]]:
    outputs: dict[OutputFormat, io.BytesIO] = {}

    def open_output(kind: OutputFormat) -> io.BytesIO:
        return outputs.setdefault(kind, io.BytesIO())

    report = pipeline.master(io.BytesIO(source), settings, open_output=open_output, progress=progress)
    return report, {kind: file.getvalue() for kind, file in outputs.items()}


def ffmpeg(*arguments: Any, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["ffmpeg", "-hide_banner", "-nostats", "-y", *map(str, arguments)], input=stdin, capture_output=True, check=True
    )


def ebur128(audio: bytes, suffix: str, folder: Path) -> tuple[float, float]:
    """(integrated LUFS, true peak dBTP) by ffmpeg's meter, to its one decimal."""
    path = folder / f"metered.{suffix}"
    path.write_bytes(audio)
    log = ffmpeg("-i", path, "-af", "ebur128=peak=true", "-f", "null", "-").stderr.decode()
    summary = log[log.rindex("Summary:") :]
    loudness, peak = re.search(r"I:\s+(\S+) LUFS", summary), re.search(r"Peak:\s+(\S+) dBFS", summary)
    assert loudness is not None
    assert peak is not None
    return float(loudness[1]), float(peak[1])


def fine_true_peak_dbtp(samples: np.ndarray) -> float:
    """True peak by a 16 x Fourier interpolation of the whole signal: slow, exact, and nothing of ours in it."""
    from scipy import fft

    highest = 0.0
    for channel in samples.astype(np.float64):
        size = fft.next_fast_len(channel.size)
        bins = fft.rfft(channel, size)
        # One shift by a sixteenth of a sample at a time: memory for one copy only.
        turn = np.exp(2j * np.pi * np.arange(bins.size) / size / 16)
        for _ in range(16):
            highest = max(highest, float(np.abs(fft.irfft(bins, size)).max()))
            bins *= turn
    return float(20 * np.log10(highest))
