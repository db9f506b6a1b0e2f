"""The tone curve that brings one recording's spectrum to that of one or several references. No audio, only readings.

References are known by their measurements alone: those of `mastering analyse --json` do as well as the audio, at any
sample rate. Curves are found in closed form and then corrected on the source's own FFT bins, where the effect of a
curve on the third-octave levels is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mastering.contract import Measurements
from mastering.dsp.spectrum import NEAR_SILENCE_DB, band_centres_hz, band_levels_db, bin_frequencies_hz
from mastering.dsp.tone import ToneCurve

Levels = NDArray[np.float64]

_MOST_GAIN_DB = ((0.6, 6.0), (1.0, 24.0))
"""At amounts up to 60 % no band is moved by more than 6 dB: what differs further is another instrumentation, not
another tone. Who asks for more gets it, up to 24 dB at 100 %."""
_HEARD_DB = 0.5
"""Less than this held back is not worth a remark."""
_ROUNDS = 6
"""Corrections of the curve: each brings the reached levels nearer to the goal, and after six little is left."""
_MEAN_LEVEL_HZ = (60.0, 12_000.0)
"""The bands whose mean is a recording's level: outside are rumble and air, which differ for no reason of tone."""


@dataclass(frozen=True)
class Match:
    """Gains (2, bands) for mid and side, and what could not be matched, in words."""

    gains_db: Levels
    remarks: tuple[str, ...]


def most_gain_db(amount: float) -> float:
    """The most that a match moves a band, at an amount of 0 … 1; straight in decibels of decibels between the two."""
    amounts, gains_db = zip(*_MOST_GAIN_DB, strict=True)
    return float(2 ** np.interp(amount, amounts, np.log2(gains_db)))


def most_lift_db(levels_db: Levels, most_db: float) -> Levels:
    """How far each band of a recording may be lifted: never a noise floor, so less towards near silence."""
    lift_db: Levels = np.clip(levels_db - levels_db.max() - NEAR_SILENCE_DB, 0.0, most_db)
    return lift_db


def reference_levels(references: Sequence[Measurements], weights: Sequence[float], rate_hz: int) -> Levels:
    """Weighted mean of the references' levels (2, bands), each brought to the same mean level first.

    Bands that a reference lacks (its sample rate is lower) count only where another has them; NaN where none has.
    """
    centres = band_centres_hz(rate_hz)
    total, weight = np.zeros((2, len(centres))), np.zeros(len(centres))
    for measured, share in zip(references, weights or [1.0] * len(references), strict=True):
        levels = _on_bands(measured, centres)
        known = np.isfinite(levels[0])
        levels -= _mean_level(levels[:, known], np.array(centres)[known])
        total[:, known] += share * levels[:, known]
        weight[known] += share
    return np.where(weight > 0, total / np.maximum(weight, 1e-9), np.nan)


def _on_bands(measured: Measurements, centres: Sequence[float]) -> Levels:
    known = {round(band.centre_hz): (band.mid_db, band.side_db) for band in measured.spectrum}
    missing = (np.nan, np.nan)
    return np.array([known.get(round(hz), missing) for hz in centres]).T


def _mean_level(levels: Levels, centres: NDArray[np.float64]) -> float:
    within = (centres >= _MEAN_LEVEL_HZ[0]) & (centres <= _MEAN_LEVEL_HZ[1])
    return float(levels[0, within].mean())


def match(power: NDArray[np.float64], rate_hz: int, reference: Levels, amount: float) -> Match:
    """Gains that take a source of `power` (2, bins) to the levels of `reference` (2, bands), by `amount` (0 … 1)."""
    centres = np.array(band_centres_hz(rate_hz))
    source = band_levels_db(power, rate_hz)
    known = np.isfinite(reference[0])
    most_db = most_gain_db(amount)
    lift_db = most_lift_db(source, most_db)
    gains = np.zeros_like(source)
    goal = np.where(
        known, source + amount * (reference - source + _offset_db(source, reference, centres, known)), source
    )
    for _ in range(_ROUNDS):
        reached = band_levels_db(
            power * curve_through_bands(gains, rate_hz).gains(bin_frequencies_hz(rate_hz)) ** 2, rate_hz
        )
        gains += np.where(known, goal - reached, 0.0)
        gains = np.clip(gains, -most_db, lift_db)
    return Match(_with_unknown_bands(gains, known), _remarks(goal - source, lift_db, most_db, centres, known))


def _offset_db(source: Levels, reference: Levels, centres: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """What lifts the reference's levels to the source's own: a match changes the tone, not the level."""
    return _mean_level(source[:, known], centres[known]) - _mean_level(reference[:, known], centres[known])


def curve_through_bands(gains_db: Levels, rate_hz: int) -> ToneCurve:
    """The gains as a curve through the band centres."""
    hz = band_centres_hz(rate_hz)
    return ToneCurve(hz, tuple(gains_db[0].tolist()), tuple(gains_db[1].tolist()))


def _with_unknown_bands(gains: Levels, known: NDArray[np.bool_]) -> Levels:
    """Bands that no reference knows take the gain of the last one known."""
    last = int(np.flatnonzero(known)[-1])
    gains[:, last + 1 :] = gains[:, last : last + 1]
    return gains


def _remarks(
    asked_db: Levels, lift_db: Levels, most_db: float, centres: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[str, ...]:
    """What was held back of the change that was asked for (2, bands), in words and numbers."""
    found = []
    beyond = known & (np.abs(asked_db).max(axis=0) > most_db + _HEARD_DB)
    if beyond.any():
        furthest = np.abs(np.where(beyond, asked_db, 0.0)).max(axis=0).argmax()
        asked = max(asked_db[:, furthest], key=abs)
        found.append(
            f"Match reduced: {beyond.sum()} bands lie further from the reference than the {most_db:.0f} dB that a band "
            f"is moved by at this amount, the furthest {asked:+.1f} dB at {centres[furthest]:.0f} Hz."
        )
    lifted = known & (asked_db > lift_db + _HEARD_DB).any(axis=0) & (lift_db < most_db).any(axis=0)
    if lifted.any():
        found.append(
            f"Match reduced: {lifted.sum()} bands of the song are so quiet that lifting them would lift its noise."
        )
    if float(np.abs(asked_db[0, known]).mean()) > 6:
        found.append("Reference mismatch: its spectrum is very far from the song's; another one may serve better.")
    return tuple(found)
