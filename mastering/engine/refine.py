"""Plan → a plan that the real chain brings nearer to what was asked for: what `Effort.FIT` adds to the closed form.

What was asked for is a feature vector (`goal`). `mastering.fit` moves the plan's open numbers on a stand-in of the
chain; the real chain then masters the loudest half minute by the closed form's plan and by the new one, and the new
one is taken only if it comes nearer there. Each trial also tells by how much the stand-in is off.

Without torch, or where nothing better is found, the closed form's plan stays, and the remark says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mastering.contract import Measurements, Plan, PlanStep
from mastering.dsp import loudness
from mastering.dsp.contour import COUNTED_HZ, Contour, ContourMeter, Layout, Vector, distance_db, features, weights
from mastering.dsp.dynamics import Compressor
from mastering.dsp.spectrum import SpectrumMeter, band_centres_hz, bin_frequencies_hz
from mastering.dsp.stream import Audio
from mastering.engine import plan, render
from mastering.engine.analyse import Analysis
from mastering.engine.excerpt import cut, fresh, loudest_s
from mastering.engine.goal import goal_features

if TYPE_CHECKING:
    from mastering.fit import Knobs, Scene

NO_TORCH = "Not refined: torch is not installed here. The plan is the closed form's."
BROKEN_TORCH = "Not refined: torch is installed here but does not load. The plan is the closed form's."
FAILED = "Not refined: the device gave up in the middle of it. The plan is the closed form's."

_TRIAL_S = 30.0
_FITTED_S = 120.0
"""Of a longer song, ten-second stretches from all over it: a third of the time for much the same plan."""
_ROUNDS = (100, 60)
"""Iterations before the first trial, and after it, when the stand-in has been put right once more."""
_SECONDS = 60.0
_NEAR_DB = 0.15
_MOST_DB, _MOST_CORRECTION_DB, _MOST_WIDTH_DB, _MOST_GAIN_DB = 24.0, 6.0, 3.0, 4.0
_NEAR_SILENCE_DB = -70.0
_BELOW_DB, _ABOVE_DB = 16.0, 10.0
"""How far a threshold may lie from its band's mean level."""
_MOST_SLOPE = 0.75
"""A ratio of 4."""
_HEARD = 0.02
"""A slope, a drive or a dB that is less than this is nothing."""


@dataclass(frozen=True)
class TrialReading:
    """A recording as the features need it."""

    contour: Contour
    power: NDArray[np.float64]
    lufs: float

    def features(self, wished_lufs: float) -> Vector:
        return features(self.contour, self.power, self.lufs, wished_lufs)


def refined(
    chosen: Plan,
    audio: Audio,
    heard: Analysis,
    references: Sequence[Measurements] = (),
    *,
    tick: Callable[[float], None] = lambda fraction: None,
    seconds: float = _SECONDS,
) -> tuple[Plan, str]:
    """The plan, refined where that comes nearer to what was asked for, and a remark on how that went.

    `tick` hears the fraction done and may raise to end it; after `seconds` of descent the best so far is tried.
    """
    if not chosen.settings.amount_percent:
        return chosen, "Not refined: an amount of 0 % asks for no change."
    try:
        from mastering import fit  # the door to torch, which opens here or not at all
    except ImportError as error:
        return chosen, NO_TORCH if error.name == "torch" else BROKEN_TORCH
    tick(0.0)
    song = TrialReading(_contour(audio).thinned(_FITTED_S), heard.power, heard.measurements.integrated_lufs or 0.0)
    source = song.features(chosen.loudness_lufs)
    goal = goal_features(chosen, heard.power, source, references)
    counts = weights(Layout(chosen.rate_hz), source, goal)
    trial = _Trial.of(chosen, cut(audio, loudest_s(heard.cells, _TRIAL_S), _TRIAL_S), song, goal - source)
    tick(0.1)
    try:
        return _Search(chosen, song, source, goal, counts, trial).result(tick, seconds)
    except fit.DeviceFailed:
        return chosen, FAILED


