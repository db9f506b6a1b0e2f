"""A request's body as a source of bytes for the spool: first through ASGI, then straight from the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from router.core.buffers import WriteBuffer
from router.core.errors import Problem
from router.http.body_receiver import BodyReceiver, BodyTimeout, ConnectionLost
from router.http.connection import BODY_EXTENSION, RECEIVE_BODY_KEY, ReceiveBody
from router.jobs.services import Services
from router.spool.port import SpoolFull
from router.spool.writer import IteratorBody

_RECEIVE_DIRECTLY_FROM_BYTES = 256 * 1024
"""Bytes still to come from which the connection is read directly: a shorter rest has mostly come with the head."""


class RequestBody:
    """A body of `content_length` bytes (None: unknown), which continues the `arrived` bytes of earlier requests.

    The first piece is read through ASGI, which has the server say `100 Continue` where a client waits for it; the rest
    straight from the connection where the server offers that, which saves most of ASGI's copies (decision 0009).
    """

    def __init__(self, services: Services, request: Request, arrived: int, content_length: int | None) -> None:
        self._silence_s = services.settings.upload_silence_s
        self._chunks = IteratorBody(self._pieces(request, arrived, services.settings.max_bytes))
        self._left = content_length or 0
        self._receive_directly: ReceiveBody | None = (
            request.scope.get("extensions", {}).get(BODY_EXTENSION, {}).get(RECEIVE_BODY_KEY)
        )
        self._receiver: BodyReceiver | None = None

    async def fill(self, room: WriteBuffer) -> bool:
        """As `BodySource.fill`.

        Raises Problem(upload_timeout) when the client falls silent, SpoolFull when more comes than an upload may have,
        and ClientDisconnect.
        """
        if self._receiver is None:
            more = await self._chunks.fill(room)
            if more:
                self._switch_to_connection()
            return more
        try:
            more = await self._receiver.fill(room, self._silence_s)
        except BodyTimeout:
            raise self._timeout_problem() from None
        except ConnectionLost:
            raise ClientDisconnect from None
        if not more:
            self.close()
        return True  # the end itself is ASGI's to say

    def close(self) -> None:
        """Hand the rest of the body back to ASGI. Safe to repeat."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.release()

    def _switch_to_connection(self) -> None:
        if self._receive_directly is None or self._chunks.rest:
            return
        left = self._left - self._chunks.passed
        if left >= _RECEIVE_DIRECTLY_FROM_BYTES:
            self._receiver = self._receive_directly(left)
        self._receive_directly = None

    async def _pieces(self, request: Request, arrived: int, allowed: int) -> AsyncIterator[bytes]:
        pieces = request.stream()
        while True:
            try:
                async with asyncio.timeout(self._silence_s):
                    piece = await anext(pieces, None)
            except TimeoutError:
                raise self._timeout_problem() from None
            if piece is None:
                return
            arrived += len(piece)
            if arrived > allowed:
                raise SpoolFull("more than an upload may have", retry_after_s=0)
            if piece:
                yield piece

    def _timeout_problem(self) -> Problem:
        return Problem(
            "upload_timeout", f"Nothing came for {self._silence_s:.0f} s. Continue the upload where it stopped."
        )


@contextmanager
def request_body(
    services: Services, request: Request, arrived: int, content_length: int | None
) -> Iterator[RequestBody]:
    """The request's body for the length of the block; afterwards its rest is ASGI's. Raises Problem, as `fill`."""
    body = RequestBody(services, request, arrived, content_length)
    try:
        yield body
    except ClientDisconnect:
        raise Problem("bad_request", "The connection ended before the upload did.") from None
    finally:
        body.close()
