"""How far a song may be driven for its loudness: what the limiter may take, and how far noise may come up.

Read over the programme, the tenths of a second that pass the gates of the integrated loudness. Of the limiter's
reductions there, and of the peaks, the 95th percentile counts: what is rarer is a single event, for which the limiter
has a fast release. All follow from block energies and block peaks, without touching audio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mastering.dsp import loudness
from mastering.dsp.limiter import Curve
from mastering.dsp.true_peak import Peaks, block_length

_USUAL = 0.95
_QUIET = 0.1
_NOTHING_LUFS = -100.0
"""Digital silence, and dither of 16 bits."""
_CLEAN_DB = 3.0


@dataclass(frozen=True)
class Bounds:
    """The limits in a plan: what the limiter may take of all but the highest twentieth of the programme, and what
    quieter passages than `most_noise_lufs` may be lifted to, if more than 3 dB of limiting would lift them."""

    most_reduction_db: float
    most_noise_lufs: float


BOUNDS = Bounds(most_reduction_db=10.0, most_noise_lufs=-55.0)
"""Of every plan. A loud master of dense music is limited by 5 to 9 dB there, one for streaming by none to 6."""


@dataclass(frozen=True)
class Programme:
    """A song's levels over time, as far as bounds concern them."""

    tenths: NDArray[np.bool_]
    """Which tenths of a second are programme."""
    first_blocks: NDArray[np.intp]
    """The first peak block of each tenth of a second."""
    peak: float
    """True peak (linear) of all but the highest twentieth."""
    quiet_lufs: float
    """Momentary loudness of the quietest tenth of the time, digital silence left out; 0 where nothing is left."""

    @classmethod
    def of(cls, energies: loudness.BlockEnergies, peaks: Peaks, rate_hz: int) -> Programme:
        tenths = loudness.programme(energies)
        first_blocks = np.arange(tenths.size) * rate_hz // (10 * block_length(rate_hz))
        momentary = loudness.momentary(energies)
        heard = momentary[momentary > loudness.to_energy(_NOTHING_LUFS)]
        quiet_lufs = loudness.to_lufs(float(np.quantile(heard, _QUIET))) if heard.size else None
        found = cls(tenths, first_blocks, 0.0, quiet_lufs or 0.0)
        return cls(tenths, first_blocks, found._usual(peaks), quiet_lufs or 0.0)

    def _usual(self, values: NDArray[np.float64]) -> float:
        """The highest value of each tenth of a second, in all but the highest twentieth of the programme."""
        if not self.tenths.any():
            return float(values.max(initial=0.0))
        highest = np.maximum.reduceat(values, self.first_blocks)
        return float(np.quantile(highest[self.tenths], _USUAL))

    def reduction_db(self, curve: Curve, gain_db: float) -> float:
        """What a limiter's curve takes of the gain before it, in all but the highest twentieth."""
        lowered = np.maximum(10 ** (gain_db / 20) / np.minimum(curve[:-1], curve[1:]), 1.0)
        return 20 * math.log10(self._usual(lowered))

    def highest_gain_db(self, bounds: Bounds, ceiling_dbtp: float) -> float:
        """The most that noise allows; infinite for a song whose quiet passages are no noise."""
        if self.quiet_lufs >= bounds.most_noise_lufs or not self.peak:
            return math.inf
        return max(bounds.most_noise_lufs - self.quiet_lufs, ceiling_dbtp - 20 * math.log10(self.peak) + _CLEAN_DB)