@dataclass(frozen=True)
class _Trial:
    """The real chain on the loudest stretch, and what was asked for there: the same change as for the whole song."""

    excerpt: Audio
    heard: TrialReading
    aim_lufs: float
    goal: Vector

    @classmethod
    def of(cls, chosen: Plan, excerpt: Audio, song: TrialReading, change: Vector) -> _Trial:
        heard = listen(excerpt)
        aim_lufs = chosen.loudness_lufs + heard.lufs - song.lufs
        return cls(excerpt, heard, aim_lufs, heard.features(aim_lufs) + change)

    def features(self, candidate: Plan) -> Vector:
        """Of the stretch as the real chain masters it by `candidate`."""
        near = 10 ** ((candidate.ceiling_dbtp - (self.aim_lufs - self.heard.lufs) - 6) / 20)
        song = render.shape(fresh(self.excerpt), candidate, tick=lambda frames: None, above=near)
        limits, gain_db, _ = render.solve_with_release(song, candidate.ceiling_dbtp, self.aim_lufs)
        curve = limits.curve(song.peaks, 10 ** (gain_db / 20), song.audio.rate_hz)
        return listen(render.limited(song.audio, curve)).features(self.aim_lufs)


def listen(audio: Audio) -> TrialReading:
    """A recording by the meters that a trial uses."""
    cells = loudness.BlockEnergyMeter(audio.rate_hz, np.ones(audio.channels))
    contour, spectrum = ContourMeter(audio.rate_hz), SpectrumMeter(audio.rate_hz)
    for block in audio.read():
        cells.feed(block)
        contour.feed(block)
        spectrum.feed(block)
    return TrialReading(contour.contour(), spectrum.power(), loudness.integrated(cells.cells()) or -70.0)


def _contour(audio: Audio) -> Contour:
    meter = ContourMeter(audio.rate_hz)
    for block in audio.read():
        meter.feed(block)
    return meter.contour()


@dataclass(frozen=True)
class _Search:
    """Descents on the stand-in, each followed by a trial on the real chain."""

    chosen: Plan
    song: TrialReading
    source: Vector
    goal: Vector
    counts: Vector
    trial: _Trial

    def result(self, tick: Callable[[float], None], seconds: float) -> tuple[Plan, str]:
        """The nearest plan found, and how it was found."""
        real = self.trial.features(self.chosen)
        start_db = nearest_db = self._distance_db(real)
        if start_db < _NEAR_DB:
            return self.chosen, f"Not refined: the closed form comes within {start_db:.2f} dB of what was asked for."
        from mastering import fit

        scene = _scene(self.chosen, self.song, self.source)
        there = replace(scene, contour=self.trial.heard.contour, power=self.trial.heard.power)
        there = replace(there, lufs=self.trial.heard.lufs, loudness_lufs=self.trial.aim_lufs)
        there = replace(there, features=self.trial.heard.features(self.trial.aim_lufs))
        whole, stretch = fit.Chain(scene), fit.Chain(there)
        knobs, bounds = _start(self.chosen, self.song, self.source)
        nearest, done, device = self.chosen, 0, ""
        for number, iterations in enumerate(_ROUNDS):
            off = real - stretch.read(knobs)
            found = fit.descend(
                whole,
                knobs,
                bounds,
                self.goal - off,
                self.counts,
                seed=self.chosen.seed + number,
                limits=fit.KnobLimits(iterations, seconds / len(_ROUNDS)),
                tick=partial(self._part, tick, number),
            )
            candidate, knobs = _settled(self.chosen, found.knobs, self.goal)
            real = self.trial.features(candidate)
            done, device = done + found.iterations, found.device
            if self._distance_db(real) < nearest_db:
                nearest, nearest_db = candidate, self._distance_db(real)
        return self._told(nearest, f"{done} iterations on {device}", start_db, nearest_db)

    @staticmethod
    def _part(tick: Callable[[float], None], number: int, part: float) -> None:
        tick(0.1 + 0.9 * (number + part) / len(_ROUNDS))

    def _distance_db(self, real: Vector) -> float:
        return distance_db(real, self.trial.goal, self.counts)

    def _told(self, nearest: Plan, how: str, start_db: float, nearest_db: float) -> tuple[Plan, str]:
        if nearest is self.chosen:
            return nearest, f"Not refined: {how} found nothing nearer than the closed form's {start_db:.2f} dB."
        said = f"refined by gradient descent, {how}, distance {start_db:.2f} → {nearest_db:.2f} dB"
        steps = tuple(
            step if step == self.chosen.step(step.name) else _explained(step, said, self.chosen.step(step.name))
            for step in nearest.steps
        )
        return nearest.model_copy(update={"steps": steps}), f"The plan was {said}."


