"""Limits of a connection before its request is verified: the time and the size of each request's head.

uvicorn's own limit of concurrency counts connections, idle ones too: whoever only connects would shut the router out.
Here a connection without a whole request head is closed after `HEAD_S`, or sooner, the oldest first, where there are
more than `MAX_WITHOUT_HEAD`. Only a signed request keeps its connection (`signature_check` closes the others).
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""Seconds from connecting, or from a further request's first byte, to the end of the request's head."""
MAX_HEAD_BYTES = 32 * 1024
"""Of a head, or a chunk's header, that is not yet whole. h11, because httptools knows no limit."""
MAX_WITHOUT_HEAD = 256
"""Connections without a whole head at a time."""


class WorkerServerConnection(H11Protocol):
    """uvicorn's HTTP/1.1 by h11, with a deadline for each request's head."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_deadline()
        self._close_oldest_waiting()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._start_deadline()
        else:
            self._cancel_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    @property
    def head_due(self) -> float | None:
        """The second, by the loop's clock, at which the deadline falls; None where no head is awaited."""
        return self._deadline.when() if self._deadline else None

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self.give_up)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def give_up(self) -> None:
        """Close at once, without an answer."""
        self._cancel_deadline()
        self.transport.abort()

    def _close_oldest_waiting(self) -> None:
        waiting = [
            (due, id(one), one)
            for one in self.connections
            if isinstance(one, WorkerServerConnection) and (due := one.head_due) is not None
        ]
        if len(waiting) > MAX_WITHOUT_HEAD:
            min(waiting)[2].give_up()
