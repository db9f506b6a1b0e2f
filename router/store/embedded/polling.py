"""Waits for work in a store of this process: try, sleep until something has changed, try again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from router.core import clock

TRY_AGAIN_S = 0.5
"""Leases that run out and delays that end set no event, so it tries at least this often."""

T = TypeVar("T")


async def take_when_there(take: Callable[[], T | None], changed: asyncio.Event, wait_s: float) -> T | None:
    """What `take` returns as soon as that is not None; None when `wait_s` have passed. A change sets `changed`."""
    deadline_s = clock.now() + wait_s
    while True:
        changed.clear()
        if (taken := take()) is not None:
            return taken
        left_s = deadline_s - clock.now()
        if left_s <= 0:
            return None
        with suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, TRY_AGAIN_S)):  # wait_for of Python 3.11 can swallow a cancellation
                await changed.wait()
