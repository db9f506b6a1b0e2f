"""An HTTP/1.1 connection (uvicorn's, by httptools) on which callers who do nothing can't keep others out.

A request's head has a longest time and a greatest length, a response that is not read a least rate. Connections are
counted: before the process runs out of file descriptors, the one that has waited longest for its caller is closed for
the next: for a request, for more of one, or for a response to be read. So strangers who only connect, send for ever or
never read hold a connection that is taken from them as soon as somebody needs it.

A caller may end its own side once it has asked (RFC 9112 §9.6): it is answered all the same.

Longer than other files here: all of it are callbacks of uvicorn's one class, over the same state.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from router.http.body_receiver import BodyReceiver
from router.http.body_sender import BodySender
from router.http.caller_progress import CallerProgress, Wait

BODY_EXTENSION = "router.body"
"""The ASGI extension by which an application receives the rest of a request's body itself, or sends a response's."""
RECEIVE_BODY_KEY, SEND_BODY_KEY, BYTES_MOVED_KEY = "receive", "send", "bytes_moved"
"""Of the extension: a `ReceiveBody`, a `SendBody`, and afterwards how many bytes they received and sent."""
HALF_CLOSED_KEY = "half_closed"
"""Of the extension: an asyncio.Event that is set when the caller has ended its side of the connection."""
ReceiveBody = Callable[[int], BodyReceiver | None]
"""Given how many bytes of the body are still to come. None: some have come already, or it can't be done here."""
SendBody = Callable[[], Awaitable[BodySender | None]]
"""When the response has begun, of a stated length. What has been sent needs no message any more; the last one, which
may be empty, does. None: it can't be done here."""
MAX_HEAD_BYTES = 64 * 1024
"""httptools itself knows no limit and gathers a header for as long as it comes."""
HEAD_TIMEOUT_S = 10.0
"""Seconds from connecting, or from a further request's first byte, to the end of the request's head."""
WATCH_EVERY_S = 0.5
"""Seconds between two looks at what a busy connection's caller has taken and sent. A look takes 15 µs."""
_ASK_AFTER_S, _ANSWER_WITHIN_S = 3.0, 0.3
"""From a caller's end of its side until it is asked whether it is still there, and from there until a reset is here."""
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Ignored by any HTTP/1.1 client before the response (RFC 9110 §15.2)."""
_LEAST_WAIT_S = 0.25
"""A busy connection that has waited no longer for its caller is not closed for another: a round trip takes as long."""
_RESET = struct.pack("=ii", 1, 0)
"""Value of SO_LINGER with which a close is a reset (socket(7))."""
_MOST_AHEAD = 32
"""Requests that a caller may have sent ahead: each is parsed at once, and answered before anybody can tell whether the
answers are read."""
_MOST_LOOKS = 64
"""Busy connections that are looked at for one that comes: a look takes 15 µs."""
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
    unknown_coding: ClassVar[bytes] = malformed
    """The whole response to a body in a transfer coding other than `chunked`."""
    cut_short: ClassVar[bytes] = malformed
    """The whole response to a request whose caller ended its side before the request's end."""
    most_open: ClassVar[int] = _MOST_OPEN
    """Connections that this process may hold; a start sets it by its limit of descriptors (`connections_for`)."""
    stall_s: ClassVar[float] = 60.0
    """So long a caller may take less of a response than `least_bytes_per_s`; a start sets both by its settings."""
    least_bytes_per_s: ClassVar[int] = 1024
    closed: ClassVar[Counter[str]] = Counter({"slow_head": 0, "unread": 0, "evicted": 0})
    """Connections that were closed on their callers, by why."""
    _idle: ClassVar[dict[RouterConnection, float]] = {}
    """Connections without a whole request head, the longest idle first, and since when they are."""
    _busy: ClassVar[dict[RouterConnection, None]] = {}
    """All other ones, first those whose caller was not seen to keep up for longest."""

    _ahead: ClassVar[deque[tuple[RouterConnection, RequestResponseCycle, Any]]] = deque()
    """Requests that were sent ahead and whose turn has come: one is begun in each turn of the loop."""

    _head_bytes = 0
    _answer: bytes | None = None
    """Sent instead of `malformed`."""
    _answered: RequestResponseCycle | None = None
    """The request that is being answered; `cycle` is the latest, which may have been sent ahead."""
    _is_refused = False
    """What comes is no request any more."""
    _is_skipping_body = False
    """The parser counts bytes of a body that was received another way."""
    _receiver: BodyReceiver | None = None
    _sending: tuple[RequestResponseCycle, BodySender] | None = None
    """The response whose body a `BodySender` sends."""
    _deadline: asyncio.TimerHandle | None = None

    @classmethod
    def count_open(cls) -> int:
        """How many connections this process holds."""
        return len(RouterConnection._idle) + len(RouterConnection._busy)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # The kernel's own time for what is left in its buffers when this connection is closed, which nobody watches.
        transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(2000 * self.stall_s)
        )
        self._progress = CallerProgress(transport, self.least_bytes_per_s)
        self._half_closed = asyncio.Event()
        self._await_head()
        self._watch()
        if self.count_open() > self.most_open:
            self._make_room()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        if len(self.pipeline) >= _MOST_AHEAD:
            raise _Refused
        if self in RouterConnection._idle:  # else a pipelined request: the one before it is being answered
            self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        if RouterConnection._idle.pop(self, None) is not None:
            RouterConnection._busy[self] = None
            self._progress.begin()
        if refusal := self._refusal():
            self._answer = refusal
            raise _Refused
        super().on_headers_complete()
        if self.cycle is not None:
            self._answered = self._answered or self.cycle
            receive, send = partial(self._receive_body, self.cycle), partial(self._send_body, self.cycle)
            extension: dict[object, object] = {
                RECEIVE_BODY_KEY: receive,
                SEND_BODY_KEY: send,
                BYTES_MOVED_KEY: 0,
                HALF_CLOSED_KEY: self._half_closed,
            }
            self.cycle.scope["extensions"] = {BODY_EXTENSION: extension}

    def _refusal(self) -> bytes | None:
        """The whole response to a head whose body would not be understood."""
        codings = [
            coding.strip().lower()
            for name, value in self.headers
            if name == b"transfer-encoding"
            for coding in value.split(b",")
        ]
        if any(coding not in (b"chunked", b"") for coding in codings):
            return self.unknown_coding
        has_body = any(name in _BODY_HEADERS and value != b"0" for name, value in self.headers)
        return self.upgrading if has_body and self.parser.should_upgrade() else None

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
        self._answered = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self._answered is None and self in RouterConnection._busy:
            del RouterConnection._busy[self]
            RouterConnection._idle[self] = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        super().data_received(data)
        # Counted after parsing: what came with the head's end may be a body of any size.
        self._head_bytes += len(data)
        if self._deadline is not None and self._head_bytes > MAX_HEAD_BYTES:
            self.give_up("slow_head")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin a request; one that was sent ahead when no other such one does, so that hundreds of callers who send
        hundreds ahead do not hold up those who ask once."""
        if cycle is not self._answered:
            super()._start_asgi_task(cycle, app)
            return
        ahead = RouterConnection._ahead
        if ahead and ahead[0][0].loop is not self.loop:
            ahead.clear()  # of a loop that has ended
        ahead.append((self, cycle, app))
        if len(ahead) == 1:
            self.loop.call_soon(self._start_next)

    @staticmethod
    def _start_next() -> None:
        connection, cycle, app = RouterConnection._ahead.popleft()
        if not connection.transport.is_closing():
            super(RouterConnection, connection)._start_asgi_task(cycle, app)
        if RouterConnection._ahead:
            connection.loop.call_soon(connection._start_next)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio allows it, uvicorn leaves it out
        """The caller sends nothing more, and may still read: whatever it asked for whole is answered first.

        Whether the connection stays open, as asyncio asks.
        """
        if self.transport.get_extra_info("sslcontext") is not None:
            return False
        if not self._take_no_more():
            if self._answered is not None and not self._answered.response_started:
                self.transport.write(self.cut_short)
                self._answered.disconnected = True  # its own response would come after that
            return False
        self._half_closed.set()
        self.loop.call_later(_ASK_AFTER_S, self._ask_whether_there)
        return True

    def _take_no_more(self) -> bool:
        """Close after the requests that came whole; whether one of them is yet to be answered."""
        if self._answered is None or (self.cycle.more_body and not self.pipeline):
            return False
        if self.cycle.more_body:
            self.pipeline.popleft()  # the latest
            self.cycle = self.pipeline[0][0] if self.pipeline else self._answered
        self.cycle.keep_alive = False
        return True

    def _ask_whether_there(self) -> None:
        """Send what a caller ignores who waits for its response: from one that has hung up altogether a reset comes."""
        waiting = self._answered
        if waiting is None or waiting.response_started or self.transport.is_closing():
            return
        if waiting.scope["http_version"] == "1.1":
            self.transport.write(_INTERIM)
            self.loop.call_later(_ANSWER_WITHIN_S, self._end_if_reset)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watching.cancel()
        if self._receiver is not None:
            self._receiver.on_connection_lost()
        if self._sending is not None:
            self._sending[1].on_connection_lost()
        if self._answered is not None:  # uvicorn tells the latest request alone
            self._answered.disconnected = True
            self._answered.message_event.set()
        self._forget()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._is_refused = True
        if not self._take_no_more():  # else it would be read as the answer to an earlier request
            self.transport.write(self._answer or self.malformed)
            self.transport.close()

    def give_up(self, why: str) -> None:
        """Reset the connection: what it has not sent yet goes, also from the kernel's buffers."""
        RouterConnection.closed[why] += 1
        self._forget()
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _forget(self) -> None:
        self._stop_waiting()
        RouterConnection._idle.pop(self, None)
        RouterConnection._busy.pop(self, None)

    def _await_head(self) -> None:
        RouterConnection._idle.setdefault(self, self.loop.time())
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self.give_up, "slow_head")

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _watch(self) -> None:
        """Look at the caller every now and then, and end a response that it does not read."""
        self._watching = self.loop.call_later(min(WATCH_EVERY_S, self.stall_s / 4), self._watch)
        if self in RouterConnection._idle and not self.transport.get_write_buffer_size():
            return
        wait = self._look()
        if wait.is_for_reading and wait.seconds >= self.stall_s:
            self.give_up("unread")
        else:
            self._end_if_reset()

    def _end_if_reset(self) -> None:
        """A transport that neither reads nor writes does not notice that its caller is gone."""
        if self in RouterConnection._busy and self._progress.is_reset:
            self.transport.abort()

    def _look(self) -> Wait:
        """How long this connection has waited for its caller; behind all other busy ones where that keeps up."""
        held_bytes = self.transport.get_write_buffer_size() + (self._sending[1].rest_bytes if self._sending else 0)
        wait = self._progress.look(held_bytes, self._answered is not None and self._answered.more_body)
        if not wait.seconds and self in RouterConnection._busy:
            RouterConnection._busy[self] = RouterConnection._busy.pop(self)
        return wait

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its caller; where none has, one whose caller sent requests
        ahead; else this one, the newest."""
        longest, since_s = next(iter(RouterConnection._idle.items()))
        for busy in list(islice(RouterConnection._busy, _MOST_LOOKS)):
            if waited_s := busy._look().seconds:
                if waited_s >= _LEAST_WAIT_S and self.loop.time() - waited_s < since_s:
                    longest = busy
                break
        if longest is self:
            longest = next((one for one, *_ in RouterConnection._ahead if one in RouterConnection._busy), self)
        longest.give_up("evicted")


def _count_moved(cycle: RequestResponseCycle, moved_bytes: int) -> None:
    extension: dict[str, Any] = cycle.scope["extensions"][BODY_EXTENSION]  # type: ignore[assignment]
    extension[BYTES_MOVED_KEY] += moved_bytes
