"""Decides whether a render that still sends heartbeats makes progress. Pure; time is passed in.

A heartbeat says that a process runs, not that its work goes on. A render is stalled when no progress came for
max(30 s, 3 × the median gap between its progress so far, what the whole render was expected to take).
"""

from __future__ import annotations

from statistics import median

MIN_STALL_S = 30.0
"""No render counts as stalled sooner, however small its gaps were: a busy machine may pause it for seconds."""
GAP_FACTOR = 3.0
"""How many of its usual gaps a render may be without progress."""


class StallDetector:
    """Of one render that begins at `now_s` and should take `expected_s`."""

    def __init__(self, now_s: float, expected_s: float = 0.0) -> None:
        self._last_s = now_s
        self._gaps_s: list[float] = []
        self._min_s = max(MIN_STALL_S, expected_s)
        self._furthest = -1.0

    def progressed(self, now_s: float, fraction: float) -> None:
        """Note how far the render is; only farther than before counts."""
        if fraction <= self._furthest:
            return
        self._gaps_s.append(now_s - self._last_s)
        self._last_s, self._furthest = now_s, fraction

    def allowed_s(self) -> float:
        """How long it may make no progress."""
        return max(self._min_s, GAP_FACTOR * median(self._gaps_s) if self._gaps_s else 0.0)

    def is_stalled(self, now_s: float) -> bool:
        return now_s - self._last_s > self.allowed_s()
