"""Bytes on their way out of a blob: read and decrypted record by record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator

from router.core.threads import run_in_thread
from router.spool import records
from router.spool.keys import BlobKey
from router.spool.writer import BlobTail

_IN_A_ROW = 2
"""Records that are read before other tasks of the event loop get a turn, however fast the caller takes them."""


class BlobReader:
    """The plain bytes of an open blob from `start` up to `end`; a `ReadBuffer` and, for the event loop, an iterator.

    `check_available` raises BlobGone when the blob was dropped or has expired.
    """

    def __init__(
        self, fd: int, key: BlobKey, ref: str, start: int, end: int | None, check_available: Callable[[], None]
    ) -> None:
        self._fd, self._key, self._ref, self.check_available = fd, key, ref, check_available
        tail = BlobTail.find(fd)
        self._start, self._end = start, tail.plain_size if end is None else end
        self._is_cut_off = not tail.complete and (end is None or tail.plain_size < end)
        self._largest = min(tail.plain_size, records.RECORD_BYTES)
        self._sealed = self._plain = memoryview(b"")
        """Memory for a record, made by the first read."""
        self._places = self._wanted()

    def close(self) -> None:
        """Let go of the file's positions now, not when the garbage collector comes."""
        self._places.close()

    def _wanted(self) -> Generator[records.RecordPosition]:
        for place in records.record_positions(self._fd):
            if place.plain_start + place.plain_size > self._start and place.plain_start < self._end:
                self.check_available()  # dropped or expired half-way: it stops here
                yield place
        if self._is_cut_off:
            raise records.CorruptRecord("the end of the blob is missing")

    def _within(self, place: records.RecordPosition) -> slice:
        return slice(max(0, self._start - place.plain_start), min(place.plain_size, self._end - place.plain_start))

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, decrypted on the event loop: a thread would take longer, unless a disk must be read."""
        self._sealed = memoryview(bytearray(records.sealed_size(self._largest)))
        for place in self._places:
            record: bytes | memoryview | None = records.read_if_cached(self._fd, place, self._sealed)
            if record is None:
                record = await run_in_thread(records.read_record, self._fd, place)
            plain, within = records.unseal(record, self._key.secret, self._ref, place), self._within(place)
            yield plain[within] if within != slice(0, len(plain)) else plain
            if place.number % _IN_A_ROW == 0:
                await asyncio.sleep(0)

    def next_piece(self) -> memoryview:
        """In a thread: the next piece, valid until the next call; empty at the end. Raises BlobGone."""
        place = next(self._places, None)
        if place is None:
            return memoryview(b"")
        if not self._plain:
            self._sealed = memoryview(bytearray(records.sealed_size(self._largest)))
            self._plain = memoryview(bytearray(self._largest))
        record = records.read_record_into(self._fd, place, self._sealed)
        return records.unseal_into(record, self._key.secret, self._ref, place, self._plain)[self._within(place)]
