"""One HTTP/1.1 connection, spoken by the standard library's client. Whatever may have to wait is a thread's.

A song and its master pass by here. A client for event loops hands a body on in pieces, each copied half a dozen times
and announced to four generators; a thread reads it into the memory where it is kept, and the loop has nothing to do.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ssl import SSLContext
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

import httpx

from router.threads import outcome, settled
from router.tiers import answers

P = ParamSpec("P")
T = TypeVar("T")
_THREADS = ThreadPoolExecutor(1024, thread_name_prefix="line")
"""Made as they are needed: one for each answer that is waited for, and a render may take minutes."""


@contextmanager
def _translated(broken: type[httpx.TransportError], silent: type[httpx.TransportError]) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise silent("silent") from None
    except (OSError, HTTPException):
        raise broken("broken") from None


def _reading(call: Callable[P, T]) -> Callable[P, T]:
    return _translated(httpx.ReadError, httpx.ReadTimeout)(call)


def _writing(call: Callable[P, T]) -> Callable[P, T]:
    return _translated(httpx.WriteError, httpx.WriteTimeout)(call)


class Line:
    """A connection to `url` (https by `tls`). One request at a time; close it, whatever comes.

    What waits raises httpx.TransportError, as other ways to a backend do, and frees the other side at once when it is
    cancelled.
    """

    def __init__(self, url: str, tls: SSLContext) -> None:
        parts = urlsplit(url)
        self._http: HTTPConnection = (
            HTTPSConnection(parts.hostname or "", parts.port, context=tls)
            if parts.scheme == "https"
            else HTTPConnection(parts.hostname or "", parts.port)
        )
        self._prefix = parts.path.rstrip("/")
        self._socket: socket.socket | None = None
        """The same as `_http.sock`, which forgets it when the answer is the connection's last."""
        self._response: HTTPResponse | None = None

    async def open(self, limit_s: float) -> None:
        self._http.timeout = limit_s
        connecting = _THREADS.submit(_translated(httpx.ConnectError, httpx.ConnectTimeout)(self._http.connect))
        try:
            await outcome(connecting)
        except BaseException:
            connecting.add_done_callback(lambda _: self.close())  # a name may take long to be found
            raise
        self._socket = self._http.sock

    @property
    def is_idle(self) -> bool:
        """Whether it can serve again: the last answer was read to its end, and the other side has not hung up."""
        if self._http.sock is None or self._response is None or not self._response.isclosed():
            return False
        poll = select.poll()
        poll.register(self._http.sock, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self._http.close()
        if self._response is not None:
            self._response.close()

    async def begin(self, method: str, path: str, headers: Mapping[str, str], silence_s: float) -> None:
        """Send a request's head; its body, if the headers tell of one, is `put` in a step.

        `silence_s`: so long each read and write of this request may take.
        """
        assert self._socket is not None  # noqa: S101 — it is open
        self._socket.settimeout(silence_s)
        self._response = None
        await self.step(self._head, method, path, headers)

    async def answer(self) -> HTTPResponse:
        """The answer's head, when what the headers promised has been `put`, or nobody listens any more."""
        self._response = await self.step(_reading(self._http.getresponse))
        return self._response

    async def step(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call`, which reads from this connection or writes to it, in a thread."""
        running = _THREADS.submit(call, *args, **kwargs)
        try:
            return await outcome(running)
        except asyncio.CancelledError:
            self._hang_up()
            await settled(running)
            raise

    async def whole(self, response: HTTPResponse) -> httpx.Response:
        """A small answer to its end. Raises httpx.HTTPError for one that is packed or large."""
        body = await self.step(read, response, answers.MAX_ANSWER_BYTES + 1)
        return answers.of_parts(response.status, response.getheaders(), body)

    @_writing
    def put(self, *pieces: bytes | memoryview) -> None:
        """In a thread: a chunk of a request's body (RFC 9112 §7.1); an empty one is the last. Raises httpx.WriteError
        where nobody listens any more: what they say tells why."""
        self._http.send(b"".join([b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n"]))

    @_writing
    def _head(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        self._http.putrequest(method, self._prefix + path, skip_accept_encoding=True)
        for name, value in headers.items():
            self._http.putheader(name, value)
        self._http.endheaders()

    def _hang_up(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # the plain socket's: that of TLS forgets its session while a thread reads by it
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


@_reading
def read_into(response: HTTPResponse, room: memoryview) -> int:
    """In a thread: fill `room` from an answer; how many bytes, fewer at its end. Raises httpx.TransportError."""
    return response.readinto(room)


def read(response: HTTPResponse, count: int) -> bytes:
    """In a thread: `count` bytes of an answer, or what is left of it. Raises httpx.TransportError."""
    room = bytearray(count)  # the client's own `read` believes the size of a chunk, be it negative
    return bytes(room[: read_into(response, memoryview(room))])
