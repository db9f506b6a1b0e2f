"""The spool of one machine: encrypted blobs in a folder per job with random names, keys in RAM (`keys`).

The encrypted bytes may lie on any disk; a copy, a snapshot or an undeleted block of them is noise once the key is gone.
Only whole records are ever visible: a crash leaves at most half a record at the end, which the next writer cuts off.
(Over 250 lines, because a blob's whole life is in one place; `writer` has how its bytes get in, `reader` how out.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from router.core import clock
from router.core.buffers import BodySource
from router.core.threads import run_in_thread
from router.spool import boot_id, records
from router.spool.keys import BlobKey, KeyRing
from router.spool.port import BlobGone, Extent, PieceCallback, SpoolFull, SpoolUsage, WrongOffset
from router.spool.reader import BlobReader
from router.spool.writer import BlobTail, BlobWriter, IteratorBody, RefusingBuffer, as_spool_error

_REF = re.compile(r"[0-9a-f]{32}/[0-9a-f]{16}")


class Spool:
    """Blobs on this machine's disk. One process at a time owns a spool."""

    def __init__(self, root: Path, keys: Path, quota_bytes: int) -> None:
        self._root = root
        self._keys = KeyRing(keys)
        self._quota_bytes = quota_bytes
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / boot_id.CACHEDIR_TAG).write_text(boot_id.TAG_TEXT)
        self._reserved = {ref: self._keys.get(ref).reserved_bytes for ref in self._keys.refs()}
        self._incomplete = set(self._reserved)
        """Blobs that are not complete: the disk does not know of all the bytes that they may yet take."""
        self._receiving: set[str] = set()
        """Blobs that are being appended to."""
        self._returning_bytes = 0
        """Of removed files whose blocks the file system is still freeing."""

    async def reserve(self, size_bytes: int, expires_s: float, beside: str | None = None) -> str:
        sealed_bytes = records.sealed_size(size_bytes)
        self._refuse_unless_room(sealed_bytes)
        folder = beside.split("/")[0] if beside else secrets.token_hex(16)
        ref = f"{folder}/{secrets.token_hex(8)}"
        try:
            self._keys.make(ref, expires_s, sealed_bytes)
            self._reserved[ref] = sealed_bytes
            self._incomplete.add(ref)
            (self._root / folder).mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(self._path(ref), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            await self.drop(ref)
            raise as_spool_error(error) from error
        return ref

    async def append(
        self,
        ref: str,
        offset: int,
        body: AsyncIterator[bytes] | BodySource,
        total: int | None,
        on_piece: PieceCallback | None = None,
    ) -> Extent:
        key = self._live_key(ref)
        source = IteratorBody(body) if isinstance(body, AsyncIterator) else body
        with self._open(ref, os.O_RDWR) as fd, self._noted(ref):
            tail = BlobTail.find(fd)
            if tail.plain_size != offset:
                raise WrongOffset(tail.plain_size)
            if tail.complete:  # all had arrived when the answer was lost; there is nothing to add
                refusing = RefusingBuffer(tail.plain_size)
                while await source.fill(refusing):
                    pass
                return Extent(tail.plain_size, complete=True)
            key = self._widened(ref, key, total)
            if os.fstat(fd).st_size > tail.position:  # ext4 writes a file out at once that was cut, be it at its end
                os.ftruncate(fd, tail.position)
            writer = BlobWriter(fd, key, ref, tail, total, on_piece)
            writer.resume(tail)
            try:
                # Dropped or expired meanwhile: not a byte more is taken.
                await writer.take(source, lambda: self._refuse_unless_alive(ref, key))
                await writer.wait_until_written()
            except BlobGone:
                await writer.wait_until_idle()
                raise
            except BaseException:
                # The connection broke or the upload goes on by another one: keep what came.
                await writer.wait_until_idle()
                with contextlib.suppress(SpoolFull):
                    writer.write_rest(last=False)
                raise
            return await self._end(writer, ref, total)

    @contextmanager
    def _noted(self, ref: str) -> Iterator[None]:
        self._receiving.add(ref)
        try:
            yield
        finally:
            self._receiving.discard(ref)

    def is_receiving(self, ref: str) -> bool:
        return ref in self._receiving

    def reserved_bytes_of(self, ref: str) -> int:
        return self._reserved.get(ref, 0)

    async def _end(self, writer: BlobWriter, ref: str, total: int | None) -> Extent:
        complete = total is None or writer.size_bytes == total
        await run_in_thread(writer.write_rest, last=complete)
        if complete:
            self._incomplete.discard(ref)
            self._reserved[ref] = self._keys.change(
                ref, reserved_bytes=records.sealed_size(writer.size_bytes)
            ).reserved_bytes
        return Extent(writer.size_bytes, complete)

    async def extent(self, ref: str) -> Extent:
        self._live_key(ref)
        with self._open(ref, os.O_RDONLY) as fd:
            tail = BlobTail.find(fd)
        return Extent(tail.plain_size, tail.complete)

    async def read(self, ref: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        with self.open_reader(ref, start, end) as reader:
            async for piece in reader.pieces():
                yield piece

    @contextmanager
    def open_reader(self, ref: str, start: int, end: int | None) -> Iterator[BlobReader]:
        with self._open(ref, os.O_RDONLY) as fd:
            key = self._live_key(ref)
            with closing(BlobReader(fd, key, ref, start, end, lambda: self._refuse_unless_alive(ref, key))) as reader:
                yield reader

    async def drop(self, ref: str) -> None:
        self._keys.destroy(ref)
        self._reserved.pop(ref, None)
        self._incomplete.discard(ref)
        path = self._path(ref)
        self._remove(path)
        with contextlib.suppress(OSError):  # other blobs of the job still lie there, or it is gone already
            path.parent.rmdir()

    def _remove(self, path: Path) -> None:
        """Unlink the file; to free its blocks takes tens of milliseconds, so a thread closes the last descriptor."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return
        path.unlink(missing_ok=True)
        size = os.fstat(fd).st_size
        self._returning_bytes += size

        def returned(_: object) -> None:
            self._returning_bytes -= size

        asyncio.get_running_loop().run_in_executor(None, os.close, fd).add_done_callback(returned)

    def expired(self) -> list[str]:
        now = clock.now()
        return [ref for ref in self._keys.refs() if self._keys.get(ref).expires_s <= now]

    async def reconcile(self, alive: Collection[str]) -> int:
        keys, files = set(self._keys.refs()), set(self._files())
        orphans = ((keys | files) - set(alive)) | (files - keys)
        for ref in orphans:
            await self.drop(ref)
        for folder in self._root.iterdir():
            if folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return len(orphans)

    def bytes_to_free(self, size_bytes: int) -> int:
        return self._missing(records.sealed_size(size_bytes))

    def _missing(self, wanted_bytes: int) -> int:
        """What is wanted beyond the quota, or beyond half of what the disk has left beside what is reserved."""
        promised = sum(self._reserved[ref] for ref in self._incomplete)
        free = shutil.disk_usage(self._root).free + self._returning_bytes - promised
        return max(0, sum(self._reserved.values()) + wanted_bytes - self._quota_bytes, 2 * wanted_bytes - free)

    def _refuse_unless_room(self, wanted_bytes: int) -> None:
        if missing := self._missing(wanted_bytes):
            raise SpoolFull(f"{missing} bytes are missing, of the quota or of twice the room on the disk")

    def _widened(self, ref: str, key: BlobKey, total: int | None) -> BlobKey:
        """The blob's key with all of `total` reserved, should more have been announced since it was made."""
        sealed_bytes = 0 if total is None else records.sealed_size(total)
        if sealed_bytes <= key.reserved_bytes:
            return key
        self._refuse_unless_room(sealed_bytes - key.reserved_bytes)
        self._reserved[ref] = sealed_bytes
        return self._keys.change(ref, reserved_bytes=sealed_bytes)

    def usage(self) -> SpoolUsage:
        born = [self._keys.get(ref).created_s for ref in self._keys.refs()]
        oldest = clock.now() - min(born) if born else None
        return SpoolUsage(sum(self._reserved.values()), self._quota_bytes, len(self._reserved), oldest)

    def _files(self) -> Iterator[str]:
        names = (f"{path.parent.name}/{path.name}" for path in self._root.glob("*/*"))
        return filter(_REF.fullmatch, names)

    def _live_key(self, ref: str) -> BlobKey:
        self._path(ref)
        key = self._keys.get(ref)
        if clock.now() >= key.expires_s:
            raise BlobGone(ref)
        return key

    def _refuse_unless_alive(self, ref: str, key: BlobKey) -> None:
        """As `_live_key`, without a read of the key's file: asked for every chunk and record. Raises BlobGone."""
        if ref not in self._reserved or clock.now() >= key.expires_s:
            raise BlobGone(ref)

    def _path(self, ref: str) -> Path:
        if not _REF.fullmatch(ref):
            raise BlobGone("not a reference")
        return self._root / ref

    @contextmanager
    def _open(self, ref: str, flags: int) -> Iterator[int]:
        try:
            fd = os.open(self._path(ref), flags)
        except FileNotFoundError:
            raise BlobGone(ref) from None
        try:
            yield fd
        finally:
            os.close(fd)
