"""A TCP proxy before one backend that breaks connections as it is told, and records which song went through it when.

Songs are recognised by the marker in their bytes, so the record owes nothing to the router's word:

- a worker has a song from its marker to the end of that exchange: the response's, or the connection's;
- to a Space a song is sent from its marker to the response to that PUT; it holds the song until a DELETE of that job.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ops.chaos.schedule import FaultKind, PlannedFault

MARKER = b"chaos-song-%07d"
_TOKEN = re.compile(
    rb"POST /v1/(?P<post>slots|renders) "
    rb"|PUT /v1/jobs/(?P<put>[0-9a-f]{32})/audio |GET /v1/jobs/(?P<get>[0-9a-f]{32})/outputs/"
    rb"|DELETE /v1/jobs/(?P<delete>[0-9a-f]{32}) |chaos-song-(?P<song>\d{7})"
)
_LONGEST_TOKEN = 80
_CHUNK_BYTES = 256 * 1024
_LAST_CHUNK = b"0\r\n\r\n"
_REFUSED = re.compile(rb"HTTP/1\.1 [45]\d\d ")
_DRIP_EVERY_S = 0.1
_HANG_UP_S = 0.05
"""Between two looks whether the router has hung up while a backend takes nothing."""
_CONNECT_S = 5.0
_HTML = b"<!doctype html><title>Welcome</title><p>Sign in to this network.</p>\n" * 40
_HTML_200 = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n%b" % (len(_HTML), _HTML)


@dataclass
class Transfer:
    """A song on its way to a backend, and there. Times are of `time.monotonic`."""

    song: int
    backend: str
    began_s: float
    ended_s: float | None = None
    """The song is sent no more, and a worker is done with it."""
    released_s: float | None = None
    """The backend holds nothing of it any more."""


@dataclass(frozen=True)
class Strike:
    """A fault that struck a backend, or a connection to it, while a song was there."""

    song: int
    backend: str
    at_s: float
    kind: FaultKind


@dataclass
class Record:
    """What all proxies saw."""

    transfers: list[Transfer] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)

    def songs_at(self, backend: str) -> set[int]:
        return {one.song for one in self.transfers if one.backend == backend and one.released_s is None}

    def struck(self) -> set[int]:
        """Songs of which an attempt was broken. A kill of the router breaks none: it counts against no song."""
        return {strike.song for strike in self.strikes if strike.kind is not FaultKind.ROUTER_KILL}

    def strike_all(self, backend: str, kind: FaultKind) -> None:
        """Note that the backend has been struck, with all songs that are there."""
        now_s = time.monotonic()
        self.strikes += [Strike(song, backend, now_s, kind) for song in sorted(self.songs_at(backend))]


@dataclass
class PendingFault:
    """A fault that waits for an exchange to break, at one of the proxies that know of it."""

    fault: PlannedFault
    struck: asyncio.Future[Strike]
    is_taken: bool = False
    """An exchange has been found."""


async def strike_next(proxies: Sequence[FaultProxy], fault: PlannedFault, limit_s: float) -> Strike | None:
    """Break the next exchange, at one of these proxies, that carries a song which nothing has struck yet.

    None where none came in time. One call at a time for each proxy.
    """
    pending = PendingFault(fault, asyncio.get_running_loop().create_future())
    for proxy in proxies:
        proxy.pending = pending
    try:
        return await asyncio.wait_for(pending.struck, limit_s)
    except TimeoutError:
        return None
    finally:
        for proxy in proxies:
            proxy.pending = None


class FaultProxy:
    """The proxy of one backend. `outage`: the kind of fault that holds the backend or its network now."""

    def __init__(self, backend: str, upstream: str, record: Record) -> None:
        parts = urlsplit(upstream)
        self.backend, self.record = backend, record
        self.outage: FaultKind | None = None
        self.pending: PendingFault | None = None
        self._address = (parts.hostname or "", parts.port or 80)
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._space_songs: dict[bytes, Transfer] = {}

    @asynccontextmanager
    async def listening(self, sock: socket.socket) -> AsyncIterator[None]:
        """Serve on a bound socket while the context is open."""
        server = await asyncio.start_server(self._accept, sock=sock)
        try:
            yield
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def black_hole(self, lasts_s: float) -> None:
        """Let no byte through for so long, either way, and nobody know; then break the connections that were open."""
        self.outage = FaultKind.BLACK_HOLE
        self.record.strike_all(self.backend, FaultKind.BLACK_HOLE)
        for connection in self._connections:
            connection.is_swallowed = True
        await asyncio.sleep(lasts_s)
        self.outage = None
        for connection in list(self._connections):
            if connection.is_swallowed:
                connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        connection = _Connection(self, writer)
        self._connections.add(connection)
        try:
            await self._serve(connection, reader)
        except OSError:
            connection.reset()
        except asyncio.CancelledError:
            return  # the proxy has ended
        finally:
            self._connections.discard(connection)
            connection.end()

    async def _serve(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        if self.outage is FaultKind.BLACK_HOLE:
            connection.is_swallowed = True
            while data := await reader.read(_CHUNK_BYTES):
                connection.note_request(data)
            return
        async with asyncio.timeout(_CONNECT_S):
            upstream, connection.to_backend = await asyncio.open_connection(*self._address)
        ways = [asyncio.create_task(connection.pump_requests(reader)),
                asyncio.create_task(connection.pump_responses(upstream))]  # fmt: skip
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def song_seen(self, connection: _Connection, song: int) -> Transfer:
        transfer = Transfer(song, self.backend, time.monotonic())
        self.record.transfers.append(transfer)
        if self.outage is not None:
            self.record.strikes.append(Strike(song, self.backend, transfer.began_s, self.outage))
        elif connection.space_job is None or (self.pending is not None and self.pending.fault.on_upload):
            self._lay_on(connection, song)
        if connection.space_job is not None:
            self._space_songs[connection.space_job] = transfer
        return transfer

    def output_asked(self, connection: _Connection, space_job: bytes) -> None:
        """A Space's master is being fetched: what strikes responses strikes this one."""
        transfer = self._space_songs.get(space_job)
        if transfer is not None and self.outage is None:
            self._lay_on(connection, transfer.song)

    def released(self, space_job: bytes) -> None:
        transfer = self._space_songs.pop(space_job, None)
        if transfer is not None:
            transfer.ended_s = transfer.ended_s or time.monotonic()
            transfer.released_s = time.monotonic()

    def _lay_on(self, connection: _Connection, song: int) -> None:
        """Have the fault that waits strike this connection, if nothing has struck its song yet."""
        if self.pending is not None and not self.pending.is_taken and song not in self.record.struck():
            self.pending.is_taken = True
            connection.pending, connection.fault = self.pending, self.pending.fault
            connection.song, connection.passed_bytes = song, 0


