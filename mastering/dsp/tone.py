"""The tone of a reference in one linear-phase filter each for mid and side.

A curve of decibels over frequency becomes a symmetric FIR filter (frequency sampling, then a window: Oppenheim and
Schafer, "Discrete-Time Signal Processing", 7.5), applied by overlap-save in blocks. Its delay is taken out, so that
the result has the frames of the source. The offset (0 Hz) is always removed.

The arithmetic is float32 in scipy's FFT, which is built without regard to the CPU's features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from mastering.dsp.stream import Blocks, Samples

_SILENT_DB = -120.0
_TOP_HZ = 20_300.0


@dataclass(frozen=True)
class ToneCurve:
    """Gains in dB at rising frequencies, for mid and side; straight over log frequency in between."""

    hz: tuple[float, ...]
    mid_db: tuple[float, ...]
    side_db: tuple[float, ...]

    def gains(self, hz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Linear gains (2, frequencies)."""
        octave = np.log2(np.maximum(hz, 1.0))
        points = np.log2(np.array(self.hz))
        in_db = np.array([np.interp(octave, points, self.mid_db), np.interp(octave, points, self.side_db)])
        # The last octave fraction, which no ear hears, makes peaks between samples that no meter agrees on.
        in_db -= 120.0 * np.maximum(octave - math.log2(_TOP_HZ), 0.0) * (hz[-1] < _TOP_HZ * 1.25)
        gains: NDArray[np.float64] = 10 ** (np.maximum(in_db, _SILENT_DB) / 20)
        gains[:, hz <= 0] = 0.0
        return gains


def _reach(rate_hz: int) -> int:
    """Frames on either side of a sample that the filters use: a power of two of about 46 ms."""
    return int(1 << round(math.log2(rate_hz * 0.046)))


def transform_length(rate_hz: int) -> int:
    """FFT length: ten times the reach. Each FFT then gives eight times the reach of output, a whole part of a block."""
    return 10 * _reach(rate_hz)


def response(curve: ToneCurve, rate_hz: int) -> NDArray[np.float32]:
    """Zero-phase response (2, bins) of the windowed filters for `curve`: to multiply a spectrum by."""
    length, half = transform_length(rate_hz), _reach(rate_hz)
    taps = fft.irfft(curve.gains(fft.rfftfreq(length, 1 / rate_hz)), length)
    window = np.zeros(length)
    window[: half + 1] = 0.5 + 0.5 * np.cos(np.pi * np.arange(half + 1) / (half + 1))
    window[-half:] = window[half:0:-1]
    taps = taps * window
    taps -= window * (taps.sum(axis=1, keepdims=True) / window.sum())
    return fft.rfft(taps).real.astype(np.float32)


def crossovers(low_hz: float, high_hz: float, rate_hz: int) -> NDArray[np.complex64]:
    """Responses (3, bins) of the low, middle and high band. Nothing comes before its cause: a click has no forerunner.

    They add up to an all-pass.
    """
    length, half = transform_length(rate_hz), _reach(rate_hz)
    taps = fft.irfft(_linkwitz_riley(fft.rfftfreq(length, 1 / rate_hz), low_hz, high_hz, rate_hz), length)
    taps[:, half + 1 :] = 0.0
    return fft.rfft(taps).astype(np.complex64)


def splits(hz: NDArray[np.float64], low_hz: float, high_hz: float, rate_hz: int) -> NDArray[np.float64]:
    """Gains (3, frequencies) of the low, middle and high band."""
    return np.abs(_linkwitz_riley(hz, low_hz, high_hz, rate_hz))


def _linkwitz_riley(hz: NDArray[np.float64], low_hz: float, high_hz: float, rate_hz: int) -> NDArray[np.complex128]:
    """Three bands by crossovers of 24 dB an octave (Linkwitz, "Active crossover networks for noncoincident drivers",
    JAES 24, 1976): the top is split off first, then turned in phase as the others are by the second crossover."""
    below, above, _ = _crossover(hz, high_hz, rate_hz)
    low, middle, turned = _crossover(hz, low_hz, rate_hz)
    return np.array([below * low, below * middle, above * turned])


def _crossover(hz: NDArray[np.float64], at_hz: float, rate_hz: int) -> tuple[NDArray[np.complex128], ...]:
    """Responses of a low-pass and a high-pass, each two Butterworth filters of second order, and of their sum."""
    warped, at = (np.tan(np.pi * np.minimum(each / rate_hz, 0.499999)) for each in (hz, at_hz))
    s = 1j * warped / at
    once = 1 / (1 + math.sqrt(2) * s + s * s)
    return once**2, (s * s * once) ** 2, (1 - math.sqrt(2) * s + s * s) * once


def filtered_sides(blocks: Blocks, responses: NDArray[np.float32 | np.complex64]) -> Iterator[Samples]:
    """Mid and side through each of the responses (bands, 2, bins): a piece (bands, sides, frames) for each block.

    A mono recording has no side. All blocks but the last must be longer than the filters' reach. A block may be
    overwritten once its piece is out.
    """
    length = 2 * (responses.shape[-1] - 1)
    half = length // 10
    before: Samples | None = None
    current: Samples | None = None
    for following in chain(blocks, [None]):
        if current is not None:
            sides, frames = current.shape
            if before is None:
                before = np.zeros((sides, half), np.float32)
                responses = responses if sides == 1 else responses * np.float32(0.5)
            padded = _with_context(before, current, following, half)
            yield _filtered(padded, frames, responses)
            before = padded[:, frames : frames + half]
        current = following


def left_right(sides: Samples) -> Samples:
    """Mid and side as left and right; mono as it is."""
    return sides if len(sides) == 1 else _sum_and_difference(sides, np.empty_like(sides))


def _sum_and_difference(pair: Samples, out: Samples) -> Samples:
    np.add(pair[0], pair[1], out=out[0])
    np.subtract(pair[0], pair[1], out=out[1])
    return out


def _with_context(before: Samples, current: Samples, following: Samples | None, half: int) -> Samples:
    """Twice mid and side of `current` (a mono block as it is), between the last `half` frames before it and the next.

    A whole number of hops follows the first `half`; beyond the recording's ends is silence.
    """
    channels, frames = current.shape
    hop = 8 * half
    padded = np.empty((channels, -(-frames // hop) * hop + 2 * half), np.float32)
    padded[:, :half] = before
    parts = (current,) if following is None else (current, following[:, :half])
    end = half
    for part in parts:
        start, end = end, end + part.shape[1]
        if channels == 1:
            padded[:, start:end] = part
        else:
            _sum_and_difference(part, padded[:, start:end])
    padded[:, end:] = 0.0
    return padded


def _filtered(padded: Samples, frames: int, responses: NDArray[np.float32 | np.complex64]) -> Samples:
    """The first `frames` after the context, through each response: (bands, sides, frames)."""
    length = 2 * (responses.shape[-1] - 1)
    half, hop = length // 10, 8 * length // 10
    windows = np.lib.stride_tricks.sliding_window_view(padded, length, axis=1)[:, ::hop]
    bins = fft.rfft(windows)
    sides, count, _ = windows.shape
    filtered = np.empty((len(responses), sides, count, hop), np.float32)
    for band, response in zip(filtered, responses, strict=True):
        band[...] = fft.irfft(bins * response[:sides, None], length, overwrite_x=True)[:, :, half : half + hop]
    return filtered.reshape(len(responses), sides, -1)[:, :, :frames]
