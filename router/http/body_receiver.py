"""A request's body, read from its connection straight into the memory of whoever keeps it.

An ASGI server hands a body on in pieces; each is copied four times and announced by a message. For a song that is more
work than to encrypt it. So while its body comes, the connection is a `Wire`'s: a thread has the kernel write into the
store's own memory for as long as there is something, and seals and stores what is full before it reads on. The loop
hears of it when nothing is there at the moment, and waits for more.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from router.core.buffers import WriteBuffer
from router.core.threads import MAX_TURN_BYTES, run_in_thread

CHECK_EVERY_S = 1.0
"""So often whoever keeps or sends a slow body may look whether it is still wanted."""
_WAKE_BYTES = 512 * 1024
"""Until so much is there, or a second is over, or all of it has come, nobody is woken."""


class ConnectionLost(Exception):
    """The connection ended before the body did."""


class BodyTimeout(Exception):
    """Nothing has come for too long."""


def duplicated_socket(transport: Any) -> socket.socket:
    """A transport's socket by a descriptor of its own, which does not block: the transport's may be closed, and its
    number be another's, while a thread uses this one. Raises OSError where there is none."""
    its = transport.get_extra_info("socket")
    found = socket.fromfd(its.fileno(), its.family, its.type)
    found.setblocking(False)
    return found


class BodyReceiver:
    """The next `left` bytes of a transport, to be paused; `released` is told how many of them went by this way.

    Raises OSError where there is no descriptor for it.
    """

    def __init__(self, transport: Any, left: int, released: Callable[[int], None]) -> None:
        self._socket = duplicated_socket(transport)
        self._left, self._taken = left, 0
        self._released = released
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._is_dry = False
        """Nothing was there a moment ago."""

    async def fill(self, room: WriteBuffer, silence_s: float) -> bool:
        """Put what is there into `room`, or wait a second for it; whether more may come.

        Raises Lost, Silent, and what `room` raises.
        """
        before = self._left
        try:
            patience_s = self._heard_s + silence_s - self._loop.time()
            if self._is_dry and not await self._is_worth_a_trip(min(CHECK_EVERY_S, max(0.0, patience_s))) and room.free:
                self._read(room)
            else:
                await run_in_thread(self._drain, room)
        finally:
            self._taken += before - self._left
        if self._left < before:
            self._heard_s = self._loop.time()
        elif self._left and self._loop.time() - self._heard_s >= silence_s:
            raise BodyTimeout
        return self._left > 0

    def lost(self) -> None:
        """The transport is closed, whoever closed it: nobody waits for more."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Give the connection back, however far the body has come."""
        try:
            with suppress(OSError):
                self._wake_at(1)
            self._socket.close()
        finally:
            self._released(self._taken)

    def _drain(self, room: WriteBuffer) -> None:
        """In a thread: whatever is there, up to a limit."""
        enough = max(0, self._left - MAX_TURN_BYTES)
        while self._left > enough:
            if not room.free:
                room.empty()
            self._read(room)
            if self._is_dry:
                return

    def _read(self, room: WriteBuffer) -> None:
        """Once, into what is free. Raises Lost, and what `room` raises."""
        self._is_dry = False
        try:
            count = self._socket.recv_into(room.free[: self._left])
        except BlockingIOError:
            self._is_dry = True
            return
        except OSError:
            raise ConnectionLost from None
        if not count:
            raise ConnectionLost
        self._left -= count
        room.add(count)

    async def _is_worth_a_trip(self, limit_s: float) -> bool:
        """Whether, within `limit_s`, enough came for a thread, or all that is left, or the connection's end."""
        self._wake_at(min(self._left, _WAKE_BYTES))
        ready = asyncio.Event()
        self._loop.add_reader(self._socket, ready.set)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await ready.wait()
        finally:
            self._loop.remove_reader(self._socket)
        return ready.is_set()

    def _wake_at(self, count: int) -> None:
        """The connection counts as readable from `count` bytes on."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
