"""Change notifications inside one process, by an asyncio event for each subscriber."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ChangeFlag:
    """One subscriber's flag: any number of changes between two waits is one notification."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):  # wait_for of Python 3.11 can swallow a cancellation
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class LocalEvents:
    """The subscribers of each job. Nothing is kept for a job that nobody subscribes to."""

    def __init__(self) -> None:
        self._flags: defaultdict[str, set[ChangeFlag]] = defaultdict(set)
        self.is_closing = False

    def close(self) -> None:
        """Set `is_closing` and wake all, so that connections that only wait do not keep the process from ending."""
        self.is_closing = True
        for flags in self._flags.values():
            for flag in flags:
                flag.set()

    async def publish(self, job_id: str) -> None:
        for flag in self._flags.get(job_id, ()):
            flag.set()

    @asynccontextmanager
    async def subscribe(self, job_id: str) -> AsyncIterator[ChangeFlag]:
        flag = ChangeFlag()
        self._flags[job_id].add(flag)
        try:
            yield flag
        finally:
            self._flags[job_id].discard(flag)
            if not self._flags[job_id]:
                del self._flags[job_id]
