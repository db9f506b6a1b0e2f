"""Readings over time for the report's plots, and what other loudnesses would have cost. From cached cells and peaks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mastering.contract import LoudnessCost, Plan, Traces
from mastering.dsp import limiter, loudness
from mastering.dsp.limiter import Limiter
from mastering.dsp.true_peak import block_length
from mastering.engine import plan, render

_MOST_POINTS = 300
_COSTS_LUFS = (-16.0, -14.0, -11.0, -9.0)
_HEARD_DB = -1.0


def traces(
    song: render.ShapedSong, chosen: Plan, before: loudness.Energies, after: loudness.Energies, *, with_costs: bool
) -> Traces:
    """At most 300 steps of a whole number of seconds: 30 ms for four minutes, and 5 KB of JSON.

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


def _short_term(cells: loudness.Energies, step_s: int) -> tuple[float | None, ...]:
    readings = (loudness.to_lufs(float(energy)) for energy in loudness.short_term(cells)[:: step_s * 100])
    return tuple(None if reading is None else round(reading, 2) for reading in readings)


def _reduction(song: render.ShapedSong, chosen: Plan, step_s: int) -> tuple[float, ...]:
    gain_db = plan.number(plan.required(chosen, "loudness"), "gain_db")
    taken = _taken_db(song, plan.limiter_of(plan.required(chosen, "limiter")), gain_db)
    step_frames = step_s * song.audio.rate_hz
    starts = np.arange(math.ceil(song.audio.frames / step_frames)) * step_frames / block_length(song.audio.rate_hz)
    most = np.minimum.reduceat(taken, np.round(starts).astype(np.int64))
    return tuple((most.round(2) + 0.0).tolist())  # + 0.0, because JSON would tell people of −0.0 dB


def _taken_db(song: render.ShapedSong, limits: Limiter, gain_db: float) -> NDArray[np.float64]:
    curve = limits.curve(song.peaks, 10 ** (gain_db / 20), song.audio.rate_hz)
    taken: NDArray[np.float64] = 20 * np.log10(np.maximum(curve, 1e-10)) - gain_db
    return taken


def _cost(song: render.ShapedSong, ceiling_dbtp: float, lufs: float) -> LoudnessCost:
    limits, gain_db, reached = render.solve_with_release(song, ceiling_dbtp, lufs)
    curve = limits.curve(song.peaks, 10 ** (gain_db / 20), song.audio.rate_hz)
    taken: NDArray[np.float64] = 20 * np.log10(np.maximum(curve, 1e-10)) - gain_db
    edges = loudness.block_edges(song.audio.frames, song.audio.rate_hz)
    cells = song.cells * limiter.mean_square(curve, edges, block_length(song.audio.rate_hz))
    spread = loudness.loudness_range(cells)
    highest_dbtp = min(ceiling_dbtp, 20 * math.log10(max(float(song.peaks.max()), 1e-10)) + gain_db)
    return LoudnessCost(
        loudness_lufs=lufs,
        reached_lufs=round(reached, 2),
        peak_to_loudness_lu=round(highest_dbtp - reached, 2),
        limited_percent=round(100 * float((taken < _HEARD_DB).mean()), 2),
        mean_reduction_db=round(-float(taken.mean()), 2),
        loudness_range_lu=None if spread is None else round(spread, 2),
    )
