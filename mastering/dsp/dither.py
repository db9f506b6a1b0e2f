"""Samples to whole numbers, once and last, with triangular dither drawn from the plan's seed.

The dither is the difference of two neighbouring uniform draws of ±½ step: triangular, ±1 step wide, and tilted to
high frequencies where it is heard least. Each block has its own stream, so that blocks may be made in any order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mastering.dsp.stream import Samples


def quantise(block: Samples, bits: int, *, seed: int, index: int) -> NDArray[np.int32]:
    """Integers of `bits`, left-aligned in 32 bits. Shape (channels, frames), as `block`, which is number `index`."""
    steps = 2 ** (bits - 1)
    noise = _triangular(block.shape, seed, index)
    values = block.astype(np.float64)
    values *= steps
    values += noise
    np.rint(values, out=values)
    np.clip(values, -steps, steps - 1, out=values)
    return values.astype(np.int32) << (32 - bits)


def _triangular(shape: tuple[int, ...], seed: int, index: int) -> NDArray[np.float32]:
    channels, frames = shape
    draws = channels * (frames + 1)
    raw = np.random.SFC64([seed, index]).random_raw(-(-draws // 4)).view(np.uint16)[:draws]
    uniform = raw.reshape(channels, frames + 1).astype(np.float32)
    return (uniform[:, 1:] - uniform[:, :-1]) * np.float32(2.0**-16)
