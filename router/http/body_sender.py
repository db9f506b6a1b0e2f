"""Sends a response's body from the memory where it was decrypted straight to the connection's socket.

The counterpart of `body_receiver`: a thread reads, decrypts and sends for as long as the socket takes something, and
the event loop waits for it to be writable when it takes no more.
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
    """Sends to a transport that has nothing left to write; `on_release` is told how many bytes it sent.

    Raises OSError where no descriptor is to be had.
    """

    def __init__(self, transport: Any, on_release: Callable[[int], None]) -> None:
        self._transport, self._socket = transport, duplicated_socket(transport)
        self._on_release = on_release
        self._rest = memoryview(b"")
        """Of a piece that was sent in part."""
        self._sent_bytes = 0
        self._loop = asyncio.get_running_loop()

    @property
    def rest_bytes(self) -> int:
        """Of the piece that is being sent, what the socket has not taken yet."""
        return len(self._rest)

    async def send(self, buffer: ReadBuffer) -> None:
        """Send all of `buffer`. Raises what that raises; where the connection is lost, it waits to be cancelled."""
        try:
            while await run_in_thread(self._send_some, buffer):
                if self._rest:
                    await self._wait_until_writable(buffer)
        except ConnectionLost:
            self._transport.abort()
            await asyncio.Event().wait()

    def on_connection_lost(self) -> None:
        """The transport is closed, whoever closed it: a thread that sends stops."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Give the connection back, however much was sent."""
        self._socket.close()
        self._on_release(self._sent_bytes)

    def _send_some(self, buffer: ReadBuffer) -> bool:
        """In a thread: send what the socket takes, up to `MAX_TURN_BYTES`; whether there is more.

        Raises ConnectionLost.
        """
        enough = self._sent_bytes + MAX_TURN_BYTES
        while self._sent_bytes < enough:
            self._rest = self._rest or buffer.next_piece()
            if not self._rest:
                return False
            try:
                count = self._socket.send(self._rest)
            except BlockingIOError:
                return True
            except OSError:
                raise ConnectionLost from None
            self._rest = self._rest[count:]
            self._sent_bytes += count
        return True

    async def _wait_until_writable(self, buffer: ReadBuffer) -> None:
        """Until the socket takes something. Raises BlobGone where the blob goes meanwhile."""
        ready = asyncio.Event()
        self._loop.add_writer(self._socket, ready.set)
        try:
            while not ready.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_EVERY_S):
                        await ready.wait()
                buffer.check_available()
        finally:
            self._loop.remove_writer(self._socket)
