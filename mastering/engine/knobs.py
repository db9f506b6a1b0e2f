"""A plan as the numbers that a fit may move ("knobs"), the bounds of these, and the plan with new ones.

Open are the tone at every band, the compressor's thresholds, ratios and gains, and the saturation's drive; all else in
a plan is fixed for the fit (`PlannedSong`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mastering.contract import (
    BoardParameters,
    BoardStep,
    CompressorStep,
    Plan,
    SaturationParameters,
    SaturationStep,
    ToneStep,
)
from mastering.dsp.dynamics import Compressor
from mastering.dsp.features import COUNTED_HZ, Layout, MeasuredRecording, Vector
from mastering.dsp.spectrum import band_centres_hz, bin_frequencies_hz
from mastering.engine import plan, steps
from mastering.engine.board_plan import octave_bells
from mastering.engine.match import most_gain_db, most_lift_db

if TYPE_CHECKING:
    from mastering.fit import Knobs, PlannedSong

_MOST_CORRECTION_DB, _MOST_WIDTH_DB, _MOST_BAND_GAIN_DB = 6.0, 3.0, 4.0
"""How far a fit may move a band, the width of a compressor's band, and its gain."""
_BELOW_DB, _ABOVE_DB = 16.0, 10.0
"""How far a threshold may lie from its band's mean level."""
_MOST_SLOPE = 0.75
"""A ratio of 4."""
_AUDIBLE = 0.02
"""A slope, a drive or a dB that is less than this is nothing."""
_BANDS = ("low", "middle", "high")


def planned_song(chosen: Plan, song: MeasuredRecording, features: Vector) -> PlannedSong:
    """The song with what its plan keeps fixed; `features` are the song's own."""
    from mastering.fit import PlannedSong

    saturation = chosen.saturation
    gains = steps.shaping_gains(chosen, bin_frequencies_hz(chosen.rate_hz))
    return PlannedSong(
        contour=song.contour,
        power=song.power,
        lufs=song.lufs,
        features=features,
        tone_db=20 * np.log10(np.maximum(gains, 1e-6)),
        compressor=_compressor(chosen, song)[0],
        saturated_peak=saturation.parameters.peak if saturation else 1.0,
        loudness_lufs=chosen.loudness_lufs,
        ceiling_dbtp=chosen.ceiling_dbtp,
    )


def start_and_bounds(chosen: Plan, song: MeasuredRecording, features: Vector) -> tuple[Knobs, tuple[Knobs, Knobs]]:
    """The closed form's plan as knobs, and the lowest and highest that each may become."""
    from mastering.fit import Knobs

    compressor, levels_db, least_slope = _compressor(chosen, song)
    drive = np.array([chosen.saturation.parameters.drive if chosen.saturation else 0.0])
    bands = len(band_centres_hz(chosen.rate_hz))
    no_change, three = np.zeros(bands), np.zeros(3)
    tone_db = _tone_db(chosen)
    spectrum = features[: 2 * bands].reshape(2, bands)
    most_db = most_gain_db(chosen.settings.amount_percent / 100)
    lift_db = most_lift_db(spectrum, most_db)
    low = np.maximum(-_MOST_CORRECTION_DB, np.minimum(-most_db - tone_db, 0.0))
    high = np.minimum(_MOST_CORRECTION_DB, np.maximum(lift_db - tone_db, 0.0))
    wide = _MOST_WIDTH_DB * bool(lift_db[1].any())
    start = Knobs(no_change, no_change, three, compressor.thresholds_db, compressor.slopes, compressor.gains_db, drive)
    lowest = Knobs(
        *(low[0], low[1], three - wide, levels_db - _BELOW_DB),
        *(three + least_slope, three - _MOST_BAND_GAIN_DB, drive * 0),
    )
    highest = Knobs(
        *(high[0], high[1], three + wide, levels_db + _ABOVE_DB),
        *(three + _MOST_SLOPE, three + _MOST_BAND_GAIN_DB, np.where(drive > 0, 1.0, 0.0)),
    )
    return start, (lowest, highest)


