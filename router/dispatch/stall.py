"""Is a render that still sends signs of life getting anywhere? Pure; time is passed in.

A heartbeat says that a process runs, not that its work goes on. A render is stalled when no progress came for
max(30 s, 3 × the median gap between its progress so far, what the whole render was expected to take).
"""

from __future__ import annotations

from statistics import median

LEAST_S = 30.0
GAPS = 3.0


class StallDetector:
    def __init__(self, now_s: float, expected_s: float = 0.0) -> None:
        self._last_s = now_s
        self._gaps: list[float] = []
        self._least_s = max(LEAST_S, expected_s)
        self._furthest = -1.0

    def progressed(self, now_s: float, fraction: float) -> None:
        """The render says how far it is; only farther than before counts."""
        if fraction <= self._furthest:
            return
        self._gaps.append(now_s - self._last_s)
        self._last_s, self._furthest = now_s, fraction

    def allowed_s(self) -> float:
        return max(self._least_s, GAPS * median(self._gaps) if self._gaps else 0.0)

    def is_stalled(self, now_s: float) -> bool:
        return now_s - self._last_s > self.allowed_s()
