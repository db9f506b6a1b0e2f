"""Limits how many responses an account may hold open: event streams and requests that wait for a change, and downloads.

Each is a connection and file descriptors of this router for as long as its client likes, so that without a limit one
account could take them all. The counts are of this process, like the connections.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from router.core.errors import Problem
from router.http.connection import BODY_EXTENSION, HALF_CLOSED_KEY
from router.http.negotiation import EVENT_STREAM

_ASK_AFTER_S = 1.0
"""From a caller's end of its side until it is asked whether it still reads."""


class OpenResponses:
    """Counts the open responses of each account, up to `allowed`; one more is a problem of `code`."""

    def __init__(self, allowed: int, code: str, detail: str) -> None:
        self._allowed, self._code, self._detail = allowed, code, detail
        self._open: Counter[str] = Counter()

    def take(self, account: str) -> Callable[[], None]:
        """Count one more for the account; the first call of what is returned counts it down again. Raises Problem."""
        if self._open[account] >= self._allowed:
            detail = self._detail.format(allowed=self._allowed)
            raise Problem(self._code, detail, retry_after_s=5, allowed=self._allowed)
        self._open[account] += 1
        is_open = True

        def release() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self._open[account] -= 1
                self._open += Counter()  # an account without an open response leaves no name behind

        return release

    @contextmanager
    def held(self, account: str) -> Iterator[None]:
        """Count one more for the length of the block. Raises Problem."""
        give_back = self.take(account)
        try:
            yield
        finally:
            give_back()


class Streams(OpenResponses):
    """Event streams and requests that wait: the problem is `too_many_streams`."""

    def __init__(self, allowed: int) -> None:
        super().__init__(
            allowed,
            "too_many_streams",
            "You have {allowed} event streams or waiting requests open, which is all that are allowed. "
            "Close one, or ask without waiting.",
        )


class Downloads(OpenResponses):
    """Downloads, apart from the streams: who only waits can't keep an own master away. The problem is
    `too_many_downloads`."""

    def __init__(self, allowed: int) -> None:
        super().__init__(
            allowed,
            "too_many_downloads",
            "You have {allowed} downloads open, which is all that are allowed at once. Wait for one to end.",
        )


def nothing_counted() -> None:
    """In place of what counts down, for a response that was not counted."""


class CountedResponse(StreamingResponse):
    """A response that was counted. `ended` is called when nothing more is sent, also where the client left before the
    first byte."""

    def __init__(
        self,
        content: AsyncIterator[str] | AsyncIterator[bytes],
        status_code: int,
        headers: Mapping[str, str],
        media_type: str,
        ended: Callable[[], None],
    ) -> None:
        super().__init__(content, status_code, headers, media_type)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


class EventStream(CountedResponse):
    """Server-sent events."""

    def __init__(self, events: AsyncIterator[str], ended: Callable[[], None]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(events, 200, headers, EVENT_STREAM, ended)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extension = scope.get("extensions", {}).get(BODY_EXTENSION, {})
        self._half_closed = extension.get(HALF_CLOSED_KEY, asyncio.Event())
        await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        asking = asyncio.create_task(_comment_after(self._half_closed, send))
        try:
            await super().stream_response(send)
        finally:
            asking.cancel()


async def _comment_after(half_closed: asyncio.Event, send: Send) -> None:
    """Send a comment soon after the caller has ended its side: one that is gone altogether answers with a reset, and
    gives its place back before the next heartbeat."""
    await half_closed.wait()
    await asyncio.sleep(_ASK_AFTER_S)
    await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
