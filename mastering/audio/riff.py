"""Chunks of RIFF and FORM files: the one reader of WAV's and AIFF's structure, and of W64's.

Sources: RIFF/WAVE (Multimedia Programming Interface 1.0), EBU Tech 3306 (RF64), AIFF-C (1991), Sony Wave64 1.0.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO, Protocol

PLACEHOLDERS = frozenset({0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFFFFFFFFFF})
"""What a WAV's writer that cannot seek back says of the size of its audio: FFmpeg, SoX and MPlayer, LAME and oggdec."""
AIFF_PLACEHOLDERS = frozenset({0x7F000008})
"""The same of an AIFF: SoX."""
W64_UNKNOWN_BYTES = 1 << 62
"""A W64's audio that is said to be larger: FFmpeg."""
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


class BytesBehind:
    """The bytes of `data` from `start` on."""

    def __init__(self, data: RandomAccessBytes, start: int) -> None:
        self._data, self._start, self._size = data, start, max(0, len(data) - start)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, stretch: slice, /) -> bytes:
        start, stop, _ = stretch.indices(self._size)
        return self._data[self._start + start : self._start + max(start, stop)]


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


def wav_audio(data: RandomAccessBytes) -> tuple[int, int] | None:
    """First byte and size of a WAV's audio, to the file's end where its writer did not know it; None where there is
    none."""
    audio = next(((at, size) for name, at, size in wav_chunks(data) if name == b"data"), None)
    return None if audio is None else (audio[0], len(data) - audio[0]) if is_open(data, *audio) else audio


def is_open(data: RandomAccessBytes, at: int, size: int) -> bool:
    """Whether `size`, which a WAV says its audio from byte `at` on has, stands for an unknown one.

    Zero does where the file's own size is wrong too, else the WAV is empty.
    """
    if size == 0:
        return len(data) > at and abs(_file_bytes(data) - len(data)) > 1
    return size in PLACEHOLDERS and at + size > len(data)


def _file_bytes(data: RandomAccessBytes) -> int:
    """Of the whole file, as a WAV says."""
    (size,) = struct.unpack("<I", data[4:8])
    if data[:4] != b"RIFF" and data[12:16] == b"ds64" and len(data) >= 28:
        (size,) = struct.unpack("<Q", data[20:28])
    return int(size) + 8


def aiff_chunks(data: RandomAccessBytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte of the content and size of each chunk of an AIFF, as far as it is there."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        name, size = struct.unpack(">4sI", data[at : at + 8])
        yield name, at + 8, size
        at += 8 + size + size % 2


def w64_chunks(data: RandomAccessBytes) -> Iterator[tuple[bytes, int, int]]:
    """The same of a W64, by the four letters that its names begin with."""
    at = 40
    for _ in range(_MAX_CHUNKS):
        if at + 24 > len(data):
            return
        name, size = struct.unpack("<4s12xQ", data[at : at + 24])
        yield name, at + 24, max(0, size - 24)
        at += max(24, size + -size % 8)


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
    return audio if size and size not in PLACEHOLDERS and at + size + size % 2 >= len(data) else None
