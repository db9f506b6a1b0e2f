"""Peaks of the wave between the samples, block by block, by band-limited interpolation.

A block's peak is the largest magnitude over both the samples of the block and the points interpolated after each of
them, over all channels. The interpolator is a Kaiser-windowed sinc, written as one matrix so that a block is one row
of a matrix product. Worst under-read, at half the sample rate: 0.69 dB for 4 x, 0.04 dB for 16 x (BS.1770-5 annex 2).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from mastering.dsp.stream import Samples

Peaks = NDArray[np.float64]

_HALF_TAPS = {4: 12, 16: 80}
"""Frames of context that a block needs on either side. The finer reading is few blocks' work and reaches higher."""
_KAISER = {4: 5.0, 16: 4.5}
_GRID = 2.0**-17
_OVERSHOOT = 1.6
"""How far the wave between may rise above its samples: 3 dB for the worst pure tone, and some to spare."""


def block_length(rate_hz: int) -> int:
    """Frames in a peak block: a power of two of about 0.7 ms."""
    return int(max(4, 1 << round(math.log2(rate_hz / 1500))))


@cache
def _interpolator(factor: int, length: int) -> NDArray[np.float64]:
    """Matrix (length + 2 half, length * (factor - 1)): a block with its context times this gives the points between."""
    half, shape = _HALF_TAPS[factor], _KAISER[factor]
    offset = np.arange(length)[:, None] + (np.arange(1, factor) / factor)[None, :]
    distance = np.arange(length + 2 * half)[:, None] - half - offset.reshape(1, -1)
    inside = np.clip(1 - (distance / half) ** 2, 0, None)
    taps = np.sinc(distance) * np.i0(shape * np.sqrt(inside)) / np.i0(shape)
    matrix: NDArray[np.float64] = np.where(np.abs(distance) < half, taps, 0.0)
    return matrix


def _interpolated(rows: NDArray[np.floating], factor: int) -> Peaks:
    """Largest magnitude between the samples of each row (rows, length + 2 half). Shape (rows,)."""
    length = rows.shape[1] - 2 * _HALF_TAPS[factor]
    points = rows @ _interpolator(factor, length).astype(rows.dtype)
    peaks: Peaks = np.maximum(points.max(axis=1), -points.min(axis=1)).astype(np.float64)
    return peaks


class PeakMeter:
    """Collects block peaks from the blocks of a recording.

    Where no sample in reach of a block comes within 4 dB of `above`, the wave between cannot matter to whoever asks
    about `above`: such a block's peak is that of its samples. With `only`, a mask over all peak blocks, the others are
    not looked at and read 0. Peaks are rounded up to a fixed grid (2⁻¹⁷, under 0.001 dB at −20 dBFS), which hides the
    last bits in which matrix libraries differ from one CPU to another.
    """

    def __init__(
        self, rate_hz: int, *, factor: int = 4, above: float = 0.0, only: NDArray[np.bool_] | None = None
    ) -> None:
        self._length = block_length(rate_hz)
        self._factor = factor
        self._half = _HALF_TAPS[factor]
        self._only = only
        self._held: Samples | None = None
        self._found: list[Peaks] = []
        self._count = 0
        self.above = above

    def feed(self, block: Samples) -> None:
        """Takes the next block; its own last peaks wait for the context that the following block brings."""
        if self._held is None:
            self._held = np.zeros((block.shape[0], self._half), np.float32)
        joined = np.concatenate([self._held, block], axis=1)
        count = max(0, (joined.shape[1] - 2 * self._half) // self._length)
        self._measure(joined, count)
        self._held = joined[:, count * self._length :].copy()

    def peaks(self) -> Peaks:
        """Ends the recording. Shape (blocks,), the last one padded with silence."""
        if self._held is not None:
            left = self._held.shape[1] - self._half
            count = math.ceil(left / self._length)
            padding = count * self._length - left + self._half
            self._measure(np.pad(self._held, ((0, 0), (0, padding))), count)
            self._held = None
        return np.concatenate(self._found) if self._found else np.zeros(0)

    def _measure(self, padded: Samples, count: int) -> None:
        if not count:
            return
        inner = padded[:, self._half : self._half + count * self._length]
        peaks, where = self._candidates(inner, count)
        for channel in padded if where.size else ():
            rows = _rows(channel, self._length, self._half, count)[where].astype(np.float64)
            peaks[where] = np.maximum(peaks[where], _interpolated(rows, self._factor))
        self._found.append(np.ceil(peaks / _GRID) * _GRID)
        self._count += count

    def _candidates(self, inner: Samples, count: int) -> tuple[Peaks, NDArray[np.intp]]:
        if self._only is not None:
            where = np.flatnonzero(self._only[self._count : self._count + count])
            peaks = np.zeros(count)
            if where.size:
                shaped = inner.reshape(inner.shape[0], count, self._length)[:, where]
                peaks[where] = np.abs(shaped).max(axis=(0, 2))
            return peaks, where
        peaks = _sample_peaks(inner, self._length)
        before, after = np.append(np.inf, peaks[:-1]), np.append(peaks[1:], np.inf)
        reach = np.maximum(np.maximum(before, after), peaks)
        return peaks, np.flatnonzero(reach * _OVERSHOOT > self.above)


def _sample_peaks(block: Samples, length: int) -> Peaks:
    """Largest sample magnitude of each peak block over all channels; frames must be a multiple of `length`."""
    rectified = np.abs(block)
    for channel in rectified[1:]:
        np.maximum(rectified[0], channel, out=rectified[0])
    # A maximum along the long axis is many times as fast as one along the short axis.
    upright = np.ascontiguousarray(rectified[0].reshape(-1, length).T)
    peaks: Peaks = upright.max(axis=0).astype(np.float64)
    return peaks


def _rows(padded: Samples, length: int, half: int, count: int) -> Samples:
    """A view of `count` blocks of one channel, each with `half` frames of context on either side."""
    step = padded.strides[0]
    return as_strided(padded, (count, length + 2 * half), (step * length, step), writeable=False)
