"""A recording at block rate, and its features: what a fit compares, beside the loudness it was asked for.

A contour is the power of mid and side in third octaves, and the highest sample, every 12 ms or so: 2.5 MB for four
minutes, on which a fit can try a plan in milliseconds. Powers are those of `dsp.spectrum` (a full-scale sine is 1),
Hann windows of four blocks. Features are one vector of decibels, so that a distance is one weighted sum:

- mid and side spectrum in third octaves, each recording brought to the same K-weighted power first;
- levels: quantiles of the powers of tenths of a second, of the compressor's three bands and of the K-weighted whole,
  relative to the integrated loudness, pauses (20 dB under the mean) left out;
- crest: mean over 3 s of highest sample over RMS; width: side over mid in each of the three bands;
- loudness: how far it is from what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

from mastering.contract import Character
from mastering.dsp.dynamics import Compressor
from mastering.dsp.loudness import k_power_gain
from mastering.dsp.spectrum import band_centres_hz, band_levels_db, band_shares
from mastering.dsp.stream import Blocks, Samples
from mastering.dsp.tone import splits

Vector = NDArray[np.float64]

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
FLOOR_DB = -60.0
"""Levels and widths below this, relative to the loudness, count as this."""
GATE = 10**-2.0
"""Tenths of a second whose power is below this share of the mean are pauses."""
QUIET = 1e-6
"""Windows of 3 s whose power is below this share of the loudest have no crest."""
CREST_S = 3.0
LEVEL_S = 0.1
WEIGHTS = {"mid": 1.0, "side": 0.5, "levels": 1.0, "crest": 0.25, "width": 0.25, "loudness": 1.0}
"""What a decibel of mean difference in each counts in the distance."""
COUNTED_HZ = (28.0, 16_000.0)
"""Bands outside are no part of the spectrum's distance: rumble filters and coders end there."""
_NEAR_SILENCE_DB = -70.0
_TAKEN_OUT_DB = 15.0
_OVERLAP = 4


def hop_frames(rate_hz: int) -> int:
    return int(1 << round(math.log2(rate_hz * 0.0116)))


