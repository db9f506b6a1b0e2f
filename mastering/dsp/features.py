"""The features of a recording: one vector of decibels, by which a fit compares what it has with what was asked for.

A distance between two recordings is then one weighted sum. In the order of the vector (`Layout.parts`):

- mid and side: the spectrum in third octaves, each recording brought to the same K-weighted power first;
- levels: quantiles of the powers of tenths of a second, of the compressor's three bands and of the K-weighted whole,
  relative to the integrated loudness, pauses (20 dB under the mean) left out;
- crest: mean over 3 s of highest sample over RMS; width: side over mid in each of the three bands;
- loudness: how far it is from what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mastering.contract import Character
from mastering.dsp.contour import Contour
from mastering.dsp.dynamics import Compressor
from mastering.dsp.loudness import k_power_gain
from mastering.dsp.spectrum import NEAR_SILENCE_DB, band_centres_hz, band_levels_db
from mastering.dsp.tone import splits

Vector = NDArray[np.float64]

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
"""Of the levels of tenths of a second; the last is the loudest 3 %, where limiting shows."""
FLOOR_DB = -60.0
"""Levels and widths below this, relative to the loudness, count as this."""
PAUSE_SHARE = 10**-2.0
"""Tenths of a second whose power is below this share of the mean are pauses."""
QUIET_SHARE = 1e-6
"""Windows of 3 s whose power is below this share of the loudest have no crest."""
CREST_S = 3.0
"""Window of the crest, in seconds."""
LEVEL_S = 0.1
"""Window of the levels, in seconds."""
WEIGHTS = {"mid": 1.0, "side": 0.5, "levels": 1.0, "crest": 0.25, "width": 0.25, "loudness": 1.0}
"""What a decibel of mean difference in each counts in the distance."""
COUNTED_HZ = (28.0, 16_000.0)
"""Bands outside are no part of the spectrum's distance: rumble filters and coders end there."""
_REMOVED_DB = 15.0
"""What the goal lowers by more than this it removes."""


@dataclass(frozen=True)
class Layout:
    """The bands at a sample rate, and which part of a feature vector holds what."""

    rate_hz: int

    @property
    def centres_hz(self) -> NDArray[np.float64]:
        return np.array(band_centres_hz(self.rate_hz))

    @property
    def parts(self) -> dict[str, slice]:
        bands, levels = self.centres_hz.size, 4 * len(QUANTILES)
        ends = np.cumsum([0, bands, bands, levels, 1, 3, 1])
        return {name: slice(a, b) for name, a, b in zip(WEIGHTS, ends[:-1], ends[1:], strict=True)}

    @property
    def size(self) -> int:
        return int(self.parts["loudness"].stop)

    def k_weights(self) -> NDArray[np.float64]:
        """Power gain of the K-weighting in each band."""
        return k_power_gain(self.centres_hz, self.rate_hz)

    def rows(self) -> NDArray[np.float64]:
        """What turns band powers into the four levels (4, bands): low, middle, high, and the K-weighted whole."""
        return np.concatenate([self.band_gains() ** 2, self.k_weights()[None]])

    def band_gains(self) -> NDArray[np.float64]:
        """Gains of the compressor's crossovers at the band centres (3, bands)."""
        plain = Compressor(0.0, 0.0, 0.0)
        return splits(self.centres_hz, plain.low_hz, plain.high_hz, self.rate_hz)

    def normalised(self, levels_db: Vector) -> Vector:
        """Third-octave levels (2, bands) relative to their K-weighted sum."""
        total = (10 ** (levels_db / 10) * self.k_weights()).sum()
        return levels_db - 10 * math.log10(max(float(total), 1e-15))


@dataclass(frozen=True)
class MeasuredRecording:
    """What features are worked out from: the contour, the mean power (2, bins of `SpectrumMeter`), the loudness."""

    contour: Contour
    power: NDArray[np.float64]
    lufs: float

    def features(self, aim_lufs: float) -> Vector:
        """The feature vector of a recording that was asked to have the loudness `aim_lufs`."""
        layout = Layout(self.contour.rate_hz)
        spectrum = layout.normalised(band_levels_db(self.power, self.contour.rate_hz))
        character = character_of(self.contour, self.lufs)
        levels = np.array(character.level_quantiles_db).reshape(-1)
        loudness_error = self.lufs - aim_lufs
        return np.concatenate(
            [spectrum.reshape(-1), levels, [character.crest_db], character.width_db, [loudness_error]]
        )


