"""The one clock for lifetimes: CLOCK_BOOTTIME counts through suspend and ignores changes of the wall clock."""

from __future__ import annotations

import time

_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds since this machine booted; the same for every process, also after a restart of the router."""
    return time.clock_gettime(_ID)


def to_epoch_s(at_s: float) -> float:
    """`at_s` of this clock as seconds since the epoch by the wall clock: for showing to people, never for lifetimes."""
    return time.time() - now() + at_s
