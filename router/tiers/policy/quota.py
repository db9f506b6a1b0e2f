"""Counts a backend's quota in seconds of its device: used, held for running attempts, and when a new period begins.

Pure: time is passed in. What the provider reports ("quota exceeded, try again in …", "so many seconds are left")
overrules the count: it includes what others used under the same name.
"""

from __future__ import annotations

from typing import NamedTuple

HEADROOM = 1.2
"""A job is sent only where this many times what it needs is left: the provider checks what is asked for, not used."""


class QuotaHold(NamedTuple):
    """Seconds set aside for one attempt, and the quota's period in which they were."""

    need_s: float
    period: int


class Quota:
    """Of one backend: `hold` for each attempt that begins, `settle` when it ends."""

    def __init__(self, limit_s: float | None = None, period_s: float = 86_400.0, start_s: float = 0.0) -> None:
        """`limit_s` seconds of the device per `period_s`; None: no limit."""
        self.limit_s, self.period_s = limit_s, period_s
        self._start_s = start_s
        self._period = 0
        self._spent_s = 0.0
        self._held_s = 0.0
        self._out_until_s: float | None = None
        self._reported_left_s: float | None = None
        self._reported_until_s = 0.0

    def left_s(self, now_s: float) -> float | None:
        """Seconds that can still be held; None: no limit."""
        self._advance(now_s)
        if self._out_until_s is not None:
            return 0.0
        counted = None if self.limit_s is None else self.limit_s - self._spent_s - self._held_s
        reported = None if self._reported_left_s is None else self._reported_left_s - self._held_s
        known = [left for left in (counted, reported) if left is not None]
        return max(0.0, min(known)) if known else None

    def out_until_s(self, now_s: float) -> float | None:
        """Until when no attempt can begin, if the quota is used up; else None."""
        self._advance(now_s)
        if self._out_until_s is not None:
            return self._out_until_s
        if self.limit_s is not None and self._spent_s >= self.limit_s:
            return self._next_period_s()
        if self._reported_left_s is not None and self._reported_left_s <= 0:
            return self._reported_until_s
        return None

    def hold(self, need_s: float, now_s: float) -> QuotaHold:
        """Set aside what an attempt needs; `settle` the hold when the attempt ends."""
        self._advance(now_s)
        self._held_s += need_s
        return QuotaHold(need_s, self._period)

    def settle(self, hold: QuotaHold, used_s: float, now_s: float) -> None:
        """The attempt used `used_s`. What was held in a period that is over no longer counts in this one."""
        self._advance(now_s)
        if hold.period == self._period:
            self._held_s = max(0.0, self._held_s - hold.need_s)
        self._spent_s += used_s
        if self._reported_left_s is not None:
            self._reported_left_s -= used_s

    def note_left(self, left_s: float, resets_in_s: float | None, now_s: float) -> None:
        """The provider reports what is left, and when its period ends."""
        self._advance(now_s)
        self._reported_left_s = left_s
        self._reported_until_s = now_s + (self.period_s if resets_in_s is None else max(0.0, resets_in_s))

    def note_exhausted(self, now_s: float, retry_after_s: float | None = None) -> None:
        """The provider reports that nothing is left, until `retry_after_s` from now or the next period."""
        self._advance(now_s)
        self._out_until_s = now_s + retry_after_s if retry_after_s is not None else self._next_period_s()

    def _advance(self, now_s: float) -> None:
        """Forget what time has made void: an exhaustion, a report, a period's use."""
        if self._out_until_s is not None and now_s >= self._out_until_s:
            self._out_until_s = None
            self._spent_s = 0.0
        if self._reported_left_s is not None and now_s >= self._reported_until_s:
            self._reported_left_s = None
        period = int((now_s - self._start_s) // self.period_s)
        if period != self._period:
            self._period, self._spent_s, self._held_s = period, 0.0, 0.0

    def _next_period_s(self) -> float:
        return self._start_s + (self._period + 1) * self.period_s