def level_windows(contour: Contour) -> tuple[int, int]:
    """(width, step) of the tenths of a second, in blocks."""
    width = max(1, round(LEVEL_S * contour.blocks_per_s))
    return width, max(1, width // 2)


def crest_blocks(contour: Contour) -> int:
    """Blocks in the window of the crest."""
    return min(len(contour.peaks), round(CREST_S * contour.blocks_per_s))


def character_of(contour: Contour, lufs: float) -> Character:
    """Levels, crest and width of the recording, relative to its loudness `lufs`."""
    rows = Layout(contour.rate_hz).rows()
    sides = contour.power.astype(np.float64)
    blocks = sides.sum(axis=1) @ rows.T
    width, step = level_windows(contour)
    levels = sliding_window_view(blocks, min(width, len(blocks)), axis=0)[::step].mean(axis=-1)
    loud = levels[levels[:, 3] > levels[:, 3].mean() * PAUSE_SHARE]
    in_db = np.maximum(10 * np.log10(np.maximum(loud, 1e-15)) - lufs, FLOOR_DB)
    quantiles = np.quantile(in_db, QUANTILES, axis=0).T
    of_bands = np.maximum(sides.mean(axis=0) @ rows[:3].T, 1e-15)
    widths = np.maximum(10 * np.log10(of_bands[1] / of_bands[0]), FLOOR_DB)
    return Character(
        level_quantiles_db=tuple(tuple(round(float(level), 3) for level in row) for row in quantiles),
        crest_db=round(_crest_db(contour, sides), 3),
        width_db=tuple(round(float(width), 3) for width in widths),
    )


def _crest_db(contour: Contour, sides: NDArray[np.float64]) -> float:
    width = crest_blocks(contour)
    whole = len(contour.peaks) // width * width
    powers = sides[:whole].sum(axis=(1, 2)).reshape(-1, width).mean(axis=1) / 2
    peaks = contour.peaks[:whole].reshape(-1, width).max(axis=1)
    loud = powers > powers.max() * QUIET_SHARE
    if not loud.any():
        return 0.0
    return float((20 * np.log10(peaks[loud]) - 10 * np.log10(powers[loud])).mean())


def reference_features(layout: Layout, levels_db: Vector, characters: Sequence[tuple[float, Character]]) -> Vector:
    """Features of a recording known by its levels (2, bands) and weighted characters; NaN where nothing is known."""
    found = np.full(layout.size, np.nan)
    known = np.isfinite(levels_db[0])
    spectrum = np.where(known, levels_db, -200.0)
    found[: 2 * known.size] = np.where(known, layout.normalised(spectrum), np.nan).reshape(-1)
    if characters:
        weights = [weight for weight, _ in characters]
        for name, of in (
            ("levels", [np.array(each.level_quantiles_db).reshape(-1) for _, each in characters]),
            ("crest", [np.array([each.crest_db]) for _, each in characters]),
            ("width", [np.array(each.width_db) for _, each in characters]),
        ):
            found[layout.parts[name]] = np.average(of, axis=0, weights=weights)
    return found


def weights(layout: Layout, source: Vector, goal: Vector) -> Vector:
    """What each feature counts: nothing where the goal knows nothing or the source is next to silent."""
    parts = layout.parts
    spectrum = source[: parts["side"].stop]
    counted = (layout.centres_hz >= COUNTED_HZ[0]) & (layout.centres_hz <= COUNTED_HZ[1])
    counts = np.ones(layout.size, bool)
    counts[: parts["side"].stop] = (spectrum > spectrum.max() + NEAR_SILENCE_DB) & np.tile(counted, 2)
    # What the goal removes altogether (rumble, the sides of the bass) has no level worth a decibel.
    counts[: parts["side"].stop] &= ~(goal[: parts["side"].stop] < spectrum - _REMOVED_DB)
    counts[parts["width"]] = (source[parts["width"]] > FLOOR_DB) & ~(goal[parts["width"]] < FLOOR_DB)
    counts &= np.isfinite(goal)
    found = np.zeros(layout.size)
    for name, weight in WEIGHTS.items():
        part = parts[name]
        found[part] = counts[part] * weight / max(1, int(counts[part].sum()))
    return found


def distance_db(features: Vector, goal: Vector, weights: Vector) -> float:
    """Weighted mean absolute difference."""
    return float(np.abs(np.where(weights > 0, features - goal, 0.0)) @ weights)
