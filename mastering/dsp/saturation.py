"""Gentle saturation at four times the sample rate, so that the harmonics it makes do not fold back.

The curve is x − d · x³ / 3 within the bounds where it rises (a cubic soft clipper; d is the drive squared), unity for
quiet sounds; the level is that of the whole song, so that the same drive colours loud and quiet songs alike. Only what
the curve takes away is oversampled: of the song itself, which stays as it is, the resampler would ring before a click.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import soxr

from mastering.dsp.resample import exactly
from mastering.dsp.stream import Blocks, Samples, reblock

_FACTOR = 4


def saturated(blocks: Blocks, rate_hz: int, channels: int, frames: int, *, drive: float, peak: float) -> Blocks:
    """`drive` 0 … 1; `peak` is the level (linear) that is bent most. All blocks but the last are of `BLOCK_FRAMES`."""
    held: deque[Samples] = deque()

    def holding() -> Blocks:
        for block in blocks:
            held.append(block)
            yield block

    for taken in reblock(exactly(_oversampled(holding(), rate_hz, channels, drive, peak), frames)):
        yield held.popleft() - taken


def _oversampled(blocks: Blocks, rate_hz: int, channels: int, drive: float, peak: float) -> Iterator[Samples]:
    up = soxr.ResampleStream(rate_hz, rate_hz * _FACTOR, channels, dtype="float32", quality="HQ")
    down = soxr.ResampleStream(rate_hz * _FACTOR, rate_hz, channels, dtype="float32", quality="HQ")
    for block in blocks:
        fine = up.resample_chunk(np.ascontiguousarray(block.T))
        yield np.ascontiguousarray(down.resample_chunk(_taken(fine, drive, peak)).T)
    rest = up.resample_chunk(np.zeros((0, channels), np.float32), last=True)
    yield np.ascontiguousarray(down.resample_chunk(_taken(rest, drive, peak), last=True).T)


def _taken(samples: Samples, drive: float, peak: float) -> Samples:
    """What the cubic soft clipper takes from the samples."""
    scaled = np.clip(samples / np.float32(peak), -1.0, 1.0)
    bent: Samples = scaled**3 * np.float32(peak * drive / 3)
    return bent
