"""An HTTP/1.1 connection (uvicorn's, by httptools) on which idle clients can't keep others out.

A request's head has a longest time and a greatest length. Connections are counted: before the process runs out of file
descriptors, the one that has been idle longest is closed for the next. So strangers who only connect, or send a head
for ever, hold a connection that is taken from them as soon as somebody needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from router.http.body_receiver import BodyReceiver
from router.http.body_sender import BodySender

BODY_EXTENSION = "router.body"
"""The ASGI extension by which an application receives the rest of a request's body itself, or sends a response's."""
RECEIVE_BODY_KEY, SEND_BODY_KEY, BYTES_MOVED_KEY = "receive", "send", "bytes_moved"
"""Of the extension: a `ReceiveBody`, a `SendBody`, and afterwards how many bytes they received and sent."""
ReceiveBody = Callable[[int], BodyReceiver | None]
"""Given how many bytes of the body are still to come. None: some have come already, or it can't be done here."""
SendBody = Callable[[], Awaitable[BodySender | None]]
"""When the response has begun, of a stated length. What has been sent needs no message any more; the last one, which
may be empty, does. None: it can't be done here."""
MAX_HEAD_BYTES = 64 * 1024
"""httptools itself knows no limit and gathers a header for as long as it comes."""
HEAD_TIMEOUT_S = 10.0
"""Seconds from connecting, or from a further request's first byte, to the end of the request's head."""
_MOST_OPEN = 20_000
_OWN_DESCRIPTORS = 64
"""Descriptors that the process itself needs: stores, listening sockets, the probe, workers."""
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
_PLACEHOLDER = memoryview(bytes(256 * 1024))
"""Bytes that the parser counts in place of those that a `BodyReceiver` received."""


def connections_for(descriptors: int) -> int:
    """How many connections a process that may have so many descriptors can hold: an upload has three, the connection's,
    its `BodyReceiver`'s and its blob's."""
    return min(_MOST_OPEN, max(1, (descriptors - _OWN_DESCRIPTORS) // 3))


class _Refused(Exception):
    """Raised in a callback of the parser, which gives up then."""


class RouterConnection(HttpToolsProtocol):
    """One connection, counted with the others of every port: descriptors belong to the process."""

    malformed: ClassVar[bytes] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    """The whole response to what is not HTTP."""
    upgrading: ClassVar[bytes] = malformed
    """The whole response to a body that asks for another protocol: the parser would not hand it out."""
    most_open: ClassVar[int] = _MOST_OPEN
    """Connections that this process may hold; a start sets it by its limit of descriptors (`connections_for`)."""
    _idle: ClassVar[dict[RouterConnection, None]] = {}
    """Connections without a whole request head, the longest idle first."""
    _open: ClassVar[int] = 0

    _head_bytes = 0
    _answer: bytes | None = None
    """Sent instead of `malformed`."""
    _is_skipping_body = False
    """The parser counts bytes of a body that was received another way."""
    _receiver: BodyReceiver | None = None
    _sending: tuple[RequestResponseCycle, BodySender] | None = None
    """The response whose body a `BodySender` sends."""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        RouterConnection._open += 1
        self._await_head()
        if RouterConnection._open > self.most_open:
            next(iter(RouterConnection._idle)).give_up()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        if self in RouterConnection._idle:  # else a pipelined request: the one before it is being answered
            self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        RouterConnection._idle.pop(self, None)
        if self.parser.should_upgrade() and any(
            name in _BODY_HEADERS and value != b"0" for name, value in self.headers
        ):
            self._answer = self.upgrading
            raise _Refused
        super().on_headers_complete()
        if self.cycle is not None:
            receive, send = partial(self._receive_body, self.cycle), partial(self._send_body, self.cycle)
            extension: dict[object, object] = {RECEIVE_BODY_KEY: receive, SEND_BODY_KEY: send, BYTES_MOVED_KEY: 0}
            self.cycle.scope["extensions"] = {BODY_EXTENSION: extension}

    def _receive_body(self, cycle: RequestResponseCycle, left: int) -> BodyReceiver | None:
        """The extension's `ReceiveBody`."""
        is_coming = self.cycle is cycle and cycle.more_body and not cycle.body
        if not is_coming or not self._is_plain_http():
            return None
        try:
            self._receiver = BodyReceiver(self.transport, left, partial(self._end_receiving, cycle))
        except OSError:  # no descriptor is to be had
            return None
        self.flow.pause_reading()
        return self._receiver

    def _is_plain_http(self) -> bool:
        """Whether the socket carries HTTP itself and not TLS, and is open."""
        return self.transport.get_extra_info("sslcontext") is None and not self.transport.is_closing()

    async def _send_body(self, cycle: RequestResponseCycle) -> BodySender | None:
        """The extension's `SendBody`."""
        await asyncio.sleep(0)  # the response's head is written when this turn of the loop is over
        is_open = self.cycle is cycle and cycle.response_started and not cycle.response_complete
        is_measured = cycle.chunked_encoding is False and cycle.scope["method"] != "HEAD"
        if not is_open or not is_measured or not self._is_plain_http() or self.transport.get_write_buffer_size():
            return None
        try:
            sender = BodySender(self.transport, partial(self._end_sending, cycle))
        except OSError:  # no descriptor is to be had
            return None
        self._sending = cycle, sender
        return sender

    def _end_sending(self, cycle: RequestResponseCycle, sent_bytes: int) -> None:
        _count_moved(cycle, sent_bytes)
        cycle.expected_content_length -= sent_bytes
        self._sending = None

    def _end_receiving(self, cycle: RequestResponseCycle, received_bytes: int) -> None:
        """Let the parser count what a `BodyReceiver` received; it never sees the bytes themselves."""
        _count_moved(cycle, received_bytes)
        self._receiver = None
        if self not in self.connections:  # lost
            return
        self._is_skipping_body = True
        try:
            for at in range(0, received_bytes, len(_PLACEHOLDER)):
                self.parser.feed_data(_PLACEHOLDER[: received_bytes - at])
        finally:
            self._is_skipping_body = False
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        if not self._is_skipping_body:
            super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            RouterConnection._idle[self] = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Counted after parsing: what came with the head's end may be a body of any size.
        self._head_bytes += len(data)
        if self._deadline is not None and self._head_bytes > MAX_HEAD_BYTES:
            self.give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        RouterConnection._open -= 1
        if self._receiver is not None:
            self._receiver.on_connection_lost()
        if self._sending is not None:
            cycle, sender = self._sending
            sender.on_connection_lost()
            cycle.disconnected = True  # uvicorn tells the latest request alone, and another may have been sent ahead
            cycle.message_event.set()
        self._stop_waiting()
        RouterConnection._idle.pop(self, None)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self.transport.write(self._answer or self.malformed)
        self.transport.close()

    def give_up(self) -> None:
        """Close at once, without a response."""
        RouterConnection._idle.pop(self, None)
        self._stop_waiting()
        self.transport.abort()

    def _await_head(self) -> None:
        RouterConnection._idle.setdefault(self)
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self.give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _count_moved(cycle: RequestResponseCycle, moved_bytes: int) -> None:
    extension: dict[str, Any] = cycle.scope["extensions"][BODY_EXTENSION]  # type: ignore[assignment]
    extension[BYTES_MOVED_KEY] += moved_bytes
