"""The blobs' port in memory: unencrypted, gone with the process, and as strict as the spool on a disk."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from router.core import clock
from router.core.buffers import BodySource
from router.core.threads import run_in_thread
from router.spool import records
from router.spool.port import BlobGone, Extent, PieceCallback, SpoolFull, SpoolUsage, WrongOffset
from router.spool.writer import IteratorBody, RefusingBuffer

_PIECE_BYTES = records.RECORD_BYTES
"""Stored, passed on and read at a time."""


@dataclass
class _Blob:
    expires_s: float
    reserved_bytes: int
    created_s: float = field(default_factory=clock.now)
    data: bytearray = field(default_factory=bytearray)
    is_complete: bool = False

    @property
    def extent(self) -> Extent:
        return Extent(len(self.data), self.is_complete)


class MemoryBlobs:
    """A store of blobs in RAM, unencrypted, for tests: at most `quota_bytes` in all."""

    def __init__(self, quota_bytes: int) -> None:
        self._quota_bytes = quota_bytes
        self._blobs: dict[str, _Blob] = {}
        self._receiving: set[str] = set()

    async def reserve(self, size_bytes: int, expires_s: float, beside: str | None = None) -> str:
        self._refuse_unless_room(size_bytes)
        folder = beside.split("/")[0] if beside else secrets.token_hex(16)
        ref = f"{folder}/{secrets.token_hex(8)}"
        self._blobs[ref] = _Blob(expires_s, size_bytes)
        return ref

    async def append(
        self,
        ref: str,
        offset: int,
        body: AsyncIterator[bytes] | BodySource,
        total: int | None,
        on_piece: PieceCallback | None = None,
    ) -> Extent:
        blob = self._alive(ref)
        if len(blob.data) != offset:
            raise WrongOffset(len(blob.data))
        source = IteratorBody(body) if isinstance(body, AsyncIterator) else body
        if blob.is_complete:
            while await source.fill(RefusingBuffer(offset)):
                pass
            return blob.extent
        if total is not None and total > blob.reserved_bytes:
            self._refuse_unless_room(total - blob.reserved_bytes)
            blob.reserved_bytes = total
        writer = _Writer(blob, blob.reserved_bytes if total is None else total, on_piece)
        self._receiving.add(ref)
        try:
            while await source.fill(writer):
                self._refuse_unless_same(ref, blob)
                if not writer.free_view:
                    await run_in_thread(writer.flush)
            self._refuse_unless_same(ref, blob)
        except BlobGone:
            raise
        except BaseException:
            writer.keep()
            raise
        finally:
            self._receiving.discard(ref)
        blob.is_complete = total is None or writer.size_bytes == total
        if not blob.is_complete:
            writer.keep()
            return blob.extent
        await run_in_thread(writer.flush)
        blob.reserved_bytes = len(blob.data)
        return blob.extent

    async def extent(self, ref: str) -> Extent:
        return self._alive(ref).extent

    async def read(self, ref: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        with self.open_reader(ref, start, end) as reader:
            while piece := reader.next_piece():
                yield bytes(piece)

    @contextmanager
    def open_reader(self, ref: str, start: int, end: int | None) -> Iterator[_Reader]:
        blob = self._alive(ref)
        yield _Reader(self, ref, blob, start, len(blob.data) if end is None else end)

    async def drop(self, ref: str) -> None:
        self._blobs.pop(ref, None)

    async def reconcile(self, alive: Collection[str]) -> int:
        orphans = self._blobs.keys() - set(alive)
        for ref in orphans:
            await self.drop(ref)
        return len(orphans)

    def is_receiving(self, ref: str) -> bool:
        return ref in self._receiving

    def reserved_bytes_of(self, ref: str) -> int:
        return self._blobs[ref].reserved_bytes if ref in self._blobs else 0

    def bytes_to_free(self, size_bytes: int) -> int:
        return max(0, sum(blob.reserved_bytes for blob in self._blobs.values()) + size_bytes - self._quota_bytes)

    def expired(self) -> list[str]:
        now = clock.now()
        return [ref for ref, blob in self._blobs.items() if blob.expires_s <= now]

    def usage(self) -> SpoolUsage:
        blobs = self._blobs.values()
        oldest = clock.now() - min(blob.created_s for blob in blobs) if blobs else None
        return SpoolUsage(sum(blob.reserved_bytes for blob in blobs), self._quota_bytes, len(blobs), oldest)

    def _refuse_unless_room(self, wanted_bytes: int) -> None:
        if missing := self.bytes_to_free(wanted_bytes):
            raise SpoolFull(f"{missing} bytes are missing of the quota")

    def _alive(self, ref: str) -> _Blob:
        blob = self._blobs.get(ref)
        if blob is None or clock.now() >= blob.expires_s:
            raise BlobGone(ref)
        return blob

    def _refuse_unless_same(self, ref: str, blob: _Blob) -> None:
        if self._alive(ref) is not blob:
            raise BlobGone(ref)


class _Writer:
    """A `WriteBuffer` that gathers a body into pieces."""

    def __init__(self, blob: _Blob, limit_bytes: int, on_piece: PieceCallback | None) -> None:
        self._blob, self._limit_bytes, self._on_piece = blob, limit_bytes, on_piece
        self._gathered, self._filled = bytearray(_PIECE_BYTES), 0
        self.size_bytes = len(blob.data)

    @property
    def free_view(self) -> memoryview:
        return memoryview(self._gathered)[self._filled :]

    def commit(self, count: int) -> None:
        if self.size_bytes + count > self._limit_bytes:
            raise SpoolFull(f"more than the {self._limit_bytes} bytes announced", retry_after_s=0)
        self.size_bytes += count
        self._filled += count

    def flush(self) -> None:
        """In a thread: pass on what is gathered, and store it."""
        if self._on_piece is not None:
            self._on_piece(memoryview(self._gathered)[: self._filled])
        self.keep()

    def keep(self) -> None:
        """Store what is gathered of a body that will be continued."""
        self._blob.data += self._gathered[: self._filled]
        self._filled = 0


class _Reader:
    """A `ReadBuffer` over a part of a blob."""

    def __init__(self, blobs: MemoryBlobs, ref: str, blob: _Blob, start: int, end: int) -> None:
        self._blobs, self._ref, self._blob, self._at, self._end = blobs, ref, blob, start, end

    def next_piece(self) -> memoryview:
        if self._at >= self._end:
            return memoryview(b"")
        self.check_available()
        # Pieces end where the stored ones do, so that each is one that came.
        until = min(self._end, (self._at // _PIECE_BYTES + 1) * _PIECE_BYTES)
        piece = memoryview(bytes(self._blob.data[self._at : until]))
        self._at = until
        return piece

    def check_available(self) -> None:
        self._blobs._refuse_unless_same(self._ref, self._blob)
