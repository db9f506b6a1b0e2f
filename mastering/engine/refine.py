"""Plan → a plan that the real chain brings nearer to what was asked for: what `Effort.FIT` adds to the closed form.

What was asked for is a feature vector (`goal`). `mastering.fit` moves the plan's open numbers (`knobs`) on a model of
the chain; the real chain then masters the loudest half minute by the closed form's plan and by the new one, and the new
one is taken only if it comes nearer there. Each trial also tells by how much the model is off.

Without torch, or where nothing better is found, the closed form's plan stays, and the remark says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mastering.contract import Measurements, Plan, PlanStep
from mastering.dsp import loudness
from mastering.dsp.contour import Contour, ContourMeter
from mastering.dsp.features import Layout, MeasuredRecording, Vector, distance_db, weights
from mastering.dsp.spectrum import SpectrumMeter
from mastering.dsp.stream import Audio
from mastering.engine import render
from mastering.engine.analyse import Analysis
from mastering.engine.excerpt import cut, fresh, loudest_s
from mastering.engine.goal import goal_features
from mastering.engine.knobs import planned_song, start_and_bounds, with_knobs

NO_TORCH = "Not refined: torch is not installed here ('make setup-torch' installs it). The plan is the closed form's."
BROKEN_TORCH = "Not refined: torch is installed here but does not load. The plan is the closed form's."
FAILED = "Not refined: the device gave up in the middle of it. The plan is the closed form's."

_TRIAL_S = 30.0
"""The loudest stretch that the real chain masters for a trial: as long as a preview, a second of work."""
_FITTED_S = 120.0
"""Of a longer song, ten-second stretches from all over it: a third of the time for much the same plan."""
_ROUNDS = (100, 60)
"""Iterations before the first trial, and after it, when the model has been corrected once more."""
_DESCENT_S = 60.0
"""At most, both rounds together; the best so far is then tried."""
_NEAR_DB = 0.15
"""A closed form within this distance of the goal is not refined: nobody hears less."""
_FIT_SHARE_BEFORE_DESCENT = 0.1
"""Of the fit's progress, for reading the song and cutting out the trial's stretch."""
_SILENCE_LUFS = -70.0
"""What a stretch without a loudness counts as: the absolute gate of BS.1770."""


def refined(
    chosen: Plan,
    audio: Audio,
    analysis: Analysis,
    references: Sequence[Measurements] = (),
    *,
    tick: Callable[[float], None] = lambda fraction: None,
    seconds: float = _DESCENT_S,
) -> tuple[Plan, str]:
    """The plan, refined where that comes nearer to what was asked for, and a remark on how that went.

    `tick` is given the fraction done and may raise to end it; after `seconds` of descent the best so far is tried.
    """
    if not chosen.settings.amount_percent:
        return chosen, "Not refined: an amount of 0 % asks for no change."
    try:
        from mastering import fit  # the only import of torch, which succeeds here or not at all
    except ImportError as error:
        return chosen, NO_TORCH if error.name == "torch" else BROKEN_TORCH
    tick(0.0)
    song = MeasuredRecording(
        _contour(audio).thinned(_FITTED_S), analysis.power, analysis.measurements.integrated_lufs or 0.0
    )
    source = song.features(chosen.loudness_lufs)
    goal = goal_features(chosen, analysis.power, source, references)
    counts = weights(Layout(chosen.rate_hz), source, goal)
    excerpt = cut(audio, loudest_s(analysis.block_energies, _TRIAL_S), _TRIAL_S)
    trial = _Trial.of(chosen, excerpt, song, goal - source)
    tick(_FIT_SHARE_BEFORE_DESCENT)
    try:
        return _Search(chosen, song, source, goal, counts, trial).result(tick, seconds)
    except fit.DeviceFailed:
        return chosen, FAILED


@dataclass(frozen=True)
class _Trial:
    """The real chain on the loudest stretch, and what was asked for there: the same change as for the whole song."""

    excerpt: Audio
    source: MeasuredRecording
    aim_lufs: float
    goal: Vector

    @classmethod
    def of(cls, chosen: Plan, excerpt: Audio, song: MeasuredRecording, change: Vector) -> _Trial:
        source = read_recording(excerpt)
        aim_lufs = chosen.loudness_lufs + source.lufs - song.lufs
        return cls(excerpt, source, aim_lufs, source.features(aim_lufs) + change)

    def features(self, candidate: Plan) -> Vector:
        """Of the stretch as the real chain masters it by `candidate`."""
        peak_floor = 10 ** ((candidate.ceiling_dbtp - (self.aim_lufs - self.source.lufs) - 6) / 20)
        song = render.shape(fresh(self.excerpt), candidate, tick=lambda frames: None, peak_floor=peak_floor)
        limiter, gain_db, _ = render.solve_with_release(song, candidate.ceiling_dbtp, self.aim_lufs)
        curve = limiter.curve(song.peaks, 10 ** (gain_db / 20), song.audio.rate_hz)
        return read_recording(render.limited(song.audio, curve)).features(self.aim_lufs)


def read_recording(audio: Audio) -> MeasuredRecording:
    """A recording by the meters that a trial uses."""
    energies = loudness.BlockEnergyMeter(audio.rate_hz, np.ones(audio.channels))
    contour, spectrum = ContourMeter(audio.rate_hz), SpectrumMeter(audio.rate_hz)
    for block in audio.read():
        energies.feed(block)
        contour.feed(block)
        spectrum.feed(block)
    lufs = loudness.integrated(energies.block_energies()) or _SILENCE_LUFS
    return MeasuredRecording(contour.contour(), spectrum.power(), lufs)


def _contour(audio: Audio) -> Contour:
    meter = ContourMeter(audio.rate_hz)
    for block in audio.read():
        meter.feed(block)
    return meter.contour()


@dataclass(frozen=True)
class _Search:
    """Descents on the model of the chain, each followed by a trial on the real chain."""

    chosen: Plan
    song: MeasuredRecording
    source: Vector
    goal: Vector
    counts: Vector
    """What each feature counts in the distance."""
    trial: _Trial

    def result(self, tick: Callable[[float], None], seconds: float) -> tuple[Plan, str]:
        """The nearest plan found, and how it was found. Raises fit.DeviceFailed."""
        real = self.trial.features(self.chosen)
        start_db = nearest_db = self._distance_db(real)
        if start_db < _NEAR_DB:
            return self.chosen, f"Not refined: the closed form comes within {start_db:.2f} dB of what was asked for."
        from mastering import fit

        planned = planned_song(self.chosen, self.song, self.source)
        source, aim_lufs = self.trial.source, self.trial.aim_lufs
        planned_excerpt = replace(
            planned,
            contour=source.contour,
            power=source.power,
            lufs=source.lufs,
            loudness_lufs=aim_lufs,
            features=source.features(aim_lufs),
        )
        model, excerpt_model = fit.ChainModel(planned), fit.ChainModel(planned_excerpt)
        knobs, bounds = start_and_bounds(self.chosen, self.song, self.source)
        nearest, done, device = self.chosen, 0, ""
        for number, iterations in enumerate(_ROUNDS):
            error = real - excerpt_model.read(knobs)
            found = fit.descend(
                model,
                knobs,
                bounds,
                self.goal - error,
                self.counts,
                seed=self.chosen.seed + number,
                limits=fit.DescentLimits(iterations, seconds / len(_ROUNDS)),
                tick=partial(self._tick_part, tick, number),
            )
            candidate, knobs = with_knobs(self.chosen, found.knobs, self.goal)
            real = self.trial.features(candidate)
            done, device = done + found.iterations, found.device
            if self._distance_db(real) < nearest_db:
                nearest, nearest_db = candidate, self._distance_db(real)
        return self._explained(nearest, f"{done} iterations on {device}", start_db, nearest_db)

    @staticmethod
    def _tick_part(tick: Callable[[float], None], number: int, part: float) -> None:
        tick(_FIT_SHARE_BEFORE_DESCENT + 0.9 * (number + part) / len(_ROUNDS))

    def _distance_db(self, real: Vector) -> float:
        return distance_db(real, self.trial.goal, self.counts)

    def _explained(self, nearest: Plan, how: str, start_db: float, nearest_db: float) -> tuple[Plan, str]:
        """The plan with reasons for what the fit changed, and the remark."""
        if nearest is self.chosen:
            return nearest, f"Not refined: {how} found nothing nearer than the closed form's {start_db:.2f} dB."
        words = f"refined by gradient descent, {how}, distance {start_db:.2f} → {nearest_db:.2f} dB"
        changed = (step for step in nearest.steps if step != self.chosen.step(step.name))
        explained = [_with_reason(step, words, self.chosen.step(step.name)) for step in changed]
        return nearest.with_steps(*explained), f"The plan was {words}."


def _with_reason(step: PlanStep, words: str, before: PlanStep | None) -> PlanStep:
    sentence = f"{words[0].upper()}{words[1:]}."
    return step.model_copy(update={"reason": f"{before.reason} {sentence}" if before else sentence})