def _explained(step: PlanStep, said: str, before: PlanStep | None) -> PlanStep:
    reason = f"{before.reason} {said[0].upper()}{said[1:]}." if before else f"{said[0].upper()}{said[1:]}."
    return step.model_copy(update={"reason": reason})


def _compressor(chosen: Plan, song: TrialReading) -> tuple[Compressor, NDArray[np.float64], float]:
    """The plan's compressor, or one that does nothing; each band's mean level; the least slope allowed."""
    tone, step = chosen.step("tone"), chosen.step("compressor")
    levels = np.array(plan.thresholds_db(song.power, chosen.rate_hz, plan.curve_of(tone) if tone else None, 1.0))
    if step is None:
        low, middle, high = (round(float(level), 2) + 4.0 for level in levels)
        return Compressor(low, middle, high, 1.0, 1.0, 1.0), levels, 0.0
    settled = plan.compressor_of(step)
    return settled, levels, float(settled.slopes.min()) / 2


def _scene(chosen: Plan, song: TrialReading, source: Vector) -> Scene:
    from mastering.fit import Scene

    tone, saturation = chosen.step("tone"), chosen.step("saturation")
    hz = bin_frequencies_hz(chosen.rate_hz)
    gains = plan.curve_of(tone).gains(hz) if tone else np.ones((2, hz.size))
    return Scene(
        contour=song.contour,
        power=song.power,
        lufs=song.lufs,
        features=source,
        tone_db=20 * np.log10(np.maximum(gains, 1e-6)),
        compressor=_compressor(chosen, song)[0],
        saturated_peak=plan.number(saturation, "peak") if saturation else 1.0,
        loudness_lufs=chosen.loudness_lufs,
        ceiling_dbtp=chosen.ceiling_dbtp,
    )


def _start(chosen: Plan, song: TrialReading, source: Vector) -> tuple[Knobs, tuple[Knobs, Knobs]]:
    """The closed form as knobs, and within which bounds they may move."""
    from mastering.fit import Knobs

    settled, levels, least = _compressor(chosen, song)
    drive = np.array([plan.number(step, "drive") if (step := chosen.step("saturation")) else 0.0])
    bands = len(band_centres_hz(chosen.rate_hz))
    nothing, three = np.zeros(bands), np.zeros(3)
    now = _gains_db(chosen)
    spectrum = source[: 2 * bands].reshape(2, bands)
    quiet = spectrum < spectrum.max() + _NEAR_SILENCE_DB
    low = np.maximum(-_MOST_CORRECTION_DB, -_MOST_DB - now)
    high = np.minimum(_MOST_CORRECTION_DB, np.where(quiet, np.maximum(-now, 0.0), _MOST_DB - now))
    wide = _MOST_WIDTH_DB * (not quiet[1].all())
    start = Knobs(nothing, nothing, three, settled.thresholds_db, settled.slopes, settled.gains_db, drive)
    lowest = Knobs(low[0], low[1], three - wide, levels - _BELOW_DB, three + least, three - _MOST_GAIN_DB, drive * 0)
    highest = Knobs(
        *(high[0], high[1], three + wide, levels + _ABOVE_DB),
        *(three + _MOST_SLOPE, three + _MOST_GAIN_DB, np.where(drive > 0, 1.0, 0.0)),
    )
    return start, (lowest, highest)