class _Connection:
    """One connection of the router, and the one to the backend behind it."""

    def __init__(self, proxy: FaultProxy, to_router: asyncio.StreamWriter) -> None:
        self.proxy, self._to_router = proxy, to_router
        self.to_backend: asyncio.StreamWriter | None = None
        self.fault: PlannedFault | None = None
        self.pending: PendingFault | None = None
        self.song = 0
        self.passed_bytes = 0
        self.space_job: bytes | None = None
        """The job whose song was last sent by this connection, at a Space."""
        self.is_swallowed = False
        self._transfer: Transfer | None = None
        self._requested = b""
        self._responded = b""

    async def pump_requests(self, reader: asyncio.StreamReader) -> None:
        assert self.to_backend is not None  # noqa: S101
        while data := await reader.read(_CHUNK_BYTES):
            self.note_request(data)
            if self.is_swallowed:
                continue
            if self.fault is not None and self.fault.on_upload:
                self.passed_bytes += len(data)
                if self.passed_bytes >= self.fault.at_byte:
                    return self._break(by_reset=True)
            self.to_backend.write(data)
            await self._drained(self.to_backend)

    async def pump_responses(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if self.is_swallowed:
                continue
            self._note_response(data)
            if self.fault is None or self.fault.on_upload:
                self._to_router.write(data)
            elif self.fault.kind is FaultKind.SLOW_DRIP:
                await self._drip(data, self.fault)
            elif self.fault.kind is FaultKind.HTML_200:
                self._to_router.write(_HTML_200)
                await self._to_router.drain()
                return self._break(by_reset=False)
            else:
                left = self.fault.at_byte - self.passed_bytes
                self.passed_bytes += len(data)
                self._to_router.write(data[: max(0, left)])
                if len(data) >= left:
                    await self._to_router.drain()
                    return self._break(by_reset=self.fault.kind is FaultKind.RESET)
            await self._to_router.drain()

    async def _drained(self, to_backend: asyncio.StreamWriter) -> None:
        """Until the backend has taken what was written. A router that hangs up meanwhile raises ConnectionError."""
        draining = asyncio.create_task(to_backend.drain())
        try:
            while not (await asyncio.wait({draining}, timeout=_HANG_UP_S))[0]:
                if self._has_hung_up():
                    raise ConnectionResetError
            draining.result()
        finally:
            draining.cancel()

    def _has_hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._to_router.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def end(self) -> None:
        """Close both sides, and note that what was under way is so no more."""
        self._end_transfer()
        for writer in (self._to_router, self.to_backend):
            if writer is not None:
                writer.close()

    def reset(self) -> None:
        """Break both sides with RST."""
        for writer in (self._to_router, self.to_backend):
            if writer is not None:
                sock: socket.socket = writer.get_extra_info("socket")
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def _break(self, *, by_reset: bool) -> None:
        self._note_strike()
        if by_reset:
            self.reset()

    def _note_strike(self) -> None:
        assert self.pending is not None  # noqa: S101
        strike = Strike(self.song, self.proxy.backend, time.monotonic(), self.pending.fault.kind)
        self.proxy.record.strikes.append(strike)
        if not self.pending.struck.done():
            self.pending.struck.set_result(strike)

    async def _drip(self, data: bytes, fault: PlannedFault) -> None:
        """Let a byte through now and then, until the fault is over; then the rest, as fast as it comes."""
        self._note_strike()
        ends_s, at = time.monotonic() + fault.lasts_s, 0
        while at < len(data) and time.monotonic() < ends_s:
            self._to_router.write(data[at : at + 1])
            await self._to_router.drain()
            at += 1
            await asyncio.sleep(_DRIP_EVERY_S)
        self._to_router.write(data[at:])
        self.fault = None

    def note_request(self, data: bytes) -> None:
        """Look for songs and a Space's jobs in what the router sends, also where it goes into a black hole."""
        seen, done = self._requested + data, 0
        for found in _TOKEN.finditer(seen):
            done = found.end()
            if found["song"]:
                if self._transfer is None:
                    self._transfer = self.proxy.song_seen(self, int(found["song"]))
                continue
            self._end_transfer()
            if found["put"]:
                self.space_job = found["put"]
            elif found["delete"]:
                self.proxy.released(found["delete"])
            elif found["get"]:
                self.proxy.output_asked(self, found["get"])
        self._requested = seen[max(done, len(seen) - _LONGEST_TOKEN) :]

    def _note_response(self, data: bytes) -> None:
        self._responded = (self._responded + data)[-len(_LAST_CHUNK) :]
        if self.space_job is not None or self._responded == _LAST_CHUNK or _REFUSED.match(data):
            self._end_transfer()

    def _end_transfer(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is None:
            return
        transfer.ended_s = time.monotonic()
        if self.space_job is None:
            transfer.released_s = transfer.ended_s
