"""Blocking work in threads: two pools of fixed size, and waits that come back only when the thread is done.

The event loop is woken only when somebody awaits a result that is not there yet: to wake it takes as long as to seal a
record, and most of the time the work is done when it is asked for.

A pool makes its threads as they are needed. `app.startup` gives each its size before the first use; a test or a
benchmark that starts no application works with the default size.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
MAX_TURN_BYTES = 8 * 1024 * 1024
"""Of one body, in one piece of work: then other work has a turn with the thread, and the caller may look whether the
body is still wanted."""


class ThreadPool:
    """Threads for one kind of blocking work. Its methods may be called from any thread."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.unfinished = 0
        """Calls that were submitted and have not ended: those beyond `threads` wait for one."""
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def resize(self, threads: int) -> None:
        """From the next call on at most `threads` threads; calls that were submitted before end in their own."""
        with self._lock:
            if threads != self.threads and self._executor is not None:
                self._executor.shutdown(wait=False)
                self._executor = None
            self.threads = threads

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start `call` as soon as a thread is free."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix=self.name)
            running = self._executor.submit(call, *args, **kwargs)
            self.unfinished += 1
        running.add_done_callback(self._count_end)
        return running

    def _count_end(self, _: Future[T]) -> None:
        with self._lock:
            self.unfinished -= 1


BODY_POOL = ThreadPool("body", 32)
"""For bodies on their way in and out: receive, seal, write, read, send. Many threads, since some may wait for a probe
process that reads slowly while others seal and write."""
WORKER_POOL = ThreadPool("worker", 1024)
"""For connections to workers: one thread waits for each answer, and a render may take minutes."""
POOLS = (BODY_POOL, WORKER_POOL)


def start_in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Start `call` in a thread of `BODY_POOL`."""
    return BODY_POOL.submit(call, *args, **kwargs)


async def result_of(running: Future[T]) -> T:
    """What the call returns or raises. The call goes on when this wait is cancelled."""
    if not running.done():
        ending = asyncio.wrap_future(running)
        ending.add_done_callback(_retrieve)
        await asyncio.shield(ending)
    return running.result()


async def run_in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `call` in a thread and, even when cancelled, return only when it has ended: it uses an open file."""
    running = start_in_thread(call, *args, **kwargs)
    try:
        return await result_of(running)
    except asyncio.CancelledError:
        await wait_until_ended(running)
        raise


async def wait_until_ended(running: Future[T] | None) -> None:
    """Return when the call has ended, whoever cancels this wait, and whatever the call raised."""
    while running is not None and not running.done():
        ending = asyncio.wrap_future(running)
        ending.add_done_callback(_retrieve)
        with suppress(asyncio.CancelledError):
            await asyncio.wait([ending])


def _retrieve(ending: asyncio.Future[T]) -> None:
    """Look at what the call raised: asyncio logs as lost what nobody looked at, and whoever waited may be gone."""
    if not ending.cancelled():
        ending.exception()
