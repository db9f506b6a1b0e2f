"""A worker on a bare socket: it gives slots, and sends as the response to a render whatever bytes a test wants.

async with rough_worker(lambda asked: answer(200, frames(...))) as rough:
    WorkerBackend("w", rough.url)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from mastering.protocol.frames import Event, Seal, data_header, encode_event


class RenderCall(NamedTuple):
    """One render request: its headers, and its body without the chunked framing."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Rough:
    """The running worker: its address, and the connections that it has met."""

    url: str
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a caller has closed its connection."""


Said = Callable[[RenderCall], bytes]
"""Gives the whole response to a render; with no bytes the connection stays open and silent."""
Taken = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Reads the body of a render and writes its response itself."""


@asynccontextmanager
async def rough_worker(
    said: Said | None = None, *, takes: Taken | None = None, slots: Callable[[int], bytes] | None = None
) -> AsyncIterator[Rough]:
    """Run one. A slot request gets a slot, or what `slots` gives for its number; a render gets what `said` gives, or
    is handled by `takes`."""
    talking: set[asyncio.Task[None]] = set()
    gives = slots or (lambda _: GIVEN)
    asked_for_slots = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked_for_slots
        rough.connections += 1
        rough.writers.append(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    path, headers = await _head(reader)
                    if path == "/v1/slots":
                        asked_for_slots += 1
                        writer.write(given := gives(asked_for_slots))
                        if b"connection: close" in given:
                            break
                    elif takes is not None:
                        await takes(reader, writer)
                    elif said is not None:
                        writer.write(said(RenderCall(headers, await _chunked(reader))))
                    await writer.drain()
            rough.closed.set()
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(talk(reader, writer))
        talking.add(task)
        task.add_done_callback(talking.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    rough = Rough(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield rough
    finally:
        server.close()
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    named = (line.partition(":") for line in lines if line)
    return first.split(" ")[1], {name.lower(): value.strip() for name, _, value in named}


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return bytes(body)


def answer(status: int, body: bytes, **headers: str) -> bytes:
    """A whole HTTP response that leaves the connection open."""
    named = {"content-length": str(len(body)), **{name.replace("_", "-"): said for name, said in headers.items()}}
    head = [f"HTTP/1.1 {status} Said", *(f"{name}: {said}" for name, said in named.items())]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def in_chunks(body: bytes, *, size: int = 65_536) -> bytes:
    """A whole HTTP response of unknown length, chunked."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    head = b"HTTP/1.1 200 Said\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def sealed(seal: Seal, *frames: Event | bytes) -> bytes:
    """The frames of events, and of bytes as one data frame each."""
    encoded = [data_header(len(one)) + one if isinstance(one, bytes) else encode_event(one) for one in frames]
    return b"".join(map(seal.pass_on, encoded))


GIVEN = answer(201, json.dumps({"slot": "s"}).encode())
