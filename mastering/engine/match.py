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

MOST_GAIN_DB = 24.0
"""No band is moved by more: what differs further is another instrumentation, not another tone."""
_ROUNDS = 6
"""Corrections of the curve: each brings the reached levels nearer to the goal, and after six little is left."""
_MEAN_LEVEL_HZ = (60.0, 12_000.0)
"""The bands whose mean is a recording's level: outside are rumble and air, which differ for no reason of tone."""


@dataclass(frozen=True)
class Match:
    """Gains (2, bands) for mid and side, and what could not be matched, in words."""

    gains_db: Levels
    remarks: tuple[str, ...]


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
    quiet = source < source.max() + NEAR_SILENCE_DB
    gains = np.zeros_like(source)
    goal = np.where(
        known, source + amount * (reference - source + _offset_db(source, reference, centres, known)), source
    )
    for _ in range(_ROUNDS):
        reached = band_levels_db(
            power * curve_through_bands(gains, rate_hz).gains(bin_frequencies_hz(rate_hz)) ** 2, rate_hz
        )
        gains += np.where(known, goal - reached, 0.0)
        gains = np.clip(gains, -MOST_GAIN_DB, np.where(quiet, 0.0, MOST_GAIN_DB))
    return Match(_with_unknown_bands(gains, known), _remarks(goal - source, quiet & known, known))


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


def _remarks(change_db: Levels, quiet: NDArray[np.bool_], known: NDArray[np.bool_]) -> tuple[str, ...]:
    found = []
    beyond = int((np.abs(change_db[:, known]) > MOST_GAIN_DB).sum())
    if beyond:
        found.append(f"Match reduced because {beyond} bands lie more than {MOST_GAIN_DB:.0f} dB from the reference.")
    lifted = int((quiet & (change_db > 0)).sum())
    if lifted:
        found.append(f"Match reduced because {lifted} bands of the source are near silence: a boost would lift noise.")
    if float(np.abs(change_db[0, known]).mean()) > 6:
        found.append("Reference mismatch: its spectrum is very far from the song's; another one may serve better.")
    return tuple(found)
