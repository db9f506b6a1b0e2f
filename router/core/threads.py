"""Work in threads, of which the loop hears only when somebody waits for it: to be woken takes it as long as to seal a
record, and most of the time the work is done when it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
AT_ONCE_BYTES = 8 * 1024 * 1024
"""Of one body, before other work has a turn with the thread, and whoever keeps it may look whether it is wanted."""
_THREADS = ThreadPoolExecutor(32, thread_name_prefix="router")
"""Made as they are needed. Many, since some may wait for a child that listens slowly while others seal and write."""


def begun(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """`call`, begun in a thread."""
    return _THREADS.submit(call, *args, **kwargs)


async def outcome(running: Future[T]) -> T:
    """What it returns or raises. It goes on when this wait is cancelled."""
    if not running.done():
        await asyncio.shield(asyncio.wrap_future(running))
    return running.result()


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `call` in a thread and, even when cancelled, come back only when it has ended: it uses an open file."""
    running = begun(call, *args, **kwargs)
    try:
        return await outcome(running)
    except asyncio.CancelledError:
        await settled(running)
        raise


async def settled(running: Future[T] | None) -> None:
    """Come back when it has ended, whoever cancels the wait, and however it ended."""
    while running is not None and not running.done():
        ending = asyncio.wrap_future(running)
        with suppress(asyncio.CancelledError):
            await asyncio.wait([ending])
        if ending.done() and not ending.cancelled():
            ending.exception()  # seen
