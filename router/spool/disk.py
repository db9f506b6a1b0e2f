"""The spool of one machine: ciphertext in a folder per job with random names, keys in RAM (`keys`).

The file system may hold the ciphertext on any disk; a copy, a snapshot or an undeleted block of it is noise once the
key is gone. Only whole records are ever visible: a crash leaves at most a torn tail, which the next writer cuts off.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from router import clock
from router.spool import incarnation, records
from router.spool.keys import Key, KeyRing
from router.spool.port import Extent, Full, Gone, WrongOffset

P = ParamSpec("P")
T = TypeVar("T")
_SMALL_RECORD_BYTES = 64 * 1024
_REF = re.compile(r"[0-9a-f]{32}/[0-9a-f]{16}")


class Usage(NamedTuple):
    reserved_bytes: int
    quota_bytes: int
    blobs: int
    oldest_s: float | None
    """Age of the oldest blob in seconds."""


class Spool:
    """Blobs on this machine's disk. One process at a time owns a spool."""

    def __init__(self, root: Path, keys: Path, quota_bytes: int) -> None:
        self._root = root
        self._keys = KeyRing(keys)
        self._quota_bytes = quota_bytes
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / incarnation.CACHEDIR_TAG).write_text(incarnation.TAG_TEXT)
        self._reserved = {ref: self._keys.get(ref).reserved_bytes for ref in self._keys.refs()}
        self._incomplete = set(self._reserved)
        """Blobs whose room may not be written yet, so that the disk does not know of it."""
        self._taking: set[str] = set()
        """Blobs that are being appended to."""
        self._returning_bytes = 0
        """Of removed files whose blocks the disk is about to have back."""

    async def reserve(self, size_bytes: int, expires_s: float, beside: str | None = None) -> str:
        room = records.sealed_size(size_bytes)
        self._refuse_unless_room(room)
        folder = beside.split("/")[0] if beside else secrets.token_hex(16)
        ref = f"{folder}/{secrets.token_hex(8)}"
        try:
            self._keys.make(ref, expires_s, room)
            self._reserved[ref] = room
            self._incomplete.add(ref)
            (self._root / folder).mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(self._path(ref), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            await self.drop(ref)
            raise _full(error) from error
        return ref

    async def append(self, ref: str, offset: int, body: AsyncIterator[bytes], total: int | None) -> Extent:
        key = self._live_key(ref)
        with self._open(ref, os.O_RDWR) as fd, self._noted(ref):
            tail = _Tail.find(fd)
            if tail.plain_size != offset:
                raise WrongOffset(tail.plain_size)
            if tail.complete:  # all had arrived when the answer was lost; there is nothing to add
                if any([len(chunk) async for chunk in body]):
                    raise WrongOffset(tail.plain_size)
                return Extent(tail.plain_size, complete=True)
            key = self._widened(ref, key, total)
            os.ftruncate(fd, tail.position)
            writer = _Writer(fd, key, ref, tail, total)
            writer.resume(tail)
            try:
                async for chunk in body:
                    self._refuse_unless_alive(ref, key)  # dropped or expired meanwhile: not a byte more is taken
                    await writer.write(chunk)
                await writer.written()
            except Gone:
                await writer.settle()
                raise
            except BaseException:
                # The connection broke or the upload was taken over: keep what came.
                await writer.settle()
                with contextlib.suppress(Full):
                    writer.flush(last=False)
                raise
            return await self._end(writer, ref, total)

    @contextmanager
    def _noted(self, ref: str) -> Iterator[None]:
        self._taking.add(ref)
        try:
            yield
        finally:
            self._taking.discard(ref)

    def is_taking(self, ref: str) -> bool:
        """Whether bytes for this blob are on their way, though none may rest here yet."""
        return ref in self._taking

    def room_of(self, ref: str) -> int:
        """What is reserved for the blob; 0 when it is gone."""
        return self._reserved.get(ref, 0)

    async def _end(self, writer: _Writer, ref: str, total: int | None) -> Extent:
        complete = total is None or writer.size_bytes == total
        await _in_thread(writer.flush, last=complete)
        if complete:
            self._incomplete.discard(ref)
            self._reserved[ref] = self._keys.change(
                ref, reserved_bytes=records.sealed_size(writer.size_bytes)
            ).reserved_bytes
        return Extent(writer.size_bytes, complete)

    async def extent(self, ref: str) -> Extent:
        self._live_key(ref)
        with self._open(ref, os.O_RDONLY) as fd:
            tail = _Tail.find(fd)
        return Extent(tail.plain_size, tail.complete)

    async def read(self, ref: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        with self._open(ref, os.O_RDONLY) as fd:
            tail = _Tail.find(fd)
            limit = tail.plain_size if end is None else end
            wanted = (p for p in records.walk(fd) if p.plain_start + p.plain_size > start and p.plain_start < limit)
            ahead: asyncio.Future[bytes] | None = None
            try:
                place = next(wanted, None)
                while place is not None:
                    plain = await (ahead or self._unsealing(fd, ref, place))
                    following = next(wanted, None)
                    ahead = None if following is None else self._unsealing(fd, ref, following)
                    # Looked up anew for each record: a blob that is dropped or expires half-way stops here.
                    self._live_key(ref)
                    first, stop = max(0, start - place.plain_start), min(len(plain), limit - place.plain_start)
                    yield plain[first:stop] if (first, stop) != (0, len(plain)) else plain
                    place = following
            finally:
                await _settled(ahead)
            if not tail.complete and (end is None or tail.plain_size < end):
                raise records.Corrupt("the end of the blob is missing")

    def _unsealing(self, fd: int, ref: str, place: records.Place) -> asyncio.Future[bytes]:
        """The next record, opened in a thread while the last one is on its way out. Raises Gone."""
        return asyncio.ensure_future(asyncio.to_thread(records.unseal, fd, self._live_key(ref).secret, ref, place))

    async def drop(self, ref: str) -> None:
        self._keys.destroy(ref)
        self._reserved.pop(ref, None)
        self._incomplete.discard(ref)
        path = self._path(ref)
        self._remove(path)
        with contextlib.suppress(OSError):  # other blobs of the job still lie there, or it is gone already
            path.parent.rmdir()

    def _remove(self, path: Path) -> None:
        """Take the file away; to free its blocks takes tens of milliseconds, which a thread does."""
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
        """Blobs whose time is over; unreadable already."""
        now = clock.now()
        return [ref for ref in self._keys.refs() if self._keys.get(ref).expires_s <= now]

    async def reconcile(self, alive: Collection[str]) -> int:
        """Drop every blob that no job names, and every file without a key. Returns how many went."""
        keys, files = set(self._keys.refs()), set(self._files())
        orphans = ((keys | files) - set(alive)) | (files - keys)
        for ref in orphans:
            await self.drop(ref)
        for folder in self._root.iterdir():
            if folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return len(orphans)

    def missing_bytes(self, size_bytes: int) -> int:
        """How much must go before there is room for a blob of that size; 0 when there is already."""
        return self._missing(records.sealed_size(size_bytes))

    def _missing(self, room: int) -> int:
        """Beyond the quota, or beyond half of what the disk has left; room that is promised counts as taken."""
        promised = sum(self._reserved[ref] for ref in self._incomplete)
        free = shutil.disk_usage(self._root).free + self._returning_bytes - promised
        return max(0, sum(self._reserved.values()) + room - self._quota_bytes, 2 * room - free)

    def _refuse_unless_room(self, room: int) -> None:
        if missing := self._missing(room):
            raise Full(f"{missing} bytes are missing, of the quota or of twice the room on the disk")

    def _widened(self, ref: str, key: Key, total: int | None) -> Key:
        """The blob's key with room for all of `total`, should more have been announced since it was made."""
        room = 0 if total is None else records.sealed_size(total)
        if room <= key.reserved_bytes:
            return key
        self._refuse_unless_room(room - key.reserved_bytes)
        self._reserved[ref] = room
        return self._keys.change(ref, reserved_bytes=room)

    def usage(self) -> Usage:
        born = [self._keys.get(ref).created_s for ref in self._keys.refs()]
        oldest = clock.now() - min(born) if born else None
        return Usage(sum(self._reserved.values()), self._quota_bytes, len(self._reserved), oldest)

    def _files(self) -> Iterator[str]:
        names = (f"{path.parent.name}/{path.name}" for path in self._root.glob("*/*"))
        return filter(_REF.fullmatch, names)

    def _live_key(self, ref: str) -> Key:
        self._path(ref)
        key = self._keys.get(ref)
        if clock.now() >= key.expires_s:
            raise Gone(ref)
        return key

    def _refuse_unless_alive(self, ref: str, key: Key) -> None:
        """As `_live_key`, from what this process knows: asked for every chunk. Raises Gone."""
        if ref not in self._reserved or clock.now() >= key.expires_s:
            raise Gone(ref)

    def _path(self, ref: str) -> Path:
        if not _REF.fullmatch(ref):
            raise Gone("not a reference")
        return self._root / ref

    @contextmanager
    def _open(self, ref: str, flags: int) -> Iterator[int]:
        try:
            fd = os.open(self._path(ref), flags)
        except FileNotFoundError:
            raise Gone(ref) from None
        try:
            yield fd
        finally:
            os.close(fd)


class _Tail(NamedTuple):
    """Where the whole records of a blob end."""

    number: int
    position: int
    plain_size: int
    complete: bool
    last: records.Place | None = None

    @classmethod
    def find(cls, fd: int) -> _Tail:
        tail = cls(0, 0, 0, complete=False)
        for place in records.walk(fd):
            tail = cls(place.number + 1, place.end, place.plain_start + place.plain_size, place.last, place)
        return tail


class _Writer:
    """Gathers chunks into records: one is filled while the one before it is sealed and written in a thread."""

    def __init__(self, fd: int, key: Key, ref: str, tail: _Tail, total: int | None) -> None:
        self._fd, self._key, self._ref = fd, key, ref
        self._index, self._position = tail.number, tail.position
        self._limit = key.reserved_bytes if total is None else total
        self._record, self._spare = bytearray(records.RECORD_BYTES), bytearray(records.RECORD_BYTES)
        self._filled = self._kept = 0
        self._writing: asyncio.Future[None] | None = None
        self._is_broken = False
        self.size_bytes = tail.plain_size

    def resume(self, tail: _Tail) -> None:
        """Go on in the last record where it is a small one, so that many small appends make few records.

        It stays as it is until the record that replaces it is written in its place, with a nonce of its own. A kill
        in the middle of that write costs these few bytes: the client hears of an earlier offset and goes on there.
        """
        place = tail.last
        if place is None or place.plain_size >= _SMALL_RECORD_BYTES:
            return
        plain = records.unseal(self._fd, self._key.secret, self._ref, place)
        self._record[: len(plain)] = plain
        self._filled = self._kept = len(plain)
        self._index, self._position = place.number, place.position

    async def write(self, chunk: bytes) -> None:
        """Raises Full, OSError; also for what an earlier call began."""
        if self.size_bytes + len(chunk) > self._limit:
            raise Full(f"more than the {self._limit} bytes announced", retry_after_s=0)
        self.size_bytes += len(chunk)
        rest = memoryview(chunk)
        while rest:
            if self._filled == records.RECORD_BYTES:
                await self._hand_over()
            taken = min(len(rest), records.RECORD_BYTES - self._filled)
            self._record[self._filled : self._filled + taken] = rest[:taken]
            self._filled += taken
            rest = rest[taken:]

    async def _hand_over(self) -> None:
        await self.written()
        full, self._record, self._spare = self._record, self._spare, self._record
        self._filled = self._kept = 0
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._put, memoryview(full), last=False))

    async def written(self) -> None:
        """Wait for the record that is on its way. Raises Full, OSError."""
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    async def settle(self) -> None:
        """Wait until nobody writes any more, even when cancelled: the file is open here."""
        await _settled(self._writing)

    def flush(self, *, last: bool) -> None:
        """Write what is gathered, once all before it is written. Raises Full, OSError; nothing where that failed."""
        if self._writing is not None:
            self._writing.result()
        if not self._is_broken and (self._filled > self._kept or last):
            with memoryview(self._record) as record:
                self._put(record[: self._filled], last=last)
            self._filled = 0

    def _put(self, plain: memoryview, *, last: bool) -> None:
        """Seal and write the next record. After one that could not be written none follows: it would close a gap."""
        record = records.seal(self._key.secret, self._ref, self._index, plain, last=last)
        try:
            written = _write_all(self._fd, record, self._position)
        except OSError as error:
            self._is_broken = True
            os.ftruncate(self._fd, self._position)
            raise _full(error) from error
        self._index += 1
        self._position += written


def _write_all(fd: int, parts: Sequence[bytes], position: int) -> int:
    written = os.pwritev(fd, parts, position)
    if written != sum(map(len, parts)):
        raise OSError(errno.ENOSPC, "short write")
    return written


async def _in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `call` in a thread and, even when cancelled, come back only when it has ended: it uses an open file."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await _settled(running)
        raise


async def _settled(running: asyncio.Future[T] | None) -> None:
    """Come back when it has ended, whoever cancels the wait, and however it ended."""
    while running is not None and not running.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([running])
    if running is not None and not running.cancelled():
        running.exception()


def _full(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Full("the spool's disk is full")
    return error
