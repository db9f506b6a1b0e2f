"""How many answers an account may hold open: streams of events, and requests that wait for a change.

Each is a connection and a descriptor of this router for as long as its client likes, so that without a bound one
account could take them all. The numbers are of this process, like the connections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from router.core.errors import Problem


class Streams:
    """The open streams and waits by account, `allowed` of each."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._open: Counter[str] = Counter()

    def take(self, account: str) -> Callable[[], None]:
        """A place, given back by the first call of what is returned. Raises Problem(too_many_streams)."""
        if self._open[account] >= self._allowed:
            raise Problem(
                "too_many_streams",
                f"You have {self._allowed} event streams or waiting requests open, which is all that are allowed. "
                "Close one, or ask without waiting.",
                retry_after_s=5,
                allowed=self._allowed,
            )
        self._open[account] += 1
        held = {"place": True}

        def give_back() -> None:
            if held.pop("place", None):
                self._open[account] -= 1
                self._open += Counter()  # an account without a stream leaves no name behind

        return give_back

    @contextmanager
    def place(self, account: str) -> Iterator[None]:
        """A place for as long as the block lasts. Raises Problem(too_many_streams)."""
        give_back = self.take(account)
        try:
            yield
        finally:
            give_back()


class EventStream(StreamingResponse):
    """Server-sent events; `ended` is called when nothing more goes out, even where the client left before it began."""

    def __init__(self, events: AsyncIterator[str], ended: Callable[[], None]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()
