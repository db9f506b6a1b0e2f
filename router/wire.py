"""A request's body, read from its connection straight into the memory of whoever keeps it.

An ASGI server hands a body on in pieces; each is copied four times and announced by a message. For a song that is more
work than to encrypt it. So while its body comes, the connection is a `Wire`'s: a thread has the kernel write into the
store's own memory for as long as there is something, and seals and stores what is full before it reads on. The loop
hears of it when nothing is there at the moment, and waits for more.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from router.spool.port import Room
from router.threads import in_thread

_LOOK_S = 1.0
"""So often whoever keeps a slow body may look whether it is still wanted."""
_AT_ONCE_BYTES = 8 * 1024 * 1024
"""Of one body, before other work has a turn with the thread."""


_WORTH_A_TRIP_BYTES = 512 * 1024
"""Until so much is there, or a second is over, or all of it has come, nobody is woken."""


class Lost(Exception):
    """The connection ended before the body did."""


class Silent(Exception):
    """Nothing has come for too long."""


class Wire:
    """The next `left` bytes of a paused transport; `released` is told how many of them went by this way."""

    def __init__(self, transport: Any, left: int, released: Callable[[int], None]) -> None:
        # A descriptor of its own: the transport's may be closed, and its number be another's, while a thread reads.
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._socket.setblocking(False)
        self._left, self._taken = left, 0
        self._released = released
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._has_lost = False

    async def fill(self, room: Room, silence_s: float) -> bool:
        """Put what is there into `room`, or wait a second for it; whether more may come.

        Raises Lost, Silent, and what `room` raises.
        """
        before = self._left
        try:
            await in_thread(self._drain, room)
        finally:
            self._taken += before - self._left
        if self._left < before:
            self._heard_s = self._loop.time()
        elif self._left:
            if self._loop.time() - self._heard_s > silence_s:
                raise Silent
            await self._something(min(_LOOK_S, silence_s))
        return self._left > 0

    def lost(self) -> None:
        """The transport is closed, whoever closed it."""
        self._has_lost = True

    def release(self) -> None:
        """Give the connection back, however far the body has come."""
        self._wake_at(1)
        self._socket.close()
        self._released(self._taken)

    def _drain(self, room: Room) -> None:
        """In a thread: whatever is there."""
        enough = self._left - _AT_ONCE_BYTES
        while self._left > max(0, enough):
            if not room.free:
                room.empty()
            try:
                count = self._socket.recv_into(room.free[: self._left])
            except BlockingIOError:
                return
            except OSError:
                raise Lost from None
            if not count or self._has_lost:
                raise Lost
            self._left -= count
            room.add(count)

    async def _something(self, limit_s: float) -> None:
        """Come back when enough is there to be read, or the connection has ended, and at the latest after `limit_s`."""
        self._wake_at(min(self._left, _WORTH_A_TRIP_BYTES))
        ready = asyncio.Event()
        self._loop.add_reader(self._socket, ready.set)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await ready.wait()
        finally:
            self._loop.remove_reader(self._socket)

    def _wake_at(self, count: int) -> None:
        """The connection counts as readable from `count` bytes on."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
