"""A response's body, written to its connection straight from the memory where it was unsealed.

The other direction of `wire`: a thread reads, unseals and sends for as long as the connection takes something, and the
loop hears of it when it takes no more.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from router.core.buffers import ReadBuffer
from router.core.threads import MAX_TURN_BYTES, run_in_thread
from router.http.body_receiver import CHECK_EVERY_S, ConnectionLost, duplicated_socket


class BodySender:
    """Into a transport that has nothing left to write; `released` is told how many bytes went by this way.

    Raises OSError where there is no descriptor for it.
    """

    def __init__(self, transport: Any, released: Callable[[int], None]) -> None:
        self._transport, self._socket = transport, duplicated_socket(transport)
        self._released = released
        self._rest = memoryview(b"")
        self._sent = 0
        self._loop = asyncio.get_running_loop()

    async def pour(self, stretch: ReadBuffer) -> None:
        """All of it. Raises what `stretch` raises; where the connection is lost, it waits for its caller's end."""
        try:
            while await run_in_thread(self._push, stretch):
                if self._rest:
                    await self._is_writable(stretch)
        except ConnectionLost:
            self._transport.abort()
            await asyncio.Event().wait()

    def lost(self) -> None:
        """The transport is closed, whoever closed it: nothing more is sent."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Give the connection back, however much was sent."""
        self._socket.close()
        self._released(self._sent)

    def _push(self, stretch: ReadBuffer) -> bool:
        """In a thread: what the connection takes, up to a limit; whether there is more. Raises Lost."""
        enough = self._sent + MAX_TURN_BYTES
        while self._sent < enough:
            self._rest = self._rest or stretch.next()
            if not self._rest:
                return False
            try:
                count = self._socket.send(self._rest)
            except BlockingIOError:
                return True
            except OSError:
                raise ConnectionLost from None
            self._rest = self._rest[count:]
            self._sent += count
        return True

    async def _is_writable(self, stretch: ReadBuffer) -> None:
        """Wait until it takes something. Raises what `stretch` raises when it is not to be had any more."""
        ready = asyncio.Event()
        self._loop.add_writer(self._socket, ready.set)
        try:
            while not ready.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_EVERY_S):
                        await ready.wait()
                stretch.check()
        finally:
            self._loop.remove_writer(self._socket)
