"""Plan → a plan that the real chain brings nearer to what was asked for: what `Effort.FIT` adds to the closed form.

What was asked for is a feature vector (`goal`). `mastering.fit` moves the plan's open numbers (`knobs`) on a model of
the chain; the real chain then masters the song by the closed form's plan and by the new one (`trial`), which also tells
by how much the model is off. The new one is taken only if it comes nearer and leaves nothing further from what was
asked for by any measure; else half of the change is, or a quarter.

Without torch, or where nothing better is found, the closed form's plan stays, and the remark says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from mastering.contract import Measurements, Plan, PlanStep
from mastering.dsp.contour import Contour, ContourMeter
from mastering.dsp.features import Layout, MeasuredRecording, Vector, distance_db, weights
from mastering.dsp.stream import Audio
from mastering.engine.analyse import Analysis
from mastering.engine.goal import goal_features
from mastering.engine.knobs import planned_song, start_and_bounds, with_knobs
from mastering.engine.trial import Measures, Trial, thinned

if TYPE_CHECKING:
    from mastering.fit import Knobs

NO_TORCH = "Not refined: torch is not installed here ('make setup-torch' installs it). The plan is the closed form's."
BROKEN_TORCH = "Not refined: torch is installed here but does not load. The plan is the closed form's."
FAILED = "Not refined: the device gave up in the middle of it. The plan is the closed form's."

_FITTED_S = 120.0
"""Of a longer song, ten-second stretches from all over it: a third of the time for much the same plan."""
_TRIED_S = 240.0
"""Of a longer song, stretches from all over it are mastered for a trial."""
_ROUNDS = (100, 60)
"""Iterations before the first trial, and after it, when the model has been corrected once more."""
_DESCENT_S = 60.0
"""At most, both rounds together; the best so far is then tried."""
_NEAR_DB = 0.15
"""A closed form within this distance of the goal is not refined: nobody hears less."""
_SHARES = ((0.5, "half"), (0.25, "a quarter"))
"""How much of a change is tried where all of it leaves something further away, and what it is called."""
_ENDS = (0.05, 0.15, 0.5, 0.65, 0.9, 1.0)
"""Of the fit's progress, where each part ends: reading the song, the first trial, each descent and its trial."""


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
    contour, lufs = _contour(audio), analysis.measurements.integrated_lufs or 0.0
    song = MeasuredRecording(contour.thinned(_FITTED_S), analysis.power, lufs)
    source = song.features(chosen.loudness_lufs)
    goal = goal_features(chosen, analysis.power, source, references)
    counts = weights(Layout(chosen.rate_hz), source, goal)
    whole = replace(song, contour=contour)
    aim = whole.features(chosen.loudness_lufs) + (goal - source)
    trial = Trial(thinned(audio, _TRIED_S), whole, chosen.loudness_lufs, aim)
    try:
        return _Search(chosen, song, source, counts, trial, tick).result(seconds)
    except fit.DeviceFailed:
        return chosen, FAILED


def _contour(audio: Audio) -> Contour:
    meter = ContourMeter(audio.rate_hz)
    for block in audio.read():
        meter.feed(block)
    return meter.contour()


@dataclass(frozen=True)
class _Candidate:
    """A plan that was tried, by its knobs, and its master."""

    plan: Plan
    knobs: Knobs
    features: Vector
    distance_db: float
    """From what was asked for."""
    further: str
    """Which measure it leaves further away than the closed form does, and by how much, in words; "" for none."""


