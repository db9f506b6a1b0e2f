"""Bytes on their way into a blob: gathered into records, which a thread encrypts and writes."""

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
"""A last record smaller than this is continued by the next append (`BlobWriter.resume`)."""


class BlobTail(NamedTuple):
    """The end of a blob's whole records: where the next one goes."""

    number: int
    """Of the next record."""
    position: int
    """Of the next record in the file."""
    plain_size: int
    """Bytes of audio before it."""
    complete: bool
    """Whether the last record says that it is the blob's last."""
    last: records.RecordPosition | None = None

    @classmethod
    def find(cls, fd: int) -> BlobTail:
        """Of an open blob."""
        tail = cls(0, 0, 0, complete=False)
        for place in records.record_positions(fd):
            tail = cls(place.number + 1, place.end, place.plain_start + place.plain_size, place.last, place)
        return tail


class BlobWriter:
    """Gathers a body into records and writes them: a `WriteBuffer` over the record that is being filled.

    Either the event loop fills a record while a thread encrypts and writes the one before it (`_start_writing`), or the
    thread that fills them writes each when it is full (`flush`).
    """

    def __init__(
        self, fd: int, key: BlobKey, ref: str, tail: BlobTail, total: int | None, on_piece: PieceCallback | None = None
    ) -> None:
        self._fd, self._key, self._ref, self._on_piece = fd, key, ref, on_piece
        self._index, self._position = tail.number, tail.position
        self._limit = key.reserved_bytes if total is None else total
        # A small blob needs no memory for a whole record, nor does it ever fill this, whatever `resume` adds.
        most_bytes = max(0, self._limit - tail.plain_size) + _SMALL_RECORD_BYTES
        self._gathered = bytearray(min(records.RECORD_BYTES, most_bytes))
        self._spare, self._sealed = bytearray(), bytearray()
        self._filled = self._kept = 0
        self._check: Callable[[], None] = lambda: None
        self._writing: Future[None] | None = None
        self._is_broken = False
        self.size_bytes = tail.plain_size

    def resume(self, tail: BlobTail) -> None:
        """Continue the last record where it is a small one, so that many small appends make few records.

        It stays as it is until the record that replaces it is written in its place, with a nonce of its own. A kill
        in the middle of that write costs these few bytes: the client is told an earlier offset and continues there.
        """
        place = tail.last
        if place is None or place.plain_size >= _SMALL_RECORD_BYTES:
            return
        plain = records.unseal(records.read_record(self._fd, place), self._key.secret, self._ref, place)
        self._gathered[: len(plain)] = plain
        self._filled = self._kept = len(plain)
        self._index, self._position = place.number, place.position

    @property
    def free_view(self) -> memoryview:
        """The part of the record that is being filled which is free."""
        return memoryview(self._gathered)[self._filled :]

    @property
    def _is_full(self) -> bool:
        return self._filled == records.RECORD_BYTES

    def commit(self, count: int) -> None:
        """`count` more bytes are in the record. Raises SpoolFull beyond what was announced or reserved."""
        if self.size_bytes + count > self._limit:
            raise SpoolFull(f"more than the {self._limit} bytes announced", retry_after_s=0)
        self.size_bytes += count
        self._filled += count

    def flush(self) -> None:
        """In a thread: write the full record, once the one before it is written.

        Raises SpoolFull, BlobGone, OSError.
        """
        if self._writing is not None:
            self._writing.result()
        self._check()
        self._pass_on_and_write(memoryview(self._gathered)[: self._filled], last=False)
        self._filled = self._kept = 0

    async def take(self, body: BodySource, check: Callable[[], None]) -> None:
        """Take all of `body`. Raises what it and `check` raise, SpoolFull, and OSError."""
        self._check = check
        more = True
        while more:
            was_full = self._is_full
            more = await body.fill(self)
            check()
            if was_full and more and self._is_full:  # else it may be the last, which must be marked as such
                await self._start_writing()

    async def _start_writing(self) -> None:
        """Have a thread write the full record, and go on in other memory."""
        await self.wait_until_written()
        full = memoryview(self._gathered)[: self._filled]
        self._gathered, self._spare = self._spare or bytearray(records.RECORD_BYTES), self._gathered
        self._filled = self._kept = 0
        self._writing = start_in_thread(self._pass_on_and_write, full, last=False)

    async def wait_until_written(self) -> None:
        """Until no record is on its way. Raises SpoolFull, OSError."""
        if self._writing is not None:
            await result_of(self._writing)
            self._writing = None

    async def wait_until_idle(self) -> None:
        """Until no thread writes any more, even when cancelled, and whatever it raised: the file is open here."""
        await wait_until_ended(self._writing)

    def write_rest(self, *, last: bool) -> None:
        """In a thread: write what is gathered, once all before it is written; nothing where that failed.

        The end of a body that is not complete is not passed to `on_piece`: it comes again. Raises SpoolFull, OSError.
        """
        if self._writing is not None:
            self._writing.result()
        if not self._is_broken and (self._filled > self._kept or last):
            write = self._pass_on_and_write if last else self._write
            write(memoryview(self._gathered)[: self._filled], last=last)
            self._filled = 0

    def _pass_on_and_write(self, plain: memoryview, *, last: bool) -> None:
        if self._on_piece is not None:
            self._on_piece(plain)
        self._write(plain, last=last)

    def _write(self, plain: memoryview, *, last: bool) -> None:
        """Encrypt and write a record. After one that could not be written none follows, which would hide the gap."""
        if len(self._sealed) < records.sealed_size(len(plain)):
            self._sealed = bytearray(records.sealed_size(len(plain)))
        sealed = memoryview(self._sealed)
        size = records.seal(self._key.secret, self._ref, self._index, plain, sealed, last=last)
        try:
            _write_all(self._fd, sealed[:size], self._position)
        except OSError as error:
            self._is_broken = True
            os.ftruncate(self._fd, self._position)
            raise as_spool_error(error) from error
        self._index += 1
        self._position += size


class RefusingBuffer:
    """The `WriteBuffer` of a blob that is complete: takes no byte (WrongOffset)."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self.free_view = memoryview(bytearray(1))

    def commit(self, count: int) -> None:
        if count:
            raise WrongOffset(self._size_bytes)

    def flush(self) -> None:
        """It never holds anything."""


class IteratorBody:
    """The `BodySource` of a body that comes in pieces: copies them into the store's memory."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self.rest = memoryview(b"")
        """What did not fit of the last piece."""
        self.passed = 0

    async def fill(self, buffer: WriteBuffer) -> bool:
        """Copy the next piece, or what fits of it."""
        if not self.rest:
            piece = await anext(self._pieces, None)
            if piece is None:
                return False
            self.rest = memoryview(piece)
        free = buffer.free_view
        taken = min(len(self.rest), len(free))
        free[:taken] = self.rest[:taken]
        buffer.commit(taken)
        self.rest = self.rest[taken:]
        self.passed += taken
        return True


def _write_all(fd: int, sealed: memoryview, position: int) -> None:
    if os.pwritev(fd, [sealed], position) != len(sealed):
        raise OSError(errno.ENOSPC, "short write")


def as_spool_error(error: OSError) -> Exception:
    """SpoolFull for what the system says when a disk or a quota is full, else `error` itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return SpoolFull("the spool's disk is full")
    return error
