"""How long a backend takes for a job, estimated from its earlier attempts by moving averages. Pure; no clock.

Each figure is an exponentially weighted mean (α = 0.2) and the mean absolute deviation around it, folded the same way.
A decision uses ``mean + 1.05 · deviation``: a backend that is fast on average but erratic must not look better than a
steady one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ALPHA = 0.2
"""Weight of the newest value: after five the first assumption counts for a third."""
SPREAD = 1.05
"""Deviations added to the mean for a decision."""
BYTES_PER_MIB = 1024 * 1024


class Ewma(NamedTuple):
    """An exponentially weighted moving average with its mean absolute deviation."""

    mean: float
    deviation: float = 0.0

    def fold(self, value: float) -> Ewma:
        """The average after one more value."""
        deviation = self.deviation + ALPHA * (abs(value - self.mean) - self.deviation)
        return Ewma(self.mean + ALPHA * (value - self.mean), deviation)

    @property
    def cautious(self) -> float:
        """Mean plus SPREAD deviations: what a decision reckons with."""
        return self.mean + SPREAD * self.deviation


class AttemptTiming(NamedTuple):
    """Seconds that the parts of one attempt took; None for a part that it did not get to."""

    upload_s: float | None = None
    render_s: float | None = None
    fetch_s: float | None = None


class SpeedEstimate(NamedTuple):
    """What one backend takes for each part of a job: upload, render, fetch, and waking up first."""

    upload_s_per_mib: Ewma
    work_s_per_minute: Mapping[str, Ewma]
    """Seconds per minute of audio, by kind and pace of work (`JobKind.work`)."""
    fetch_s: Ewma
    cold_start_s: Ewma

    def fold(self, timing: AttemptTiming, size_bytes: int, duration_s: float, work: str) -> SpeedEstimate:
        """The estimate after one more attempt, of such work on a song of that size and length."""
        changed: dict[str, Any] = {}
        if timing.upload_s is not None:
            changed["upload_s_per_mib"] = self.upload_s_per_mib.fold(
                timing.upload_s / max(size_bytes / BYTES_PER_MIB, 0.25)
            )
        if timing.render_s is not None:
            learned = self.work_s_per_minute[work].fold(timing.render_s / max(duration_s / 60, 0.05))
            changed["work_s_per_minute"] = {**self.work_s_per_minute, work: learned}
        if timing.fetch_s is not None:
            changed["fetch_s"] = self.fetch_s.fold(timing.fetch_s)
        return self._replace(**changed)

    def render_s(self, duration_s: float, work: str) -> float:
        return self.work_s_per_minute[work].cautious * duration_s / 60

    def service_s(self, size_bytes: int, duration_s: float, work: str) -> float:
        """From the first byte sent to the last byte fetched, on a backend that is awake and free."""
        upload_s = self.upload_s_per_mib.cautious * size_bytes / BYTES_PER_MIB
        return upload_s + self.render_s(duration_s, work) + self.fetch_s.cautious
