"""`asyncio.timeout` for the many short waits of one task: a timer for each would cost more than what is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Patience:
    """Of the task that makes it. One timer, which looks when it is due how long the present wait lasts already."""

    def __init__(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._ends_s: float | None = None
        """Of the present wait."""
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._is_over = False

    async def wait(self, wanted: Awaitable[T], limit_s: float) -> T:
        """What `wanted` gives. Raises TimeoutError after `limit_s` seconds, and what `wanted` raises."""
        assert self._task is not None  # noqa: S101 — a task made it
        cancelled = self._task.cancelling()
        self._ends_s = self._loop.time() + limit_s
        if self._timer is None or self._due_s > self._ends_s:
            self._set(self._ends_s)
        try:
            return await wanted
        except asyncio.CancelledError:
            if self._is_taken_back() and self._task.cancelling() <= cancelled:
                raise TimeoutError from None
            raise
        finally:
            self._ends_s = None
            self._is_taken_back()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _is_taken_back(self) -> bool:
        """Whether the task was cancelled for this wait's end; it is not any more, whatever came of that."""
        was_over, self._is_over = self._is_over, False
        if was_over and self._task is not None:
            self._task.uncancel()
        return was_over

    def _set(self, due_s: float) -> None:
        self.close()
        self._due_s, self._timer = due_s, self._loop.call_at(due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._ends_s is None:  # nobody waits
            return
        if self._ends_s > self._loop.time():
            self._set(self._ends_s)
        elif self._task is not None:
            self._is_over = True
            self._task.cancel()
