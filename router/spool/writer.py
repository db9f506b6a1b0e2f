"""Bytes on their way into a blob: gathered into records, which a thread seals and writes."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import NamedTuple

from router.core.buffers import BodySource, WriteBuffer
from router.core.threads import result_of, start_in_thread, wait_until_ended
from router.spool import records
from router.spool.keys import BlobKey
from router.spool.port import PieceCallback, SpoolFull, WrongOffset

_SMALL_RECORD_BYTES = 64 * 1024


class BlobTail(NamedTuple):
    """Where the whole records of a blob end."""

    number: int
    position: int
    plain_size: int
    complete: bool
    last: records.RecordPosition | None = None

    @classmethod
    def find(cls, fd: int) -> BlobTail:
        tail = cls(0, 0, 0, complete=False)
        for place in records.record_positions(fd):
            tail = cls(place.number + 1, place.end, place.plain_start + place.plain_size, place.last, place)
        return tail


class BlobWriter:
    """Gathers a body into records. One is filled on the loop while a thread seals and writes the one before it, or the
    thread that fills them writes each when it is full (`empty`)."""

    def __init__(
        self, fd: int, key: BlobKey, ref: str, tail: BlobTail, total: int | None, listener: PieceCallback | None = None
    ) -> None:
        self._fd, self._key, self._ref, self._listener = fd, key, ref, listener
        self._index, self._position = tail.number, tail.position
        self._limit = key.reserved_bytes if total is None else total
        # A small blob needs no room for a whole record, nor does it ever fill this, whatever `resume` adds.
        room_bytes = max(0, self._limit - tail.plain_size) + _SMALL_RECORD_BYTES
        self._gathered = bytearray(min(records.RECORD_BYTES, room_bytes))
        self._spare, self._sealed = bytearray(), bytearray()
        self._filled = self._kept = 0
        self._check: Callable[[], None] = lambda: None
        self._writing: Future[None] | None = None
        self._is_broken = False
        self.size_bytes = tail.plain_size

    def resume(self, tail: BlobTail) -> None:
        """Go on in the last record where it is a small one, so that many small appends make few records.

        It stays as it is until the record that replaces it is written in its place, with a nonce of its own. A kill
        in the middle of that write costs these few bytes: the client hears of an earlier offset and goes on there.
        """
        place = tail.last
        if place is None or place.plain_size >= _SMALL_RECORD_BYTES:
            return
        plain = records.unseal(records.read_record(self._fd, place), self._key.secret, self._ref, place)
        self._gathered[: len(plain)] = plain
        self._filled = self._kept = len(plain)
        self._index, self._position = place.number, place.position

    @property
    def free(self) -> memoryview:
        """What the record that is being filled has left."""
        return memoryview(self._gathered)[self._filled :]

    @property
    def _is_full(self) -> bool:
        return self._filled == records.RECORD_BYTES

    def add(self, count: int) -> None:
        """`count` bytes are there now. Raises Full."""
        if self.size_bytes + count > self._limit:
            raise SpoolFull(f"more than the {self._limit} bytes announced", retry_after_s=0)
        self.size_bytes += count
        self._filled += count

    def empty(self) -> None:
        """In a thread, which may have to wait for the one that stores the record before."""
        if self._writing is not None:
            self._writing.result()
        self._check()
        self._put_heard(memoryview(self._gathered)[: self._filled], last=False)
        self._filled = self._kept = 0

    async def take(self, body: BodySource, check: Callable[[], None]) -> None:
        """All of `body`. Raises what it and `check` raise, Full, and OSError."""
        self._check = check
        more = True
        while more:
            was_full = self._is_full
            more = await body.fill(self)
            check()
            if was_full and more and self._is_full:  # else it may be the last, which must be sealed as such
                await self._hand_over()

    async def _hand_over(self) -> None:
        await self.written()
        full = memoryview(self._gathered)[: self._filled]
        self._gathered, self._spare = self._spare or bytearray(records.RECORD_BYTES), self._gathered
        self._filled = self._kept = 0
        self._writing = start_in_thread(self._put_heard, full, last=False)

    async def written(self) -> None:
        """Wait for the records that are on their way. Raises Full, OSError."""
        if self._writing is not None:
            await result_of(self._writing)
            self._writing = None

    async def settle(self) -> None:
        """Wait until nobody writes any more, even when cancelled: the file is open here."""
        await wait_until_ended(self._writing)

    def flush(self, *, last: bool) -> None:
        """Write what is gathered, once all before it is written. Raises Full, OSError; nothing where that failed.

        Nobody listens to the end of a body that is not complete.
        """
        if self._writing is not None:
            self._writing.result()
        if not self._is_broken and (self._filled > self._kept or last):
            put = self._put_heard if last else self._put
            put(memoryview(self._gathered)[: self._filled], last=last)
            self._filled = 0

    def _put_heard(self, plain: memoryview, *, last: bool) -> None:
        if self._listener is not None:
            self._listener(plain)
        self._put(plain, last=last)

    def _put(self, plain: memoryview, *, last: bool) -> None:
        """Seal and write the next record. After one that could not be written none follows: it would close the gap."""
        if len(self._sealed) < records.sealed_size(len(plain)):
            self._sealed = bytearray(records.sealed_size(len(plain)))
        room = memoryview(self._sealed)
        size = records.seal(self._key.secret, self._ref, self._index, plain, room, last=last)
        try:
            _write_all(self._fd, room[:size], self._position)
        except OSError as error:
            self._is_broken = True
            os.ftruncate(self._fd, self._position)
            raise as_spool_error(error) from error
        self._index += 1
        self._position += size


class RefusingBuffer:
    """For a blob that is whole: what else comes is too much. Raises WrongOffset."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self.free = memoryview(bytearray(1))

    def add(self, count: int) -> None:
        if count:
            raise WrongOffset(self._size_bytes)

    def empty(self) -> None:
        """Nothing is in it."""


class IteratorBody:
    """A body that comes in pieces, filled into a store's room."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self.rest = memoryview(b"")
        """Of the last piece, for which there was no room."""
        self.passed = 0

    async def fill(self, room: WriteBuffer) -> bool:
        if not self.rest:
            piece = await anext(self._pieces, None)
            if piece is None:
                return False
            self.rest = memoryview(piece)
        free = room.free
        taken = min(len(self.rest), len(free))
        free[:taken] = self.rest[:taken]
        room.add(taken)
        self.rest = self.rest[taken:]
        self.passed += taken
        return True


def _write_all(fd: int, sealed: memoryview, position: int) -> None:
    if os.pwritev(fd, [sealed], position) != len(sealed):
        raise OSError(errno.ENOSPC, "short write")


def as_spool_error(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return SpoolFull("the spool's disk is full")
    return error
