"""The progress of a song: frames done in each stage, as one fraction of the whole job that never falls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mastering.contract import Effort, Stage

ProgressCallback = Callable[[Stage, float], None]
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
"""Of the whole job without a fit, about as they take their time."""

_FIT_SHARE = 0.7
"""Of the whole job, where a plan is refined."""


def silent(stage: Stage, fraction: float) -> None:
    """A progress callback that does nothing."""


class Halted(Exception):
    """Raised in a thread that is to stop, because another one failed or the caller gave up."""


class Lane:
    """Counts one thread's share of the job. It reports nothing itself: a `Meter` reads it."""

    def __init__(self) -> None:
        self.stage = Stage.DECODE
        self.done = 0.0
        self.is_halted = False
        self._end = 0.0

    def begin(self, stage: Stage, frames: int, share: float = 1.0) -> Tick:
        """Start `share` of a stage that will report `frames` frames; returns what to call for each block."""
        start, width, seen = self._end, _SHARES[stage] * share, 0
        self.stage, self.done, self._end = stage, start, start + width
        self._advanced()

        def tick(count: int) -> None:
            nonlocal seen
            seen += count
            part = min(1.0, seen / frames) if frames else 1.0
            self.done = max(self.done, start + part * width)
            self._advanced()

        return tick

    def _advanced(self) -> None:
        if self.is_halted:
            raise Halted


class Meter(Lane):
    """Counts the job and reports to `progress`, in the thread that called; what that raises ends the job."""

    def __init__(self, progress: ProgressCallback, effort: Effort = Effort.QUICK) -> None:
        super().__init__()
        self._progress = progress
        self._fit_share = _FIT_SHARE if effort is Effort.FIT else 0.0
        self._fitted = 0.0

    def fitted(self, fraction: float) -> None:
        """Report the fraction of the fit that is done."""
        self.stage, self._fitted = Stage.FIT, max(self._fitted, min(1.0, fraction))
        self._report(self.stage, self.done)

    def watch(self, lanes: Sequence[Lane]) -> None:
        """Report how far the lanes of other threads are, in all."""
        self._report(max(lanes, key=lambda lane: lane.done).stage, self._end + sum(x.done for x in lanes))

    def end(self) -> None:
        self._progress(self.stage, 1.0)

    def _advanced(self) -> None:
        self._report(self.stage, self.done)

    def _report(self, stage: Stage, done: float) -> None:
        self._progress(stage, min(1.0, done * (1 - self._fit_share) + self._fitted * self._fit_share))
