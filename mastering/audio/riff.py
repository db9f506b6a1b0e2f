"""Chunks of RIFF and FORM files: the one reader of WAV's and AIFF's structure.

Sources: RIFF/WAVE (Multimedia Programming Interface 1.0), EBU Tech 3306 (RF64), AIFF-C (1991).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO, Protocol

UNKNOWN_SIZES = (0, 0xFFFFFFFF)
"""What a writer that could not seek back leaves as the size of its audio."""
_MAX_CHUNKS = 4096
"""An honest file has a dozen; a file of empty chunks must not keep its reader busy."""
_HEAD_BYTES = 16 * 1024
"""Where the audio of a WAV must begin to be found by `last_wav_audio`: tags before it are rarely larger."""


class RandomAccessBytes(Protocol):
    """Bytes of which any stretch can be had: bytes, an mmap, or a file by `FileBytes`."""

    def __len__(self) -> int: ...

    def __getitem__(self, stretch: slice, /) -> bytes: ...


class FileBytes:
    """The bytes of an open file, read where they are asked for: a song need not fit into memory, nor be mapped.

    Moves the file's position. Its length is taken once.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, file.seek(0, io.SEEK_END)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, stretch: slice, /) -> bytes:
        start, stop, _ = stretch.indices(self._size)
        self._file.seek(start)
        return self._file.read(max(0, stop - start))


def wav_chunks(data: RandomAccessBytes | memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte of the content and size of each chunk of a WAV, as far as it is there.

    The audio of an RF64, which says in its own place that its size is unknown, has the size that its ds64 chunk tells.
    """
    long_size = 0xFFFFFFFF
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        name, size = struct.unpack("<4sI", data[at : at + 8])
        if name == b"ds64" and at + 24 <= len(data):
            (long_size,) = struct.unpack("<Q", data[at + 16 : at + 24])
        if name == b"data" and size == 0xFFFFFFFF:
            size = long_size
        yield name, at + 8, size
        at += 8 + size + size % 2


def aiff_chunks(data: RandomAccessBytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte of the content and size of each chunk of an AIFF, as far as it is there."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        name, size = struct.unpack(">4sI", data[at : at + 8])
        yield name, at + 8, size
        at += 8 + size + size % 2


def last_wav_audio(data: RandomAccessBytes) -> tuple[int, int] | None:
    """First byte and size of the audio of a RIFF WAV in which nothing stands behind it; None for any other file.

    libsndfile looks behind the audio as soon as it opens a file, and believes what it finds there. An RF64, and a RIFF
    that has an RF64's chunk of sizes, say their size in two places and are none of these.
    """
    if data[:4] != b"RIFF":
        return None
    chunks = list(wav_chunks(data[:_HEAD_BYTES]))
    audio = next(((at, size) for name, at, size in chunks if name == b"data"), None)
    if audio is None or any(name == b"ds64" for name, *_ in chunks):
        return None
    at, size = audio
    return audio if size not in UNKNOWN_SIZES and at + size + size % 2 >= len(data) else None
