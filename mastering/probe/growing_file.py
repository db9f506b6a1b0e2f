"""A file that is decoded while it arrives over a socket: reads wait for the bytes that they need.

So the facts are known a moment after the last byte. What a decoder may come back to is kept in memory; samples that are
read once and in order are not, and need no memory however many they are.
"""

from __future__ import annotations

import fcntl
import os
import time
from mmap import mmap

from mastering.contract import Fault, FaultCode

_PIECE_BYTES = 256 * 1024
"""Read from the socket in one call: as much as the router writes in one."""


class GrowingFile:
    """A file of `len(data)` bytes that arrives by the descriptor `feed` and is kept in `data`, a mapped memory file.

    Written by the mapping, since a sandboxed process may write to no file. Without `feed` all of it is there. At most
    `most_kept_bytes` are kept.
    """

    def __init__(self, data: mmap, feed: int | None = None, most_kept_bytes: int | None = None) -> None:
        self.data, self.size = data, len(data)
        self._most_kept_bytes = self.size if most_kept_bytes is None else most_kept_bytes
        self._feed = feed
        self._arrived = self._kept = self.size if feed is None else 0
        self._flags = 0 if feed is None else fcntl.fcntl(feed, fcntl.F_GETFL)
        self.waited_s = 0.0
        """Seconds spent waiting for the sender, which are no fault of the file."""

    def wait_for(self, end: int) -> None:
        """Wait until the bytes up to `end`, or up to the file's end, have arrived.

        They are kept, unless some before them were not. Raises EOFError when the sender gave up.
        """
        end = min(end, self.size)
        while self._arrived < end:
            self._take()

    def take_arrived(self) -> None:
        """Read what has arrived meanwhile, without waiting: the sender of a slowly decoded file waits otherwise."""
        if self._feed is None or self._arrived == self.size:
            return
        # Not poll: it knows no descriptor in a process that may open none.
        fcntl.fcntl(self._feed, fcntl.F_SETFL, self._flags | os.O_NONBLOCK)
        try:
            while self._arrived < self.size:
                self._take()
        except BlockingIOError:
            return
        finally:
            fcntl.fcntl(self._feed, fcntl.F_SETFL, self._flags)

    @property
    def is_whole(self) -> bool:
        return self._arrived == self.size

    def wait_for_all(self) -> None:
        self.wait_for(self.size)

    def read_unkept(self, at: int, target: memoryview) -> int:
        """Read bytes from `at` on into `target`; how many, 0 at the file's end.

        Those that arrive now are not kept: `at` is where the call before it ended. Raises EOFError.
        """
        target = target[: self.size - at]
        if at < self._kept:
            target = target[: self._kept - at]
            target[:] = memoryview(self.data)[at : at + len(target)]
            return len(target)
        count = self._read(target) if target else 0
        self._arrived += count
        return count

    def _take(self) -> None:
        if self._arrived > self._kept:
            self._arrived += self._read(memoryview(bytearray(min(_PIECE_BYTES, self.size - self._arrived))))
        else:
            if self._kept >= self._most_kept_bytes:
                raise Fault(FaultCode.INTERNAL, "The file is too large to be checked while it arrives.")
            self._arrived += self._read(memoryview(self.data)[self._kept : self._kept + _PIECE_BYTES])
            self._kept = self._arrived

    def _read(self, target: memoryview) -> int:
        assert self._feed is not None  # noqa: S101 - without a feed everything has arrived
        began = time.monotonic()
        count = os.readv(self._feed, [target])  # not recv: the system call filter knows no other
        self.waited_s += time.monotonic() - began
        if not count:
            raise EOFError
        return count


class GrowingFileReader:
    """An unbuffered file object for a decoder that reads and seeks by itself. Reads wait for their bytes.

    The decoder sees the file from `start` to `end`.
    """

    def __init__(self, file: GrowingFile, start: int, end: int) -> None:
        self._file, self._start, self._end = file, start, end
        self._at = start

    def read(self, size: int) -> bytes:
        size = max(0, min(size, self._end - self._at))
        self._file.wait_for(self._at + size)
        self._file.take_arrived()
        data = self._file.data[self._at : self._at + size]
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(self._start, base + offset)
        return self.tell()

    def tell(self) -> int:
        return self._at - self._start
