"""How far along a song is: frames done in each stage, as one fraction of the whole trip that never goes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mastering.contract import Effort, Stage

Progress = Callable[[Stage, float], None]
Tick = Callable[[int], None]

_SHARES = {
    Stage.DECODE: 0.15,
    Stage.ANALYSE: 0.2,
    Stage.PLAN: 0.0,
    Stage.FIT: 0.0,
    Stage.RENDER: 0.3,
    Stage.ENCODE: 0.2,
    Stage.VERIFY: 0.15,
}

_FIT_SHARE = 0.7
"""Of the whole trip, where a plan is refined."""


def silent(stage: Stage, fraction: float) -> None:
    """Progress that nobody watches."""


class Halted(Exception):
    """Work beside others that is to stop, because one of them failed or the caller gave up."""


class Lane:
    """Counts one thread's share of the trip. What it counts is told by whoever owns it."""

    def __init__(self) -> None:
        self.stage = Stage.DECODE
        self.done = 0.0
        self.is_halted = False
        self._end = 0.0

    def begin(self, stage: Stage, frames: int, share: float = 1.0) -> Tick:
        """Start `share` of a stage that will report `frames` frames; returns what to call for each block."""
        start, width, seen = self._end, _SHARES[stage] * share, 0
        self.stage, self.done, self._end = stage, start, start + width
        self._moved()

        def tick(count: int) -> None:
            nonlocal seen
            seen += count
            part = min(1.0, seen / frames) if frames else 1.0
            self.done = max(self.done, start + part * width)
            self._moved()

        return tick

    def _moved(self) -> None:
        if self.is_halted:
            raise Halted


class Meter(Lane):
    """Counts the trip and tells it to `progress`, from the thread that called; what that raises ends the trip."""

    def __init__(self, progress: Progress, effort: Effort = Effort.QUICK) -> None:
        super().__init__()
        self._progress = progress
        self._fit_share = _FIT_SHARE if effort is Effort.FIT else 0.0
        self._fitted = 0.0

    def fitted(self, fraction: float) -> None:
        """The fit, which knows its own fraction, is so far."""
        self.stage, self._fitted = Stage.FIT, max(self._fitted, min(1.0, fraction))
        self._tell(self.stage, self.done)

    def watch(self, lanes: Sequence[Lane]) -> None:
        """Tell how far the lanes beside this one are, in all."""
        self._tell(max(lanes, key=lambda lane: lane.done).stage, self._end + sum(x.done for x in lanes))

    def end(self) -> None:
        self._progress(self.stage, 1.0)

    def _moved(self) -> None:
        self._tell(self.stage, self.done)

    def _tell(self, stage: Stage, done: float) -> None:
        self._progress(stage, min(1.0, done * (1 - self._fit_share) + self._fitted * self._fit_share))
