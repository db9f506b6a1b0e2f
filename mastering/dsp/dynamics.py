"""A three-band compressor (its bands: `tone.crossovers`) with gains worked out at a 32nd of the sample rate or less.

The level of a band is the louder of a fast and a slow mean square (one-pole, mid and side together); a soft knee makes
the gain (Giannoulis, Massberg and Reiss, "Digital Dynamic Range Compressor Design", J. AES 60, 2012, equation 4), which
is straight between the control points. Everything recursive runs at the control rate, in float64, by `one_pole`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mastering.dsp.one_pole import one_pole
from mastering.dsp.stream import Samples
from mastering.dsp.true_peak import block_length

_NEPERS_TO_DB = 10 / math.log(10)
_NOTHING = 1e-15


@dataclass(frozen=True)
class Compressor:
    """Thresholds in dBFS (mean square), ratios and gains for low, middle and high; times in ms, crossovers in Hz."""

    low_threshold_db: float
    middle_threshold_db: float
    high_threshold_db: float
    low_ratio: float = 2.0
    middle_ratio: float = 2.0
    high_ratio: float = 2.0
    low_gain_db: float = 0.0
    middle_gain_db: float = 0.0
    high_gain_db: float = 0.0
    knee_db: float = 8.0
    attack_ms: float = 12.0
    release_ms: float = 160.0
    low_hz: float = 160.0
    high_hz: float = 2800.0

    @property
    def thresholds_db(self) -> NDArray[np.float64]:
        return np.array([self.low_threshold_db, self.middle_threshold_db, self.high_threshold_db])

    @property
    def slopes(self) -> NDArray[np.float64]:
        """dB of reduction for each dB over the threshold."""
        return 1 - 1 / np.array([self.low_ratio, self.middle_ratio, self.high_ratio])

    @property
    def gains_db(self) -> NDArray[np.float64]:
        """What each band is lifted by once it is compressed."""
        return np.array([self.low_gain_db, self.middle_gain_db, self.high_gain_db])


class BandCompressor:
    """Adds up three bands, each with its own gain. Feed pieces in order; all but the last are whole control blocks."""

    def __init__(self, settings: Compressor, rate_hz: int) -> None:
        self._settings = settings
        self._length = block_length(rate_hz)
        self._poles = [
            math.exp(-self._length / (rate_hz * ms * 1e-3)) for ms in (settings.attack_ms, settings.release_ms)
        ]
        self._levels = [np.zeros((3, 1)) for _ in self._poles]
        self._lifted = settings.gains_db[:, None] / 20.0
        self._last = special.exp10(self._lifted)

    def feed(self, bands: Samples) -> Samples:
        """(3, sides, frames) → (sides, frames)."""
        frames = bands.shape[2]
        gains = self._gains(self._powers(bands))
        nodes = np.concatenate([self._last, gains], axis=1).astype(np.float32)
        self._last = gains[:, -1:]
        slope = (np.arange(1, self._length + 1) / self._length).astype(np.float32)
        curve = nodes[:, :-1, None] + (nodes[:, 1:] - nodes[:, :-1])[:, :, None] * slope
        weighted = bands * curve.reshape(3, 1, -1)[:, :, :frames]
        total: Samples = weighted[0] + weighted[1] + weighted[2]
        return total

    def _powers(self, bands: Samples) -> NDArray[np.float64]:
        count = -(-bands.shape[2] // self._length)
        squares = np.square(bands[:, 0])
        if bands.shape[1] == 2:
            squares += np.square(bands[:, 1])
        padded = np.pad(squares, ((0, 0), (0, count * self._length - squares.shape[1])))
        powers: NDArray[np.float64] = padded.reshape(3, count, self._length).sum(axis=2, dtype=np.float64)
        return powers / self._length

    def _gains(self, powers: NDArray[np.float64]) -> NDArray[np.float64]:
        levels: list[NDArray[np.float64]] = []
        for index, pole in enumerate(self._poles):
            levels.append(one_pole((1 - pole) * powers, pole, self._levels[index]))
            self._levels[index] = levels[-1][:, -1:]
        loudest = np.maximum(np.maximum(levels[0], levels[1]), _NOTHING)
        in_db: NDArray[np.float64] = np.asarray(special.xlogy(_NEPERS_TO_DB, loudest), np.float64)
        gains: NDArray[np.float64] = special.exp10(self._lifted - reduction_db(in_db, self._settings) / 20.0)
        return gains


def reduction_db(level_db: NDArray[np.float64], settings: Compressor) -> NDArray[np.float64]:
    """Gain reduction (dB, positive) of each band for levels (3, n): nothing, then a quadratic knee, then the ratio."""
    over = level_db - settings.thresholds_db[:, None]
    knee = settings.knee_db
    bent = np.square(np.clip(over + knee / 2, 0.0, knee)) / (2 * knee)
    reduction: NDArray[np.float64] = (bent + np.maximum(over - knee / 2, 0.0)) * settings.slopes[:, None]
    return reduction
