"""Hints inside one process: who waits for a job hears that it changed, and reads it again."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Hint:
    """One listener's flag; many changes before a look are one hint."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def raise_(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):  # wait_for of Python 3.11 can swallow a cancellation
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Hints:
    def __init__(self) -> None:
        self._listeners: defaultdict[str, set[Hint]] = defaultdict(set)
        self.is_closing = False

    def close(self) -> None:
        """The process is about to end: wake whoever waits, so that a connection that only waits does not hold it."""
        self.is_closing = True
        for hints in self._listeners.values():
            for hint in hints:
                hint.raise_()

    async def tell(self, job_id: str) -> None:
        for hint in self._listeners.get(job_id, ()):
            hint.raise_()

    @asynccontextmanager
    async def listen(self, job_id: str) -> AsyncIterator[Hint]:
        hint = Hint()
        self._listeners[job_id].add(hint)
        try:
            yield hint
        finally:
            self._listeners[job_id].discard(hint)
            if not self._listeners[job_id]:
                del self._listeners[job_id]
