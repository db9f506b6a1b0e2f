"""Readings over time for the report's plots, and what other loudnesses would have cost.

Both are worked out from cached block energies and peaks, without touching audio again.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mastering.contract import LoudnessCost, Plan, Traces
from mastering.dsp import limiter, loudness
from mastering.dsp.limiter import Curve, Limiter
from mastering.dsp.true_peak import block_length
from mastering.engine import render, steps

_MOST_POINTS = 300
"""Readings of a trace at most: enough for a plot of 720 pixels, and 5 KB of JSON."""
_COSTS_LUFS = (-16.0, -14.0, -11.0, -9.0)
"""From what services play to what a loud CD has."""
_LIMITED_DB = -1.0
"""Where limiting begins to be heard: nodes below it count as limited."""


def traces(
    song: render.ShapedSong,
    chosen: Plan,
    before: loudness.BlockEnergies,
    after: loudness.BlockEnergies,
    *,
    with_costs: bool,
) -> Traces:
    """Readings at most 300 times, a whole number of seconds apart; 30 ms of work for four minutes.

    Costs take thirty times as long, because each solves the limiter anew.
    """
    step_s = max(1, math.ceil(before.size / loudness.BLOCKS_PER_S / _MOST_POINTS))
    return Traces(
        step_s=step_s,
        loudness_before_lufs=_short_term(before, step_s),
        loudness_after_lufs=_short_term(after, step_s),
        gain_reduction_db=_reduction(song, chosen, step_s),
        costs=tuple(_cost(song, chosen.ceiling_dbtp, lufs) for lufs in _COSTS_LUFS if with_costs),
    )


def _short_term(energies: loudness.BlockEnergies, step_s: int) -> tuple[float | None, ...]:
    readings = (loudness.to_lufs(float(energy)) for energy in loudness.short_term(energies)[:: step_s * 100])
    return tuple(None if reading is None else round(reading, 2) for reading in readings)


def _reduction(song: render.ShapedSong, chosen: Plan, step_s: int) -> tuple[float, ...]:
    """The most that the limiter takes in each step, in dB (0 or less)."""
    gain_db = steps.gain_db(chosen)
    change_db = _change_db(_limiter_curve(song, steps.limiter_settings(chosen), gain_db), gain_db)
    step_frames = step_s * song.audio.rate_hz
    starts = np.arange(math.ceil(song.audio.frames / step_frames)) * step_frames / block_length(song.audio.rate_hz)
    most = np.minimum.reduceat(change_db, np.round(starts).astype(np.int64))
    return tuple((most.round(2) + 0.0).tolist())  # + 0.0, because JSON would tell people of −0.0 dB


def _limiter_curve(song: render.ShapedSong, settings: Limiter, gain_db: float) -> Curve:
    return settings.curve(song.peaks, 10 ** (gain_db / 20), song.audio.rate_hz)


def _change_db(curve: Curve, gain_db: float) -> NDArray[np.float64]:
    """The limiter's own change at each node, 0 or less: its curve without the gain before it."""
    change: NDArray[np.float64] = 20 * np.log10(np.maximum(curve, 1e-10)) - gain_db
    return change


def _cost(song: render.ShapedSong, ceiling_dbtp: float, lufs: float) -> LoudnessCost:
    found = render.solve_with_release(song, ceiling_dbtp, lufs)
    curve = _limiter_curve(song, found.limiter, found.gain_db)
    change_db = _change_db(curve, found.gain_db)
    edges = loudness.block_edges(song.audio.frames, song.audio.rate_hz)
    energies = song.block_energies * limiter.mean_square(curve, edges, block_length(song.audio.rate_hz))
    range_lu = loudness.loudness_range(energies)
    highest_dbtp = min(ceiling_dbtp, 20 * math.log10(max(float(song.peaks.max()), 1e-10)) + found.gain_db)
    return LoudnessCost(
        loudness_lufs=lufs,
        reached_lufs=round(found.reached_lufs, 2),
        peak_to_loudness_lu=round(highest_dbtp - found.reached_lufs, 2),
        limited_percent=round(100 * float((change_db < _LIMITED_DB).mean()), 2),
        mean_reduction_db=round(-float(change_db.mean()), 2),
        loudness_range_lu=None if range_lu is None else round(range_lu, 2),
    )
