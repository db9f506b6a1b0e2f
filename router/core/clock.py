"""The clocks for lifetimes: CLOCK_BOOTTIME counts through suspend and ignores changes of the wall clock.

`now` is this machine's. The times in jobs' records and sessions are the service's (`Clock`): with one router the same,
with several a clock that they share. Leases, keys and connections stay with this machine's.
"""

from __future__ import annotations

import time
from typing import Protocol

_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """The time of the service, in seconds since some moment."""

    def now(self) -> float: ...

    def to_epoch_s(self, at_s: float) -> float:
        """`at_s` of this clock as seconds since the epoch: for showing to people, never for lifetimes."""
        ...


def now() -> float:
    """Seconds since this machine booted; the same for every process, also after a restart of the router."""
    return time.clock_gettime(_ID)


def to_epoch_s(at_s: float) -> float:
    """`at_s` of this machine's clock as seconds since the epoch by the wall clock: for showing, never for lifetimes."""
    return time.time() - now() + at_s


class MachineClock:
    """This machine's clock as the service's: for a router that is the only one."""

    def now(self) -> float:
        return now()

    def to_epoch_s(self, at_s: float) -> float:
        return to_epoch_s(at_s)
