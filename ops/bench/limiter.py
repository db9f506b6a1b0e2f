"""Distortion by limiters: test tones driven 6 dB into a ceiling of −1 dB, what is not the scaled input is residual.

A logarithmic sine sweep and two tones (60 Hz with 7 kHz). In windows of 50 ms the input is scaled to fit the output
best, so that the intended change of level does not count; the residual's power is given against the output's. The first
and the last half second are left out.

Each peer is driven so hard that it takes as much on average as ours does (to 0.01 dB), so residuals are compared at the
same reduction. A limiter that holds its gain for longer than the tones' common period (50 ms for the two) turns them
down once and for good and leaves next to nothing behind: that is BrickwallLimiter's −149 dB. What such a hold costs
shows on music: the last lines drive a real song 6 dB into the same ceiling and give the loudness that comes out.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import numpy as np
import pedalboard
import pyloudnorm

from mastering.dsp.limiter import Limiter, apply
from mastering.dsp.true_peak import PeakMeter, block_length
from ops.bench.line import BenchmarkLine
from ops.bench.songs import RATE_HZ, Samples, lasting, song

Limiting = Callable[[Samples, float], Samples]

_DRIVE_DB = 5.0
_CEILING_DB = -1.0
_SECONDS = 8.0


def measure() -> list[BenchmarkLine]:
    lines = []
    for name, tones in (("sine sweep", _sweep()), ("two tones", _two_tones())):
        ours = _gain_and_residual_db(_ours(tones, _DRIVE_DB), tones)
        for peer, run in _PEERS.items():
            theirs = _residual_at(run, tones, ours[0])
            lines.append(BenchmarkLine(f"{name}, residual, against {peer}", ours[1], "dB", "lower", None, peer, theirs))
    music = lasting(song("vibe_ace"), 30)
    music = music / np.float32(np.abs(music).max())
    ours_lufs = _lufs(_ours(music, _DRIVE_DB))
    for peer, run in _PEERS.items():
        theirs = _lufs(run(music, _DRIVE_DB))
        lines.append(BenchmarkLine(f"song, loudness, against {peer}", ours_lufs, "LUFS", "higher", None, peer, theirs))
    return lines


def _residual_at(run: Limiting, tones: Samples, goal_db: float) -> float:
    """The residual when `run` is driven so that its mean gain is `goal_db`."""
    drive_db, left_db = _DRIVE_DB, 0.0
    for _ in range(6):
        taken_db, left_db = _gain_and_residual_db(run(tones, drive_db), tones)
        # Measured against the undriven tones: what the drive adds must not count as less reduction.
        miss = (taken_db - drive_db) - (goal_db - _DRIVE_DB)
        if abs(miss) < 0.01:
            break
        drive_db += miss
    return left_db


def _time() -> np.ndarray:
    return np.arange(round(_SECONDS * RATE_HZ)) / RATE_HZ


def _sweep() -> Samples:
    """20 Hz to 16 kHz at full scale."""
    rate = np.log(16_000 / 20) / _SECONDS
    wave = np.sin(2 * np.pi * 20 / rate * np.expm1(_time() * rate))
    return np.tile(wave, (2, 1)).astype(np.float32)


def _two_tones() -> Samples:
    wave = 0.7 * np.sin(2 * np.pi * 60 * _time()) + 0.3 * np.sin(2 * np.pi * 7000 * _time())
    return np.tile(wave, (2, 1)).astype(np.float32)


def _ours(samples: Samples, drive_db: float) -> Samples:
    meter = PeakMeter(RATE_HZ)
    meter.feed(samples)
    curve = Limiter(_CEILING_DB).curve(meter.peaks(), 10 ** (drive_db / 20), RATE_HZ)
    return apply(samples, curve, 0, block_length(RATE_HZ))


def _pedalboard(samples: Samples, drive_db: float) -> Samples:
    limiter = pedalboard.Limiter(threshold_db=_CEILING_DB, release_ms=100)
    return np.asarray(limiter(samples * np.float32(10 ** (drive_db / 20)), RATE_HZ))


def _brickwall(samples: Samples, drive_db: float) -> Samples:
    limiter = pedalboard.BrickwallLimiter(_CEILING_DB, true_peak=True)
    return np.asarray(limiter(samples * np.float32(10 ** (drive_db / 20)), RATE_HZ))


def _alimiter(samples: Samples, drive_db: float) -> Samples:
    filters = f"volume={drive_db}dB,alimiter=limit={10 ** (_CEILING_DB / 20)}:attack=5:release=50:level=disabled"
    raw = ["-f", "f32le", "-ar", str(RATE_HZ), "-ac", "2"]
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", *raw, "-i", "-", "-af", filters, *raw, "-"]
    done = subprocess.run(command, input=samples.T.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.float32).reshape(-1, 2).T


_PEERS: dict[str, Limiting] = {
    "pedalboard Limiter": _pedalboard,
    "pedalboard BrickwallLimiter": _brickwall,
    "ffmpeg alimiter": _alimiter,
}


def _lufs(samples: Samples) -> float:
    meter = pyloudnorm.Meter(RATE_HZ, filter_class="DeMan")
    return float(meter.integrated_loudness(samples.T.astype(np.float64)))


def _gain_and_residual_db(output: Samples, source: Samples) -> tuple[float, float]:
    """Mean gain from source to output in dB, and the power of what is left of the output when the best-fitting scaled
    input is taken away, against the output's, in dB."""
    delay = _delay(output[0], source[0])
    frames = min(output.shape[1] - delay, source.shape[1])
    width, edge = RATE_HZ // 20, RATE_HZ // 2
    x = _windows(source[0, :frames], width, edge)
    y = _windows(output[0, delay : delay + frames], width, edge)
    scale = (x * y).sum(axis=1) / np.maximum((x * x).sum(axis=1), 1e-12)
    residual = y - scale[:, None] * x
    mean_gain_db = float(20 * np.log10(np.abs(scale)).mean())
    return mean_gain_db, float(10 * np.log10((residual**2).sum() / (y**2).sum()))


def _windows(samples: np.ndarray, width: int, edge: int) -> np.ndarray:
    inner = samples[edge : samples.size - edge].astype(np.float64)
    return inner[: inner.size // width * width].reshape(-1, width)


def _delay(output: np.ndarray, source: np.ndarray) -> int:
    """Frames by which the output is late, by cross-correlation over the first 20 ms."""
    part = source[RATE_HZ : 2 * RATE_HZ].astype(np.float64)
    scores = [float(part @ output[RATE_HZ + lag : 2 * RATE_HZ + lag]) for lag in range(RATE_HZ // 50)]
    return int(np.argmax(scores))
