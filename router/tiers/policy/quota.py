"""What is left of a backend's quota in seconds of its device: spent, promised to running jobs, and when it starts anew.

Pure: time is passed in. A provider's own word ("quota exceeded, try again in …", "so many seconds are left") overrules
the count: it also knows of what others spent under the same name.
"""

from __future__ import annotations

from typing import NamedTuple

HEADROOM = 1.2
"""A job is sent only where this many times what it needs is left: the provider checks what is asked for, not used."""


class QuotaHold(NamedTuple):
    """What is set aside for one attempt."""

    need_s: float
    period: int


class Quota:
    def __init__(self, limit_s: float | None = None, period_s: float = 86_400.0, start_s: float = 0.0) -> None:
        """`limit_s` seconds of the device per `period_s`; None: no limit."""
        self.limit_s, self.period_s = limit_s, period_s
        self._start_s = start_s
        self._period = 0
        self._spent_s = 0.0
        self._promised_s = 0.0
        self._out_until_s: float | None = None
        self._told_left_s: float | None = None
        self._told_until_s = 0.0

    def left_s(self, now_s: float) -> float | None:
        """Seconds that can still be promised; None: as many as wanted."""
        self._turn(now_s)
        if self._out_until_s is not None:
            return 0.0
        counted = None if self.limit_s is None else self.limit_s - self._spent_s - self._promised_s
        told = None if self._told_left_s is None else self._told_left_s - self._promised_s
        known = [left for left in (counted, told) if left is not None]
        return max(0.0, min(known)) if known else None

    def out_until_s(self, now_s: float) -> float | None:
        """When it is worth asking again, if the quota is out; else None."""
        self._turn(now_s)
        if self._out_until_s is not None:
            return self._out_until_s
        if self.limit_s is not None and self._spent_s >= self.limit_s:
            return self._next_turn_s()
        if self._told_left_s is not None and self._told_left_s <= 0:
            return self._told_until_s
        return None

    def promise(self, need_s: float, now_s: float) -> QuotaHold:
        """Set aside what an attempt needs; every promise is settled when the attempt ends."""
        self._turn(now_s)
        self._promised_s += need_s
        return QuotaHold(need_s, self._period)

    def settle(self, promise: QuotaHold, used_s: float, now_s: float) -> None:
        """The attempt used `used_s`. What was promised in a period that is over no longer weighs on this one."""
        self._turn(now_s)
        if promise.period == self._period:
            self._promised_s = max(0.0, self._promised_s - promise.need_s)
        self._spent_s += used_s
        if self._told_left_s is not None:
            self._told_left_s -= used_s

    def told(self, left_s: float, resets_in_s: float | None, now_s: float) -> None:
        """The provider says what is left, and for how long that holds."""
        self._turn(now_s)
        self._told_left_s = left_s
        self._told_until_s = now_s + (self.period_s if resets_in_s is None else max(0.0, resets_in_s))

    def exhausted(self, now_s: float, retry_after_s: float | None = None) -> None:
        """The provider says that nothing is left, until `retry_after_s` from now or the next period."""
        self._turn(now_s)
        self._out_until_s = now_s + retry_after_s if retry_after_s is not None else self._next_turn_s()

    def _turn(self, now_s: float) -> None:
        if self._out_until_s is not None and now_s >= self._out_until_s:
            self._out_until_s = None
            self._spent_s = 0.0
        if self._told_left_s is not None and now_s >= self._told_until_s:
            self._told_left_s = None
        period = int((now_s - self._start_s) // self.period_s)
        if period != self._period:
            self._period, self._spent_s, self._promised_s = period, 0.0, 0.0

    def _next_turn_s(self) -> float:
        return self._start_s + (self._period + 1) * self.period_s
