"""Samples to whole numbers, once and last, with triangular dither drawn from the plan's seed.

The dither is the difference of two neighbouring uniform draws of ±½ step: triangular, ±1 step wide, and tilted to
high frequencies where it is heard least. Each block has its own stream, so that blocks may be made in any order.

All of it in 32-bit integers, which every CPU adds up alike: float32 holds no more than their 31 bits for what is above
−42 dBFS, and what is cut off below lies 7 bits under the last step of 24 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mastering.dsp.stream import Samples


def quantise(block: Samples, bits: int, *, seed: int, index: int) -> NDArray[np.int32]:
    """Integers of `bits`, left-aligned in 32 bits. Shape (channels, frames), as `block`, which is number `index`."""
    step = 1 << (32 - bits)
    # Room for the dither and for rounding: two steps below full scale.
    most = np.float32(1 - 2 * step / 2**31)
    scaled = np.clip(block, -most, most)
    scaled *= np.float32(2**31)
    values = scaled.astype(np.int32)
    draws = _draws(block.shape, seed, index, bits - 16)
    values += draws[:, 1:]
    values -= draws[:, :-1]
    values += step >> 1
    values &= -step
    return values


def _draws(shape: tuple[int, ...], seed: int, index: int, shift: int) -> NDArray[np.uint16]:
    """Uniform draws (channels, frames + 1) between nothing and one step: 16 bits, less `shift` for a finer step."""
    channels, frames = shape
    count = channels * (frames + 1)
    raw = np.random.SFC64([seed, index]).random_raw(-(-count // 4)).view(np.uint16)[:count]
    return raw.reshape(channels, frames + 1) >> np.uint16(shift)
