"""Third-octave spectrum of the mid and the side signal (mid = (L + R) / 2, side = (L − R) / 2).

Welch's method (IEEE Trans. Audio Electroacoust. 15, 1967) with Hann windows of about 0.19 s. Bands are those of
IEC 61260-1, base ten: centres 1000 · 10^(k/10) Hz, edges 10^(±1/20) away. 0 dB is a full-scale sine.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from mastering.contract import BandLevel
from mastering.dsp.stream import Samples

_LOWEST, _HIGHEST = -17, 13
"""Band numbers: 20 Hz and 20 kHz."""
_FLOOR_DB = -150.0
_MOST_FRAMES = 800
NEAR_SILENCE_DB = -70.0
"""Bands so far below the loudest one hold noise: they are not boosted, and count in no distance."""


def band_centres_hz(rate_hz: int) -> tuple[float, ...]:
    """Centres of the bands that lie whole below half the sample rate."""
    bands = (1000 * 10 ** (k / 10) for k in range(_LOWEST, _HIGHEST + 1))
    return tuple(hz for hz in bands if hz * 10**0.05 <= rate_hz / 2)


def frame_length(rate_hz: int) -> int:
    return int(1 << round(math.log2(rate_hz * 0.19)))


@cache
def band_shares(rate_hz: int, length: int) -> NDArray[np.float64]:
    """Share of each bin's power, of an FFT of `length`, that falls into each band (bands, bins); bins are one wide."""
    width = rate_hz / length
    low = (np.arange(length // 2 + 1) - 0.5) * width
    centres = np.array(band_centres_hz(rate_hz))[:, None]
    overlap = np.minimum(low + width, centres * 10**0.05) - np.maximum(low, centres * 10**-0.05)
    shares: NDArray[np.float64] = np.clip(overlap / width, 0, 1)
    return shares


class SpectrumMeter:
    """Mean power of mid and side in each FFT bin, collected from blocks of any length; frames do not overlap.

    Of a recording that is known to last (`frames`), every second frame is read, or every third: as many as two minutes
    and a half have, evenly spread. That many settle a mean to a tenth or two of a decibel.
    """

    def __init__(self, rate_hz: int, frames: int | None = None) -> None:
        self._rate_hz = rate_hz
        self._length = frame_length(rate_hz)
        window = np.hanning(self._length + 1)[:-1]
        self._window = (window * math.sqrt(2 / (window @ window) / self._length)).astype(np.float32)
        self._power = np.zeros((2, self._length // 2 + 1))
        self._every = math.ceil((frames or 0) / self._length / _MOST_FRAMES) or 1
        self._passed = 0
        self._frames = 0
        self._rest: Samples | None = None

    def feed(self, block: Samples) -> None:
        joined = block if self._rest is None or not self._rest.size else np.concatenate([self._rest, block], axis=1)
        count = joined.shape[1] // self._length
        if count:
            self._add(joined[:, : count * self._length])
        self._rest = joined[:, count * self._length :].copy()

    def _add(self, whole: Samples) -> None:
        frames = whole.reshape(whole.shape[0], -1, self._length)
        first, self._passed = -self._passed % self._every, self._passed + frames.shape[1]
        frames = frames[:, first :: self._every]
        if not frames.size:
            return
        sides = np.empty(frames.shape, np.float32)
        if len(frames) == 2:
            np.add(frames[0], frames[1], out=sides[0])
            np.subtract(frames[0], frames[1], out=sides[1])
            sides *= self._window * np.float32(0.5)
        else:
            np.multiply(frames, self._window, out=sides)
        parts = fft.rfft(sides).view(np.float32)
        squares = np.einsum("sfk,sfk->sk", parts, parts)
        self._power[: len(sides)] += squares[:, ::2] + squares[:, 1::2]
        self._frames += sides.shape[1]

    def power(self) -> NDArray[np.float64]:
        """Mean power (2, bins), one-sided, so that a full-scale sine sums to one. Side is zero for mono."""
        if not self._frames and self._rest is not None:
            short = self._length - self._rest.shape[1]
            self._add(np.pad(self._rest, ((0, 0), (0, short))))
        return 2 * self._power / max(self._frames, 1)


def bin_frequencies_hz(rate_hz: int) -> NDArray[np.float64]:
    """Frequencies of the bins of `SpectrumMeter.power`."""
    bins: NDArray[np.float64] = fft.rfftfreq(frame_length(rate_hz), 1 / rate_hz)
    return bins


def band_levels_db(power: NDArray[np.float64], rate_hz: int) -> NDArray[np.float64]:
    """Power (2, bins) as third-octave levels (2, bands)."""
    levels: NDArray[np.float64] = power @ band_shares(rate_hz, frame_length(rate_hz)).T
    in_db: NDArray[np.float64] = np.maximum(10 * np.log10(np.maximum(levels, 1e-15)), _FLOOR_DB)
    return in_db


def bands(power: NDArray[np.float64], rate_hz: int) -> tuple[BandLevel, ...]:
    """Power (2, bins) as third-octave levels, with their centres."""
    mid, side = band_levels_db(power, rate_hz)
    return tuple(
        BandLevel(centre_hz=round(hz, 1), mid_db=round(float(m), 2), side_db=round(float(s), 2))
        for hz, m, s in zip(band_centres_hz(rate_hz), mid, side, strict=True)
    )
