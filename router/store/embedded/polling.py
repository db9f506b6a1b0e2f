"""How a store in this process waits for work: looks, sleeps until something is new, looks again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from router.core import clock

LOOK_AGAIN_S = 0.5
"""Leases that run out and delays that end raise no flag, so look at least this often."""

T = TypeVar("T")


async def first(take: Callable[[], T | None], news: asyncio.Event, wait_s: float) -> T | None:
    """What `take` gives, as soon as it gives something; None when nothing came within `wait_s`."""
    deadline_s = clock.now() + wait_s
    while True:
        news.clear()
        if (taken := take()) is not None:
            return taken
        left_s = deadline_s - clock.now()
        if left_s <= 0:
            return None
        with suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, LOOK_AGAIN_S)):  # wait_for of Python 3.11 can swallow a cancellation
                await news.wait()
