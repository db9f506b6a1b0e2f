"""One HTTP/1.1 connection, spoken by the standard library's client. Whatever may have to wait is a thread's.

A song and its master pass by here. A client for event loops hands a body on in pieces, each copied half a dozen times
and announced to four generators; a thread reads it into the memory where it is kept, and the loop has nothing to do.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from ssl import SSLContext
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

import httpx

from router.core.threads import WORKER_POOL, result_of, wait_until_ended
from router.tiers import responses

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def _translated(broken: type[httpx.TransportError], silent: type[httpx.TransportError]) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise silent("silent") from None
    except (OSError, HTTPException, UnicodeError):  # the last for a name that is none
        raise broken("broken") from None


def _reading(call: Callable[P, T]) -> Callable[P, T]:
    return _translated(httpx.ReadError, httpx.ReadTimeout)(call)


def _writing(call: Callable[P, T]) -> Callable[P, T]:
    return _translated(httpx.WriteError, httpx.WriteTimeout)(call)


class WorkerConnection:
    """A connection to the host of `url` (https by `tls`). One request at a time; close it, whatever comes.

    What waits raises httpx.TransportError, as other ways to a backend do, and frees the other side at once when it is
    cancelled.
    """

    def __init__(self, url: str, tls: SSLContext) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""  # always with a port, which would be looked for in an IPv6 address otherwise
        self._http: HTTPConnection = (
            HTTPSConnection(host, parts.port or 443, context=tls)
            if parts.scheme == "https"
            else HTTPConnection(host, parts.port or 80)
        )
        self._own: socket.socket | None = None
        """To hang up by: a descriptor that no thread closes."""
        self._response: HTTPResponse | None = None

    async def open(self, limit_s: float) -> None:
        self._http.timeout = limit_s
        connecting = WORKER_POOL.submit(self._connect)
        try:
            async with asyncio.timeout(limit_s):  # all of it: a name may take long to be found, and have many addresses
                await result_of(connecting)
        except TimeoutError:
            connecting.add_done_callback(lambda _: self.close())
            raise httpx.ConnectTimeout("silent") from None
        except BaseException:
            connecting.add_done_callback(lambda _: self.close())
            raise

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
        for one in (self._response, self._own):
            if one is not None:
                one.close()

    async def begin(self, method: str, path: str, headers: Mapping[str, str], silence_s: float) -> None:
        """Send a request's head; its body, if the headers tell of one, is `put` in a step.

        `silence_s`: so long each read and write of this request may take.
        """
        self._http.sock.settimeout(silence_s)
        self._response = None
        await self.step(self._head, method, path, headers)

    async def answer(self) -> HTTPResponse:
        """The answer's head, when what the headers promised has been `put`, or nobody listens any more."""
        response = await self.step(_reading(self._http.getresponse))
        if response.status < httpx.codes.OK:  # nobody asked for it, and the answer proper comes behind it
            raise httpx.ReadError("broken")
        self._response = response
        return response

    async def step(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call`, which reads from this connection or writes to it, in a thread."""
        running = WORKER_POOL.submit(call, *args, **kwargs)
        try:
            return await result_of(running)
        except asyncio.CancelledError:
            self._hang_up()
            await wait_until_ended(running)
            raise

    async def whole(self, response: HTTPResponse) -> httpx.Response:
        """A small answer to its end. Raises httpx.HTTPError for one that is packed or large."""
        body = await self.step(read, response, responses.MAX_ANSWER_BYTES + 1)
        return responses.of_parts(response.status, response.getheaders(), body)

    @_writing
    def put(self, *pieces: bytes | memoryview) -> None:
        """In a thread: a chunk of a request's body (RFC 9112 §7.1); an empty one is the last. Raises httpx.WriteError
        where nobody listens any more: what they say tells why."""
        self._http.send(b"".join([b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n"]))

    @_translated(httpx.ConnectError, httpx.ConnectTimeout)
    def _connect(self) -> None:
        self._http.connect()
        its = self._http.sock
        self._own = socket.fromfd(its.fileno(), its.family, its.type)

    @_writing
    def _head(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        self._http.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            self._http.putheader(name, value)
        self._http.endheaders()

    def _hang_up(self) -> None:
        if self._own is not None:
            with suppress(OSError):
                self._own.shutdown(socket.SHUT_RDWR)


@_reading
def read_into(response: HTTPResponse, room: memoryview) -> int:
    """In a thread: fill `room` from an answer; how many bytes, fewer at its end. Raises httpx.TransportError."""
    count = response.readinto(room)
    if count < len(room) and response.length:  # chunks are looked after, a stated length is not
        raise IncompleteRead(b"", response.length)
    return count


def read(response: HTTPResponse, count: int) -> bytes:
    """In a thread: `count` bytes of an answer, or what is left of it. Raises httpx.TransportError."""
    room = bytearray(count)  # the client's own `read` believes the size of a chunk, be it negative
    return bytes(room[: read_into(response, memoryview(room))])
