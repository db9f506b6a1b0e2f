"""Limits how many answers an account may hold open: event streams, and requests that wait for a change.

Each is a connection and a file descriptor of this router for as long as its client likes, so that without a limit one
account could take them all. The counts are of this process, like the connections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from router.core.errors import Problem


class Streams:
    """Counts the open streams and waits of each account, up to `allowed`."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._open: Counter[str] = Counter()

    def take(self, account: str) -> Callable[[], None]:
        """Count one more for the account; the first call of what is returned counts it down again.

        Raises Problem(too_many_streams).
        """
        if self._open[account] >= self._allowed:
            raise Problem(
                "too_many_streams",
                f"You have {self._allowed} event streams or waiting requests open, which is all that are allowed. "
                "Close one, or ask without waiting.",
                retry_after_s=5,
                allowed=self._allowed,
            )
        self._open[account] += 1
        is_open = True

        def release() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self._open[account] -= 1
                self._open += Counter()  # an account without a stream leaves no name behind

        return release

    @contextmanager
    def held(self, account: str) -> Iterator[None]:
        """Count one more for the length of the block. Raises Problem(too_many_streams)."""
        give_back = self.take(account)
        try:
            yield
        finally:
            give_back()


class EventStream(StreamingResponse):
    """Server-sent events. `ended` is called when nothing more is sent, also where the client left before the first."""

    def __init__(self, events: AsyncIterator[str], ended: Callable[[], None]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()
