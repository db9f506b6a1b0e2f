"""Receives a request's body from the connection's socket straight into the memory of the store.

An ASGI server hands a body on in pieces; each is copied four times and announced by a message. For a song that is more
work than to encrypt it. So while its body comes, a `BodyReceiver` has the connection: a thread has the kernel write
into the store's own memory for as long as there is something, and encrypts and stores what is full before it reads on.
The event loop waits for more when nothing is there at the moment.
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
"""So often the sender or receiver of a slow body may look whether it is still wanted."""
_WAKE_BYTES = 512 * 1024
"""Until so much is there, or a second is over, or all of it has come, the loop is not woken."""


class ConnectionLost(Exception):
    """The connection ended before the body did."""


class BodyTimeout(Exception):
    """Nothing has come for longer than an upload may be silent."""


def duplicated_socket(transport: Any) -> socket.socket:
    """A transport's socket by a descriptor of its own, which does not block: the transport's may be closed, and its
    number be another's, while a thread uses this one. Raises OSError where there is none."""
    its = transport.get_extra_info("socket")
    found = socket.fromfd(its.fileno(), its.family, its.type)
    found.setblocking(False)
    return found


class BodyReceiver:
    """The next `left_bytes` bytes of a transport whose reading is paused; a `BodySource`.

    `on_release` is told how many of them were received. Raises OSError where no descriptor is to be had.
    """

    def __init__(self, transport: Any, left_bytes: int, on_release: Callable[[int], None]) -> None:
        self._socket = duplicated_socket(transport)
        self._left_bytes, self._received_bytes = left_bytes, 0
        self._on_release = on_release
        self._loop = asyncio.get_running_loop()
        self._last_byte_s = self._loop.time()
        self._is_dry = False
        """Nothing was there a moment ago."""

    async def fill(self, buffer: WriteBuffer, silence_s: float) -> bool:
        """Put what is there into `buffer`, or wait a second for it; whether more is to come.

        `silence_s`: how long nothing may come. Raises ConnectionLost, BodyTimeout, and what `buffer` raises.
        """
        before = self._left_bytes
        try:
            patience_s = self._last_byte_s + silence_s - self._loop.time()
            wait_s = min(CHECK_EVERY_S, max(0.0, patience_s))
            # What little came in the end of a wait is read here: to wake a thread for it would take longer.
            if self._is_dry and not await self._is_worth_a_thread(wait_s) and buffer.free_view:
                self._receive(buffer)
            else:
                await run_in_thread(self._receive_all, buffer)
        finally:
            self._received_bytes += before - self._left_bytes
        if self._left_bytes < before:
            self._last_byte_s = self._loop.time()
        elif self._left_bytes and self._loop.time() - self._last_byte_s >= silence_s:
            raise BodyTimeout
        return self._left_bytes > 0

    def on_connection_lost(self) -> None:
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
            self._on_release(self._received_bytes)

    def _receive_all(self, buffer: WriteBuffer) -> None:
        """In a thread: receive whatever is there, up to `MAX_TURN_BYTES`."""
        enough = max(0, self._left_bytes - MAX_TURN_BYTES)
        while self._left_bytes > enough:
            if not buffer.free_view:
                buffer.flush()
            self._receive(buffer)
            if self._is_dry:
                return

    def _receive(self, buffer: WriteBuffer) -> None:
        """Receive once into what is free. Raises ConnectionLost, and what `buffer` raises."""
        self._is_dry = False
        try:
            count = self._socket.recv_into(buffer.free_view[: self._left_bytes])
        except BlockingIOError:
            self._is_dry = True
            return
        except OSError:
            raise ConnectionLost from None
        if not count:
            raise ConnectionLost
        self._left_bytes -= count
        buffer.commit(count)

    async def _is_worth_a_thread(self, limit_s: float) -> bool:
        """Whether `_WAKE_BYTES` came within `limit_s`, or all that is left, or the connection's end."""
        self._wake_at(min(self._left_bytes, _WAKE_BYTES))
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
