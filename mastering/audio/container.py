"""Containers by their first bytes, and whether a file ends before its own structure says it should. No decoding."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import BinaryIO

_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
"""What programs that write to a pipe leave in a header's size field."""
_MOST_CHUNKS = 10_000
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def sniff(source: BinaryIO) -> str | None:
    """The container's name, or None for what is none of ours."""
    source.seek(0)
    head = source.read(16)
    for name, mark, at in _MARKS:
        if head[at : at + len(mark)] == mark:
            return name
    # MPEG audio, layer III.
    return "mp3" if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 else None


_MARKS = (
    ("wav", b"WAVE", 8),
    ("aiff", b"AIFF", 8),
    ("aiff", b"AIFC", 8),
    ("flac", b"fLaC", 0),
    ("ogg", b"OggS", 0),
    ("mp3", b"ID3", 0),
    ("mp4", b"ftyp", 4),
    ("mp4", b"moov", 4),
    ("mp4", b"mdat", 4),
    ("mp4", b"wide", 4),
    ("matroska", b"\x1aE\xdf\xa3", 0),
    ("asf", b"0&\xb2u\x8ef\xcf\x11", 0),
    ("caf", b"caff", 0),
)


def is_cut_off(source: BinaryIO, container: str) -> bool:
    """True if the container's own sizes reach past the end of the file. Says nothing of damage further inside."""
    check = _CHECKS.get(container)
    return check is not None and check(source, source.seek(0, io.SEEK_END))


def _chunks_cut_off(source: BinaryIO, size: int, order: str, wanted: bytes) -> bool:
    position = 12
    for _ in range(_MOST_CHUNKS):
        source.seek(position)
        head = source.read(8)
        if len(head) < 8:
            return True
        name, length = head[:4], struct.unpack(order + "I", head[4:])[0]
        if name == b"ds64":
            # RF64 (EBU Tech 3306) holds its true sizes here; no sound chunk is asked for its own.
            return bool(position + 8 + length > size)
        if name == wanted:
            # One frame of the widest kind may be missing without a loss that can be heard.
            return length not in _UNKNOWN_SIZES and position + 8 + length > size + 16
        position += 8 + length + length % 2
    return False


def _wav_cut_off(source: BinaryIO, size: int) -> bool:
    return _chunks_cut_off(source, size, "<", b"data")


def _aiff_cut_off(source: BinaryIO, size: int) -> bool:
    return _chunks_cut_off(source, size, ">", b"SSND")


def _ogg_cut_off(source: BinaryIO, size: int) -> bool:
    """The last page of a whole stream says that it is the last (RFC 3533, section 6, bit 0x04)."""
    source.seek(max(0, size - 0x11000))
    tail = source.read()
    last = tail.rfind(b"OggS")
    if last < 0 or last + 27 > len(tail):
        return True
    segments = tail[last + 26]
    table = tail[last + 27 : last + 27 + segments]
    return len(table) < segments or last + 27 + segments + sum(table) > len(tail) or not tail[last + 5] & 4


def _caf_cut_off(source: BinaryIO, size: int) -> bool:
    position = 8
    for _ in range(_MOST_CHUNKS):
        source.seek(position)
        head = source.read(12)
        if len(head) < 12:
            return True
        name, length = struct.unpack(">4sq", head)
        if name == b"data":
            return bool(position + 12 + length > size + 16)
        position += 12 + max(length, 0)
    return False


def _asf_cut_off(source: BinaryIO, size: int) -> bool:
    """The File Properties Object tells the file's size, unless it was written as a broadcast (ASF 01.20.06, 3.2)."""
    source.seek(0)
    head = source.read(1 << 16)
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or at + 92 > len(head):
        return False
    whole, flags = struct.unpack_from("<Q", head, at + 40)[0], struct.unpack_from("<I", head, at + 88)[0]
    return bool(not flags & 1 and whole > size)


def _mp4_cut_off(source: BinaryIO, size: int) -> bool:
    position, names = 0, set()
    for _ in range(_MOST_CHUNKS):
        source.seek(position)
        head = source.read(16)
        if len(head) < 8:
            break
        length, name = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        names.add(name)
        if length == 0:
            break
        position += max(length, 8)
    return position > size or b"moov" not in names


_CHECKS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "wav": _wav_cut_off,
    "aiff": _aiff_cut_off,
    "ogg": _ogg_cut_off,
    "mp4": _mp4_cut_off,
    "caf": _caf_cut_off,
    "asf": _asf_cut_off,
}