@dataclass(frozen=True)
class Contour:
    """A recording at block rate."""

    rate_hz: int
    power: NDArray[np.float32]
    """(blocks, 2, bands), mid and side."""
    peaks: NDArray[np.float32]
    """Highest sample of each block."""

    @property
    def blocks_per_s(self) -> float:
        return self.rate_hz / hop_frames(self.rate_hz)

    def thinned(self, most_s: float, stretch_s: float = 10.0) -> Contour:
        """At most `most_s` of it, in evenly spread stretches: what is fitted to need not be the whole hour."""
        width, blocks = round(stretch_s * self.blocks_per_s), len(self.peaks)
        count, kept = blocks // width, int(most_s / stretch_s)
        if count <= kept:
            return self
        starts = (np.arange(kept) * count // kept) * width
        chosen = (starts[:, None] + np.arange(width)).reshape(-1)
        return replace(self, power=self.power[chosen], peaks=self.peaks[chosen])


class ContourMeter:
    """Collects the contour from blocks of any length."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._hop = hop_frames(rate_hz)
        length = self._hop * _OVERLAP
        window = np.hanning(length + 1)[:-1]
        self._window = (window * math.sqrt(4 / (window @ window) / length)).astype(np.float32)
        self._shares = band_shares(rate_hz, length).T.astype(np.float32)
        self._held: Samples | None = None
        self._powers: list[NDArray[np.float32]] = []
        self._peaks: list[NDArray[np.float32]] = []

    def feed(self, block: Samples) -> None:
        if self._held is None:  # so that a window's middle is its block's
            block = np.pad(block, ((0, 0), ((_OVERLAP - 1) * self._hop // 2, 0)))
            self._held = block[:, :0]
        self._held = np.concatenate([self._held, block], axis=1)
        count = self._held.shape[1] // self._hop - (_OVERLAP - 1)
        if count > 0:
            self._measure(self._held, count)
            self._held = self._held[:, count * self._hop :].copy()

    def passing(self, blocks: Iterable[Samples]) -> Blocks:
        """The same blocks, read on their way."""
        for block in blocks:
            self.feed(block)
            yield block

    def contour(self) -> Contour:
        """Ends the recording. At least one block; a last one that is not whole is left out."""
        if self._held is not None:
            left = np.pad(self._held, ((0, 0), (0, (_OVERLAP - 1) * self._hop // 2)))
            short = _OVERLAP * self._hop - left.shape[1]
            left = np.pad(left, ((0, 0), (0, short))) if short > 0 and not self._powers else left
            self._measure(left, left.shape[1] // self._hop - (_OVERLAP - 1))
            self._held = None
        return Contour(self._rate_hz, np.concatenate(self._powers), np.concatenate(self._peaks))

    def _measure(self, held: Samples, count: int) -> None:
        if count <= 0:
            return
        sides = held if len(held) == 1 else np.stack([held[0] + held[1], held[0] - held[1]]) * np.float32(0.5)
        frames = sliding_window_view(sides, _OVERLAP * self._hop, axis=1)[:, :: self._hop][:, :count]
        bins = fft.rfft(frames * self._window)
        power = (np.square(bins.real) + np.square(bins.imag)) @ self._shares
        if len(power) == 1:
            power = np.concatenate([power, np.zeros_like(power)])
        self._powers.append(np.ascontiguousarray(power.transpose(1, 0, 2)))
        start = (_OVERLAP - 1) * self._hop // 2
        middle = held[:, start : start + count * self._hop]
        self._peaks.append(np.abs(middle).max(axis=0).reshape(count, self._hop).max(axis=1))


@dataclass(frozen=True)
class Layout:
    """Which bands there are, and which part of a feature vector says what."""

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
        return splits(self.centres_hz, plain.low_hz, plain.high_hz)

    def normalised(self, levels_db: Vector) -> Vector:
        """Third-octave levels (2, bands) relative to their K-weighted sum."""
        total = (10 ** (levels_db / 10) * self.k_weights()).sum()
        return levels_db - 10 * math.log10(max(float(total), 1e-15))


def level_windows(contour: Contour) -> tuple[int, int]:
    """(width, step) of the tenths of a second, in blocks."""
    width = max(1, round(LEVEL_S * contour.blocks_per_s))
    return width, max(1, width // 2)


def crest_blocks(contour: Contour) -> int:
    return min(len(contour.peaks), round(CREST_S * contour.blocks_per_s))


def features(contour: Contour, power: NDArray[np.float64], lufs: float, wished_lufs: float) -> Vector:
    """Of a recording with the mean power `power` (2, bins of `SpectrumMeter`) and the integrated loudness `lufs`."""
    layout = Layout(contour.rate_hz)
    spectrum = layout.normalised(band_levels_db(power, contour.rate_hz))
    character = character_of(contour, lufs)
    levels = np.array(character.level_quantiles_db).reshape(-1)
    return np.concatenate(
        [spectrum.reshape(-1), levels, [character.crest_db], character.width_db, [lufs - wished_lufs]]
    )


def character_of(contour: Contour, lufs: float) -> Character:
    """How the recording moves, and how wide it is."""
    rows = Layout(contour.rate_hz).rows()
    sides = contour.power.astype(np.float64)
    blocks = sides.sum(axis=1) @ rows.T
    width, step = level_windows(contour)
    levels = sliding_window_view(blocks, min(width, len(blocks)), axis=0)[::step].mean(axis=-1)
    loud = levels[levels[:, 3] > levels[:, 3].mean() * GATE]
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
    loud = powers > powers.max() * QUIET
    if not loud.any():
        return 0.0
    return float((20 * np.log10(peaks[loud]) - 10 * np.log10(powers[loud])).mean())


def of_reference(layout: Layout, levels_db: Vector, characters: Sequence[tuple[float, Character]]) -> Vector:
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
    heard = np.ones(layout.size, bool)
    heard[: parts["side"].stop] = (spectrum > spectrum.max() + _NEAR_SILENCE_DB) & np.tile(counted, 2)
    # What the goal takes out altogether (rumble, the sides of the bass) has no level worth a decibel.
    heard[: parts["side"].stop] &= ~(goal[: parts["side"].stop] < spectrum - _TAKEN_OUT_DB)
    heard[parts["width"]] = (source[parts["width"]] > FLOOR_DB) & ~(goal[parts["width"]] < FLOOR_DB)
    heard &= np.isfinite(goal)
    found = np.zeros(layout.size)
    for name, weight in WEIGHTS.items():
        part = parts[name]
        found[part] = heard[part] * weight / max(1, int(heard[part].sum()))
    return found


def distance_db(features: Vector, goal: Vector, weights: Vector) -> float:
    """Weighted mean absolute difference."""
    return float(np.abs(np.where(weights > 0, features - goal, 0.0)) @ weights)