def with_knobs(chosen: Plan, knobs: Knobs, goal: Vector) -> tuple[Plan, Knobs]:
    """The plan of what shapes the sound with the knobs' numbers, rounded as a plan's are, and the rounded knobs.

    Steps that the knobs change have no reason yet.
    """
    knobs = replace(knobs, **{name: np.round(getattr(knobs, name), 3) for name in knobs.__dataclass_fields__})
    shaping = (
        _with_correction(chosen, knobs, goal),
        _fitted_compressor(chosen, knobs),
        _fitted_saturation(chosen, knobs),
    )
    return chosen.with_steps(*shaping), knobs


def _compressor(chosen: Plan, song: MeasuredRecording) -> tuple[Compressor, NDArray[np.float64], float]:
    """The plan's compressor, or one that does nothing; each band's mean level; the least slope allowed."""
    levels_db = np.array(plan.thresholds_db(song.power, chosen, 1.0))
    if chosen.compressor is None:
        low, middle, high = (round(float(level), 2) + 4.0 for level in levels_db)
        return Compressor(low, middle, high, 1.0, 1.0, 1.0), levels_db, 0.0
    compressor = steps.compressor_settings(chosen.compressor)
    return compressor, levels_db, float(compressor.slopes.min()) / 2


def _tone_db(chosen: Plan) -> NDArray[np.float64]:
    """The plan's tone at the band centres (2, bands)."""
    if chosen.tone is None:
        return np.zeros((2, len(band_centres_hz(chosen.rate_hz))))
    return np.array([chosen.tone.parameters.mid_db, chosen.tone.parameters.side_db])


def _with_correction(chosen: Plan, knobs: Knobs, goal: Vector) -> ToneStep | BoardStep | None:
    """The step with the knobs' correction of the spectrum: the tone to a reference, else the board with bells more."""
    layout = Layout(chosen.rate_hz)
    widths = (knobs.width_db[:, None] * layout.band_gains() ** 2).sum(axis=0)
    change = np.stack([knobs.mid_db, knobs.side_db + widths])
    known = np.isfinite(goal[: layout.centres_hz.size])
    change = _extended(change, known & (layout.centres_hz >= COUNTED_HZ[0]) & (layout.centres_hz <= COUNTED_HZ[1]))
    if np.abs(change).max() < _AUDIBLE:
        return None
    if chosen.tone is not None:
        return ToneStep(parameters=steps.tone_parameters(layout.centres_hz, _tone_db(chosen) + change), reason="")
    bells = octave_bells(change, chosen.rate_hz, "refined by gradient descent")
    processors = (*steps.processors(chosen.board), *bells)
    return BoardStep(parameters=BoardParameters(processors=processors), reason="")


def _extended(change: NDArray[np.float64], fitted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Bands that nothing was asked of move with the nearest one that was fitted."""
    bands = np.flatnonzero(fitted)
    nearest = bands[np.abs(np.arange(fitted.size)[:, None] - bands).argmin(axis=1)]
    return change[:, nearest]


def _fitted_compressor(chosen: Plan, knobs: Knobs) -> CompressorStep | None:
    if chosen.compressor is None and max(knobs.slopes.max(), np.abs(knobs.gains_db).max()) < _AUDIBLE:
        return None
    before = steps.compressor_settings(chosen.compressor) if chosen.compressor else Compressor(0.0, 0.0, 0.0)
    numbers = {
        f"{band}_threshold_db": round(float(at), 2) for band, at in zip(_BANDS, knobs.thresholds_db, strict=True)
    }
    numbers |= {f"{band}_ratio": round(1 / (1 - float(at)), 3) for band, at in zip(_BANDS, knobs.slopes, strict=True)}
    numbers |= {f"{band}_gain_db": round(float(at), 3) for band, at in zip(_BANDS, knobs.gains_db, strict=True)}
    return CompressorStep(parameters=steps.compressor_parameters(replace(before, **numbers)), reason="")


def _fitted_saturation(chosen: Plan, knobs: Knobs) -> SaturationStep | None:
    if chosen.saturation is None:
        return None
    parameters = SaturationParameters(drive=round(float(knobs.drive[0]), 3), peak=chosen.saturation.parameters.peak)
    return chosen.saturation.model_copy(update={"parameters": parameters})
