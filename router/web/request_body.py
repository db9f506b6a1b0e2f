"""Audio on its way in: the body of a request, as the spool takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from router.core.buffers import WriteBuffer
from router.core.errors import Problem
from router.http.body_receiver import BodyReceiver, BodyTimeout, ConnectionLost
from router.http.connection import BODY_EXTENSION, RECEIVE_BODY, ReceiveBody
from router.jobs.services import Services
from router.spool.port import SpoolFull
from router.spool.writer import Chunks

_WORTH_A_WIRE_BYTES = 256 * 1024
"""What is shorter has mostly come with the request's head."""


class Incoming:
    """A body of `content_length` bytes (None: nobody knows) behind the `arrived` bytes that came earlier.

    The first piece comes as ASGI hands it out, which has the server say `100 Continue` where a client waits for it; the
    rest straight from the connection, where the server can do that.
    """

    def __init__(self, services: Services, request: Request, arrived: int, content_length: int | None) -> None:
        self._silence_s = services.settings.upload_silence_s
        self._chunks = Chunks(self._pieces(request, arrived, services.settings.max_bytes))
        self._left = content_length or 0
        self._takes_over: ReceiveBody | None = (
            request.scope.get("extensions", {}).get(BODY_EXTENSION, {}).get(RECEIVE_BODY)
        )
        self._wire: BodyReceiver | None = None

    async def fill(self, room: WriteBuffer) -> bool:
        """As `spool.port.Filling`. Raises Problem when it stalls, Full when more comes than an upload may have, and
        ClientDisconnect."""
        if self._wire is None:
            more = await self._chunks.fill(room)
            if more:
                self._take_over()
            return more
        try:
            more = await self._wire.fill(room, self._silence_s)
        except BodyTimeout:
            raise self._stalled() from None
        except ConnectionLost:
            raise ClientDisconnect from None
        if not more:
            self.close()
        return True  # ASGI says that it was the end

    def close(self) -> None:
        """Leave the rest of the body to ASGI."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.release()

    def _take_over(self) -> None:
        if self._takes_over is None or self._chunks.rest:
            return
        left = self._left - self._chunks.passed
        if left >= _WORTH_A_WIRE_BYTES:
            self._wire = self._takes_over(left)
        self._takes_over = None

    async def _pieces(self, request: Request, arrived: int, most: int) -> AsyncIterator[bytes]:
        pieces = request.stream()
        while True:
            try:
                async with asyncio.timeout(self._silence_s):
                    piece = await anext(pieces, None)
            except TimeoutError:
                raise self._stalled() from None
            if piece is None:
                return
            arrived += len(piece)
            if arrived > most:
                raise SpoolFull("more than an upload may have", retry_after_s=0)
            if piece:
                yield piece

    def _stalled(self) -> Problem:
        return Problem(
            "upload_timeout", f"Nothing came for {self._silence_s:.0f} s. Continue the upload where it stopped."
        )


@contextmanager
def incoming(services: Services, request: Request, arrived: int, content_length: int | None) -> Iterator[Incoming]:
    """The request's body, which is ASGI's again afterwards."""
    body = Incoming(services, request, arrived, content_length)
    try:
        yield body
    finally:
        body.close()
