"""The bytes of a request as they arrive: whole already, or still coming while they are heard.

A recording that is decoded while it arrives is judged a moment after its last byte. What a decoder may come back to is
kept; samples that are looked at once and in order pass by, and need no memory however many they are.
"""

from __future__ import annotations

import fcntl
import os
import time
from mmap import mmap

from mastering.contract import Fault, FaultCode

_PIECE_BYTES = 256 * 1024


class Arriving:
    """The file of `len(data)` bytes that comes by the descriptor `feed` and is kept in `data`, the whole of a memory
    file mapped to be written. Without `feed` all of it is there.

    By the mapping, since a process that is locked up may write to no file.
    """

    def __init__(self, data: mmap, feed: int | None = None, most_kept_bytes: int | None = None) -> None:
        self.data, self.size = data, len(data)
        self._most_kept_bytes = self.size if most_kept_bytes is None else most_kept_bytes
        self._feed = feed
        self._come = self._kept = self.size if feed is None else 0
        self._flags = 0 if feed is None else fcntl.fcntl(feed, fcntl.F_GETFL)
        self.waited_s = 0.0
        """Spent waiting for the caller, which is no fault of the file."""

    def need(self, end: int) -> None:
        """Return when the bytes up to `end`, or up to the file's end, have come; they are kept, unless some before them
        passed by. Raises EOFError when the caller gave up."""
        end = min(end, self.size)
        while self._come < end:
            self._take()

    def keep_up(self) -> None:
        """Take what has come meanwhile, for whoever decodes slowly: the sender waits while nobody reads."""
        if self._feed is None or self._come == self.size:
            return
        # Not poll: it knows no descriptor in a process that may open none.
        fcntl.fcntl(self._feed, fcntl.F_SETFL, self._flags | os.O_NONBLOCK)
        try:
            while self._come < self.size:
                self._take()
        except BlockingIOError:
            return
        finally:
            fcntl.fcntl(self._feed, fcntl.F_SETFL, self._flags)

    @property
    def is_whole(self) -> bool:
        return self._come == self.size

    def need_all(self) -> None:
        self.need(self.size)

    def pass_by(self, at: int, room: memoryview) -> int:
        """Put bytes from `at` on into `room`; how many, 0 at the file's end. Those that come now are not kept: `at` is
        where the call before it ended. Raises EOFError."""
        room = room[: self.size - at]
        if at < self._kept:
            room = room[: self._kept - at]
            room[:] = memoryview(self.data)[at : at + len(room)]
            return len(room)
        count = self._read(room) if room else 0
        self._come += count
        return count

    def _take(self) -> None:
        if self._come > self._kept:
            self._come += self._read(memoryview(bytearray(min(_PIECE_BYTES, self.size - self._come))))
        else:
            if self._kept >= self._most_kept_bytes:
                raise Fault(FaultCode.INTERNAL, "The file is too large to be heard on its way.")
            self._come += self._read(memoryview(self.data)[self._kept : self._kept + _PIECE_BYTES])
            self._kept = self._come

    def _read(self, room: memoryview) -> int:
        assert self._feed is not None  # noqa: S101 - without a feed everything has come
        began = time.monotonic()
        count = os.readv(self._feed, [room])  # not recv: the system call filter knows no other
        self.waited_s += time.monotonic() - began
        if not count:
            raise EOFError
        return count


class Growing:
    """An unbuffered file for a decoder that reads and seeks by itself."""

    def __init__(self, arriving: Arriving) -> None:
        self._arriving = arriving
        self._at = 0

    def read(self, size: int) -> bytes:
        self._arriving.need(self._at + size)
        self._arriving.keep_up()
        data = self._arriving.data[self._at : self._at + size]
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._arriving.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at