def _gains_db(chosen: Plan) -> NDArray[np.float64]:
    """The plan's tone at the band centres (2, bands)."""
    tone = chosen.step("tone")
    if tone is None:
        return np.zeros((2, len(band_centres_hz(chosen.rate_hz))))
    curve = plan.curve_of(tone)
    return np.array([curve.mid_db, curve.side_db])


def _settled(chosen: Plan, knobs: Knobs, goal: Vector) -> tuple[Plan, Knobs]:
    """The plan with the knobs' numbers as they are printed, and the knobs at those."""
    knobs = replace(knobs, **{name: np.round(getattr(knobs, name), 3) for name in knobs.__dataclass_fields__})
    found = {step.name: step for step in chosen.steps}
    for step in (_tone(chosen, knobs, goal), _compression(chosen, knobs), _saturation(chosen, knobs)):
        if step is not None:
            found[step.name] = step
    order = [found[name] for name in ("tone", "compressor", "saturation") if name in found]
    return chosen.model_copy(update={"steps": tuple(order)}), knobs


def _tone(chosen: Plan, knobs: Knobs, goal: Vector) -> PlanStep | None:
    layout = Layout(chosen.rate_hz)
    widths = (knobs.width_db[:, None] * layout.band_gains() ** 2).sum(axis=0)
    change = np.stack([knobs.mid_db, knobs.side_db + widths])
    known = np.isfinite(goal[: layout.centres_hz.size])
    change = _extended(change, known & (layout.centres_hz >= COUNTED_HZ[0]) & (layout.centres_hz <= COUNTED_HZ[1]))
    if np.abs(change).max() < _HEARD:
        return None
    mid_db, side_db = np.clip(_gains_db(chosen) + change, -_MOST_DB, _MOST_DB)
    kept = step.parameters if (step := chosen.step("tone")) else {"cut_hz": 0.0, "mono_hz": 0.0}
    parameters = {
        "hz": [round(float(hz), 2) for hz in layout.centres_hz],
        "mid_db": [round(float(gain), 3) for gain in mid_db],
        "side_db": [round(float(gain), 3) for gain in side_db],
        "cut_hz": kept["cut_hz"],
        "mono_hz": kept["mono_hz"],
    }
    return PlanStep(name="tone", parameters=parameters, reason="")


def _extended(change: NDArray[np.float64], fitted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Bands that nothing was asked of move with the nearest one that was fitted."""
    places = np.flatnonzero(fitted)
    nearest = places[np.abs(np.arange(fitted.size)[:, None] - places).argmin(axis=1)]
    return change[:, nearest]


def _compression(chosen: Plan, knobs: Knobs) -> PlanStep | None:
    step = chosen.step("compressor")
    if step is None and max(knobs.slopes.max(), np.abs(knobs.gains_db).max()) < _HEARD:
        return None
    settled = plan.compressor_of(step) if step else Compressor(0.0, 0.0, 0.0)
    names = ("low", "middle", "high")
    numbers = {f"{name}_threshold_db": round(float(at), 2) for name, at in zip(names, knobs.thresholds_db, strict=True)}
    numbers |= {f"{name}_ratio": round(1 / (1 - float(at)), 3) for name, at in zip(names, knobs.slopes, strict=True)}
    numbers |= {f"{name}_gain_db": round(float(at), 3) for name, at in zip(names, knobs.gains_db, strict=True)}
    return PlanStep(name="compressor", parameters=asdict(replace(settled, **numbers)), reason="")


def _saturation(chosen: Plan, knobs: Knobs) -> PlanStep | None:
    step = chosen.step("saturation")
    if step is None:
        return None
    return step.model_copy(update={"parameters": step.parameters | {"drive": round(float(knobs.drive[0]), 3)}})
