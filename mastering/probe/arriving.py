"""The bytes of a request as they arrive: whole already, or still coming while they are heard.

A recording that is decoded while it arrives is judged a moment after its last byte. Whoever reads a stretch asks for it
here first; the call returns when the stretch is there.
"""

from __future__ import annotations

import os
import struct
import time
from mmap import mmap

COUNT = struct.Struct("!Q")
"""How many bytes of the memory file are filled, as the caller tells it from time to time."""


class Arriving:
    """A memory file, mapped as `data` and filled from its start. `news` is the descriptor on which COUNTs come."""

    def __init__(self, data: mmap, news: int | None = None) -> None:
        self.data, self.size = data, len(data)
        self._news = news
        self._arrived = self.size if news is None else 0
        self._heard = b""
        self.waited_s = 0.0
        """Spent waiting for the caller, which is no fault of the file."""

    def need(self, end: int) -> None:
        """Return when the bytes up to `end` (or up to the file's end) are there. Raises EOFError when the caller
        gave up."""
        end = min(end, self.size)
        if self._arrived >= end:
            return
        began = time.monotonic()
        while self._arrived < end:
            self._arrived = self._next_count()
        self.waited_s += time.monotonic() - began

    def need_all(self) -> None:
        self.need(self.size)

    def _next_count(self) -> int:
        assert self._news is not None  # noqa: S101 - without news everything is there
        while len(self._heard) < COUNT.size:
            # read, not recv: the system call filter knows no other.
            piece = os.read(self._news, 4096)
            if not piece:
                raise EOFError
            self._heard += piece
        whole = len(self._heard) // COUNT.size * COUNT.size
        (count,) = COUNT.unpack(self._heard[whole - COUNT.size : whole])
        self._heard = self._heard[whole:]
        return int(count)


class Growing:
    """An unbuffered file for a decoder that reads and seeks by itself."""

    def __init__(self, source: int, arriving: Arriving) -> None:
        self._source, self._arriving = source, arriving
        self._at = 0

    def read(self, size: int) -> bytes:
        self._arriving.need(self._at + size)
        data = os.pread(self._source, size, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._arriving.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at