@dataclass(frozen=True)
class _Search:
    """Descents on the model of the chain, each followed by a trial on the real chain."""

    chosen: Plan
    song: MeasuredRecording
    source: Vector
    counts: Vector
    """What each feature counts in the distance."""
    trial: Trial
    tick: Callable[[float], None]

    def result(self, seconds: float) -> tuple[Plan, str]:
        """The nearest plan found, and how it was found. Raises fit.DeviceFailed."""
        before = self.trial.features(self.chosen, self._frames_told(1))
        start_db = distance_db(before, self.trial.goal, self.counts)
        if start_db < _NEAR_DB:
            return self.chosen, f"Not refined: the closed form comes within {start_db:.2f} dB of what was asked for."
        from mastering import fit

        knobs, bounds = start_and_bounds(self.chosen, self.song, self.source)
        model = fit.ChainModel(planned_song(self.chosen, self.song, self.source))
        measures = Measures.of(Layout(self.chosen.rate_hz), self.trial.goal, before)
        start = latest = _Candidate(self.chosen, knobs, before, start_db, "")
        tried, done, device = [], 0, ""
        for number, iterations in enumerate(_ROUNDS):
            error = latest.features - model.read(latest.knobs)
            found = fit.descend(
                model,
                latest.knobs,
                bounds,
                self.trial.goal - error,
                self.counts,
                seed=self.chosen.seed + number,
                limits=fit.DescentLimits(iterations, seconds / len(_ROUNDS)),
                tick=partial(self._tell, 2 + 2 * number),
                caps=fit.Caps(measures.goal - error, measures.rows, measures.most_db),
            )
            done, device = done + found.iterations, found.device
            latest = self._tried(found.knobs, measures, self._frames_told(3 + 2 * number))
            tried.append(latest)
        return self._best(start, tried, measures, f"{done} iterations on {device}")

    def _tried(self, knobs: Knobs, measures: Measures, tick: Callable[[int], None]) -> _Candidate:
        candidate, knobs = with_knobs(self.chosen, knobs, self.trial.goal)
        features = self.trial.features(candidate, tick)
        away_db = distance_db(features, self.trial.goal, self.counts)
        return _Candidate(candidate, knobs, features, away_db, measures.grown(features))

    def _best(self, start: _Candidate, tried: Sequence[_Candidate], measures: Measures, how: str) -> tuple[Plan, str]:
        """The nearest that leaves nothing further away, else some of the nearest one's change, else the closed form."""
        nearer = [each for each in tried if each.distance_db < start.distance_db]
        if not nearer:
            nothing = f"{how} found nothing nearer than the closed form's {start.distance_db:.2f} dB."
            return self.chosen, f"Not refined: {nothing}"
        nearer.sort(key=lambda each: each.distance_db)
        for each in nearer:
            if not each.further:
                return self._explained(start, each, how)
        for share, called in _SHARES:
            part = self._tried(start.knobs.towards(nearer[0].knobs, share), measures, lambda frames: self.tick(1.0))
            if not part.further and part.distance_db < start.distance_db:
                kept = f"; {called} of the change was kept, because all of it would leave {nearer[0].further}"
                return self._explained(start, part, how, kept)
        nothing = (
            f"{how} came {start.distance_db - nearer[0].distance_db:.2f} dB nearer to what was asked for, but left"
        )
        return self.chosen, f"Not refined: {nothing} {nearer[0].further}, and so did half of the change."

    def _tell(self, number: int, part: float) -> None:
        """Tell how much of part `number` of `_ENDS` is done."""
        self.tick(_ENDS[number - 1] + (_ENDS[number] - _ENDS[number - 1]) * part)

    def _frames_told(self, number: int) -> Callable[[int], None]:
        """What tells how much of that part is done, a trial, from the frames that it reads."""
        read = 0

        def tick(frames: int) -> None:
            nonlocal read
            read += frames
            self._tell(number, min(1.0, read / (2 * self.trial.audio.frames)))

        return tick

    def _explained(self, start: _Candidate, found: _Candidate, how: str, kept: str = "") -> tuple[Plan, str]:
        """The plan with reasons for what the fit changed, and the remark."""
        distances = f"distance {start.distance_db:.2f} → {found.distance_db:.2f} dB"
        words = f"refined by gradient descent, {how}, {distances}{kept}"
        changed = (step for step in found.plan.steps if step != self.chosen.step(step.name))
        explained = [_with_reason(step, words, self.chosen.step(step.name)) for step in changed]
        return found.plan.with_steps(*explained), f"The plan was {words}."


def _with_reason(step: PlanStep, words: str, before: PlanStep | None) -> PlanStep:
    sentence = f"{words[0].upper()}{words[1:]}."
    return step.model_copy(update={"reason": f"{before.reason} {sentence}" if before else sentence})
