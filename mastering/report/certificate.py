"""A second opinion on a master, by meters that share no code with ours: pyloudnorm's and a sixteenfold soxr resampling.

The only door to pyloudnorm. De Man's filter class: pyloudnorm's default reads 0.04 LU low. A fresh meter for each call:
a shared one misreads under threads. pyloudnorm holds the whole song, so that longer ones are not certified.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyloudnorm
import soxr

from mastering.audio import decode, loading
from mastering.contract import Fault, FaultCode
from mastering.dsp.stream import Audio

_MOST_SAMPLES = 2 * 48_000 * 60 * 11
_FACTOR = 16


@dataclass(frozen=True)
class Certificate:
    """What the second meters read."""

    integrated_lufs: float
    true_peak_dbtp: float


def certify(source: BinaryIO, *, most_bytes: int = 1 << 34) -> Certificate:
    """Measure a finished master. Raises Fault(too_long) for more than eleven minutes of stereo at 48 kHz."""
    recording = decode.open_recording(source, most_bytes=most_bytes)
    audio = loading.load(recording, keep_samples=_MOST_SAMPLES, tick=lambda frames: None)
    if audio.samples is None:
        raise Fault(
            FaultCode.TOO_LONG,
            f"The second meter holds the whole song in memory: at most {_MOST_SAMPLES / 2 / 48_000 / 60:.0f} minutes.",
        )
    meter = pyloudnorm.Meter(audio.rate_hz, filter_class="DeMan")
    return Certificate(float(meter.integrated_loudness(audio.samples.T)), _true_peak_dbtp(audio))


def _true_peak_dbtp(audio: Audio) -> float:
    stream = soxr.ResampleStream(audio.rate_hz, audio.rate_hz * _FACTOR, audio.channels, dtype="float32", quality="VHQ")
    highest = 0.0
    for block in audio.read():
        for start in range(0, block.shape[1], 8192):
            piece = np.ascontiguousarray(block[:, start : start + 8192].T)
            highest = max(highest, float(np.abs(stream.resample_chunk(piece)).max(initial=0.0)))
    rest = stream.resample_chunk(np.zeros((0, audio.channels), np.float32), last=True)
    return 20 * math.log10(max(highest, float(np.abs(rest).max(initial=0.0)), 1e-10))
