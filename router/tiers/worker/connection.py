"""One HTTP/1.1 connection to a worker, by the standard library's client, whose blocking calls run in threads.

It carries songs and masters. An asynchronous client hands a body on in pieces, each copied half a dozen times and
passed through four generators; a thread reads it straight into the memory where it is kept, and the loop has no work.
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
def _as_transport_errors(broken: type[httpx.TransportError], silent: type[httpx.TransportError]) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise silent("silent") from None
    except (OSError, HTTPException, UnicodeError):  # UnicodeError: a host name that can't be encoded
        raise broken("broken") from None


def _reading(call: Callable[P, T]) -> Callable[P, T]:
    return _as_transport_errors(httpx.ReadError, httpx.ReadTimeout)(call)


def _writing(call: Callable[P, T]) -> Callable[P, T]:
    return _as_transport_errors(httpx.WriteError, httpx.WriteTimeout)(call)


class WorkerConnection:
    """A connection to the host of `url` (https by `tls`). One request at a time; the caller closes it in any case.

    Its coroutines raise httpx.TransportError, as other clients of a backend do. Cancelling one shuts the connection
    down, so that the worker stops at once.
    """

    def __init__(self, url: str, tls: SSLContext) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""  # the client would look for a port in an IPv6 address, so it is always given one
        self._http: HTTPConnection = (
            HTTPSConnection(host, parts.port or 443, context=tls)
            if parts.scheme == "https"
            else HTTPConnection(host, parts.port or 80)
        )
        self._hang_up_socket: socket.socket | None = None
        """A second descriptor of the socket, for `_shut_down`: the first may be closed by a thread meanwhile."""
        self._response: HTTPResponse | None = None

    async def open(self, limit_s: float) -> None:
        self._http.timeout = limit_s
        connecting = WORKER_POOL.submit(self._connect)
        try:
            # For all of it: a name may take long to be resolved, and have many addresses.
            async with asyncio.timeout(limit_s):
                await result_of(connecting)
        except TimeoutError:
            connecting.add_done_callback(lambda _: self.close())
            raise httpx.ConnectTimeout("silent") from None
        except BaseException:
            connecting.add_done_callback(lambda _: self.close())
            raise

    @property
    def is_idle(self) -> bool:
        """Whether it can be used again: the last response was read to its end, and the worker has not closed it."""
        if self._http.sock is None or self._response is None or not self._response.isclosed():
            return False
        poll = select.poll()
        poll.register(self._http.sock, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self._http.close()
        for one in (self._response, self._hang_up_socket):
            if one is not None:
                one.close()

    async def send_head(self, method: str, path: str, headers: Mapping[str, str], silence_s: float) -> None:
        """Send a request's head. A body that the headers announce is sent by `send_chunk` in a thread.

        `silence_s` limits each read and write of this request.
        """
        self._http.sock.settimeout(silence_s)
        self._response = None
        await self.run_in_thread(self._send_head, method, path, headers)

    async def read_head(self) -> HTTPResponse:
        """Read the response's head, once the body has been sent or the worker reads no more."""
        response = await self.run_in_thread(_reading(self._http.getresponse))
        if response.status < httpx.codes.OK:  # an informational response, which was not asked for
            raise httpx.ReadError("broken")
        self._response = response
        return response

    async def run_in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call`, which reads from this connection or writes to it, in a thread."""
        running = WORKER_POOL.submit(call, *args, **kwargs)
        try:
            return await result_of(running)
        except asyncio.CancelledError:
            self._shut_down()
            await wait_until_ended(running)
            raise

    async def read_small_body(self, response: HTTPResponse) -> httpx.Response:
        """Read a small response to its end. Raises httpx.HTTPError for one that is compressed or large."""
        body = await self.run_in_thread(read_bytes, response, responses.MAX_RESPONSE_BYTES + 1)
        return responses.response_of(response.status, response.getheaders(), body)

    @_writing
    def send_chunk(self, *pieces: bytes | memoryview) -> None:
        """In a thread: send a chunk of a request's body (RFC 9112 §7.1); an empty one ends it.

        Raises httpx.WriteError where the worker reads no more; its response tells why.
        """
        self._http.send(b"".join([b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n"]))

    @_as_transport_errors(httpx.ConnectError, httpx.ConnectTimeout)
    def _connect(self) -> None:
        self._http.connect()
        connected = self._http.sock
        self._hang_up_socket = socket.fromfd(connected.fileno(), connected.family, connected.type)

    @_writing
    def _send_head(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        self._http.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            self._http.putheader(name, value)
        self._http.endheaders()

    def _shut_down(self) -> None:
        if self._hang_up_socket is not None:
            with suppress(OSError):
                self._hang_up_socket.shutdown(socket.SHUT_RDWR)


@_reading
def read_into(response: HTTPResponse, buffer: memoryview) -> int:
    """In a thread: fill `buffer` from a response; how many bytes, fewer at its end. Raises httpx.TransportError."""
    count = response.readinto(buffer)
    if count < len(buffer) and response.length:  # the client checks the end of chunks, not of a stated length
        raise IncompleteRead(b"", response.length)
    return count


def read_bytes(response: HTTPResponse, count: int) -> bytes:
    """In a thread: `count` bytes of a response, or what is left of it. Raises httpx.TransportError."""
    buffer = bytearray(count)  # the client's own `read` trusts a chunk's stated size, even a negative one
    return bytes(buffer[: read_into(response, memoryview(buffer))])
