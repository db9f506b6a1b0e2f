"""A caller's connection before it has said who it is: how long it may take, and how much it may say.

uvicorn's own limit of concurrency counts connections, idle ones too: strangers who only connect would shut the router
out. Here a connection without a whole request head is closed after `HEAD_S`, or sooner, the oldest first, where there
are more than `MOST_WAITING`. Only a signed request keeps its connection (`signature_check` closes the others).
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
MOST_WAITING = 256
"""Connections that may owe a head at a time."""


class WorkerServerConnection(H11Protocol):
    """uvicorn's HTTP/1.1 by h11, with a deadline for each request's head."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def head_due(self) -> float | None:
        """The second, by the loop's clock, at which the deadline falls; None where no head is owed."""
        return self._deadline.when() if self._deadline else None

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self.give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def give_up(self) -> None:
        """Close at once: nobody is owed an answer."""
        self._stop_waiting()
        self.transport.abort()

    def _make_room(self) -> None:
        waiting = [
            (due, id(one), one)
            for one in self.connections
            if isinstance(one, WorkerServerConnection) and (due := one.head_due) is not None
        ]
        if len(waiting) > MOST_WAITING:
            min(waiting)[2].give_up()
