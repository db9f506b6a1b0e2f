"""A caller's connection: uvicorn's HTTP/1.1 by httptools, where nobody who sends nothing can keep others out.

A request's head has a longest time and a greatest length. Connections are counted: before the process runs out of file
descriptors, the one that has been idle longest makes room for the next. So strangers who only connect, or send a head
for ever, cost a place that is taken from them as soon as somebody needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from router.http.body_receiver import BodyReceiver
from router.http.body_sender import BodySender

BODY_EXTENSION = "router.wire"
"""The ASGI extension by which an application takes the rest of a request's body itself, or sends a response's."""
RECEIVE_BODY_KEY, SEND_BODY_KEY, BYTES_MOVED_KEY = "take_over", "pour", "passed"
"""Of the extension: a `ReceiveBody`, a `SendBody`, and afterwards how many bytes went by these ways."""
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
"""The process's, whoever is connected: stores, sockets that listen, the probe, workers."""
_OF_A_BODY = frozenset({b"content-length", b"transfer-encoding"})
_ANYTHING = memoryview(bytes(256 * 1024))


def connections_for(descriptors: int) -> int:
    """How many connections a process that may have so many descriptors can hold: an upload has three, the connection's,
    its `BodyReceiver`'s and its blob's."""
    return min(_MOST_OPEN, max(1, (descriptors - _OWN_DESCRIPTORS) // 3))


class _Refused(Exception):
    """Makes the parser give up."""


class RouterConnection(HttpToolsProtocol):
    """Counts its like: descriptors belong to the process, whichever port a connection came by."""

    malformed: ClassVar[bytes] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    """The whole answer to what is no HTTP."""
    upgrading: ClassVar[bytes] = malformed
    """And to a body that is to be read in another protocol: the parser would not hand it out."""
    most_open: ClassVar[int] = _MOST_OPEN
    """Connections that this process may hold; a start sets it by its limit of descriptors (`connections_for`)."""
    _idle: ClassVar[dict[RouterConnection, None]] = {}
    """Those that owe a head, the longest idle first."""
    _open: ClassVar[int] = 0

    _head_bytes = 0
    _answer: bytes | None = None
    """Instead of `malformed`."""
    _is_passing_by = False
    _wire: BodyReceiver | None = None
    _poured: tuple[RequestResponseCycle, BodySender] | None = None
    """The response that is going out by a pipe."""
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
        if self.parser.should_upgrade() and any(name in _OF_A_BODY and value != b"0" for name, value in self.headers):
            self._answer = self.upgrading
            raise _Refused
        super().on_headers_complete()
        if self.cycle is not None:
            take_over, pour = partial(self._take_over, self.cycle), partial(self._pour, self.cycle)
            ways: dict[object, object] = {RECEIVE_BODY_KEY: take_over, SEND_BODY_KEY: pour, BYTES_MOVED_KEY: 0}
            self.cycle.scope["extensions"] = {BODY_EXTENSION: ways}

    def _take_over(self, cycle: RequestResponseCycle, left: int) -> BodyReceiver | None:
        is_coming = self.cycle is cycle and cycle.more_body and not cycle.body
        if not is_coming or not self._is_bare():
            return None
        try:
            self._wire = BodyReceiver(self.transport, left, partial(self._resume, cycle))
        except OSError:  # no descriptor is to be had
            return None
        self.flow.pause_reading()
        return self._wire

    def _is_bare(self) -> bool:
        """Whether what goes over the connection is HTTP itself."""
        return self.transport.get_extra_info("sslcontext") is None and not self.transport.is_closing()

    async def _pour(self, cycle: RequestResponseCycle) -> BodySender | None:
        await asyncio.sleep(0)  # the response's head is written when this turn of the loop is over
        is_open = self.cycle is cycle and cycle.response_started and not cycle.response_complete
        is_measured = cycle.chunked_encoding is False and cycle.scope["method"] != "HEAD"
        if not is_open or not is_measured or not self._is_bare() or self.transport.get_write_buffer_size():
            return None
        try:
            pipe = BodySender(self.transport, partial(self._end_pouring, cycle))
        except OSError:  # no descriptor is to be had
            return None
        self._poured = cycle, pipe
        return pipe

    def _end_pouring(self, cycle: RequestResponseCycle, passed: int) -> None:
        _note(cycle, passed)
        cycle.expected_content_length -= passed
        self._poured = None

    def _resume(self, cycle: RequestResponseCycle, passed: int) -> None:
        """`passed` bytes of the body went by another way: let the parser count them, of whatever they are."""
        _note(cycle, passed)
        self._wire = None
        if self not in self.connections:  # lost
            return
        self._is_passing_by = True
        try:
            for at in range(0, passed, len(_ANYTHING)):
                self.parser.feed_data(_ANYTHING[: passed - at])
        finally:
            self._is_passing_by = False
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        if not self._is_passing_by:
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
        if self._wire is not None:
            self._wire.lost()
        if self._poured is not None:
            cycle, pipe = self._poured
            pipe.lost()
            cycle.disconnected = True  # uvicorn tells the latest request alone, and another may have been sent ahead
            cycle.message_event.set()
        self._stop_waiting()
        RouterConnection._idle.pop(self, None)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self.transport.write(self._answer or self.malformed)
        self.transport.close()

    def give_up(self) -> None:
        """Close at once: nobody is owed an answer."""
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


def _note(cycle: RequestResponseCycle, passed: int) -> None:
    ways: dict[str, Any] = cycle.scope["extensions"][BODY_EXTENSION]  # type: ignore[assignment]
    ways[BYTES_MOVED_KEY] += passed
