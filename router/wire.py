"""A request's body, read from its connection straight into the memory of whoever keeps it.

An ASGI server hands a body on in pieces; each is copied four times and announced by a message. For a song that is more
work than to encrypt it. So while its body comes, the connection's transport speaks to a `Wire`: the kernel writes into
the store's own memory, and the loop wakes somebody once for each record that is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from router.spool.port import Room

_LOOK_S = 1.0
"""So often whoever keeps a slow body may look whether it is still wanted."""


class Lost(Exception):
    """The connection ended before the body did."""


class Silent(Exception):
    """Nothing has come for too long."""


class Wire(asyncio.BufferedProtocol):
    """The next `left` bytes of a paused transport, which afterwards is `owner`'s again.

    What is no body goes to `owner`, the protocol that it stands in for. `released` is told how many bytes went by.
    """

    def __init__(self, transport: Any, owner: asyncio.Protocol, left: int, released: Callable[[int], None]) -> None:
        self._transport, self._owner, self._released = transport, owner, released
        self._left, self._taken = left, 0
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._room: Room | None = None
        self._full: asyncio.Future[None] | None = None
        self._problem: Exception | None = None
        transport.set_protocol(self)

    async def fill(self, room: Room, silence_s: float) -> bool:
        """Put what comes into `room` until that is full, the body ends or a second has passed; whether more may come.

        Raises Lost, Silent, and what `room` raises.
        """
        if self._problem is None and self._left and room.free:
            self._room, self._full = room, self._loop.create_future()
            look = self._loop.call_later(min(_LOOK_S, silence_s), self._stop)
            self._transport.resume_reading()
            try:
                await self._full
            finally:
                look.cancel()
                self._stop()
        if self._problem is not None:
            raise self._problem
        if self._left and self._loop.time() - self._heard_s > silence_s:
            raise Silent
        return self._left > 0

    def release(self) -> None:
        """Give the transport back, paused, however far the body has come."""
        self._transport.set_protocol(self._owner)
        self._released(self._taken)

    def get_buffer(self, sizehint: int) -> memoryview:
        assert self._room is not None  # noqa: S101 — nothing is read while nobody fills
        return self._room.free[: self._left]

    def buffer_updated(self, nbytes: int) -> None:
        assert self._room is not None  # noqa: S101 — as above
        self._left -= nbytes
        self._taken += nbytes
        self._heard_s = self._loop.time()
        try:
            self._room.add(nbytes)
        except Exception as error:
            self._problem = error
        if self._problem is not None or not self._left or not self._room.free:
            self._stop()

    def _stop(self) -> None:
        """At once: the next bytes would find no room."""
        self._transport.pause_reading()
        self._room = None
        if self._full is not None and not self._full.done():
            self._full.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._problem = self._problem or Lost()
        self._stop()
        self._owner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return self._owner.eof_received()

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()
