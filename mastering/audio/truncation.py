"""Whether a file's end is missing, by the sizes that the file itself declares: the same for the probe and the engine.

Decoders paper over a missing end (libsndfile shortens a WAV's length in silence), so the declared sizes are read here.
Nothing is said of damage further inside. Sources: those of `riff` and `container`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mastering.audio.riff import UNKNOWN_SIZES, RandomAccessBytes, aiff_chunks, wav_chunks
from mastering.contract.limits import MAX_SIZE_ERROR_BYTES

_MAX_PARTS = 4096
"""Boxes or chunks that are looked at; an honest file has a few dozen beside its audio."""
_OGG_PAGE_BYTES = 65_307
"""The largest (RFC 3533, section 6)."""
_ASF_HEADER_BYTES = 64 * 1024
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


@dataclass(frozen=True)
class Shortfall:
    """The file says it holds `declared` bytes (0 where a part is missing altogether) and holds `present`."""

    declared: int
    present: int


_PART_MISSING = Shortfall(0, 0)


def shortfall_of(container: str, data: RandomAccessBytes) -> Shortfall | None:
    """How much of the end is missing from a file of `container`; None where nothing is, or its sizes do not tell.

    FLAC and MP3 declare no size in bytes: their frames are counted as they are decoded.
    """
    check = _CHECKS.get(container)
    return check(data) if check else None


def _wav(data: RandomAccessBytes) -> Shortfall | None:
    return _chunk_shortfall(wav_chunks(data), b"data", len(data))


def _aiff(data: RandomAccessBytes) -> Shortfall | None:
    return _chunk_shortfall(aiff_chunks(data), b"SSND", len(data))


def _chunk_shortfall(chunks: Iterable[tuple[bytes, int, int]], audio: bytes, file_bytes: int) -> Shortfall | None:
    for name, at, size in chunks:
        if name == audio:
            return _missing(size, file_bytes - at)
    return _PART_MISSING


def _missing(declared: int, present: int) -> Shortfall | None:
    if declared in UNKNOWN_SIZES or declared <= present + MAX_SIZE_ERROR_BYTES:
        return None
    return Shortfall(declared, present)


def _caf(data: RandomAccessBytes) -> Shortfall | None:
    at = 8
    for _ in range(_MAX_PARTS):
        if at + 12 > len(data):
            break
        name, size = struct.unpack(">4sq", data[at : at + 12])
        if name == b"data":
            return None if size < 0 else _missing(size, len(data) - at - 12)
        at += 12 + max(size, 0)
    return _PART_MISSING


def _ogg(data: RandomAccessBytes) -> Shortfall | None:
    """The last page must be whole and say that it is the last (flag 4)."""
    start = max(0, len(data) - 2 * _OGG_PAGE_BYTES)
    tail = data[start : len(data)]
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return _PART_MISSING
    lacing = tail[at + 27 : at + 27 + tail[at + 26]]
    end = at + 27 + tail[at + 26] + sum(lacing)
    if end > len(tail):
        return Shortfall(start + end, len(data))
    return None if tail[at + 5] & 4 else _PART_MISSING


def _mp4(data: RandomAccessBytes) -> Shortfall | None:
    at, names = 0, set()
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            break
        size, name = struct.unpack(">I4s", data[at : at + 8])
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack(">Q", data[at + 8 : at + 16])
        names.add(name)
        at = len(data) if size == 0 else at + max(size, 8)
    if at > len(data):
        return Shortfall(at, len(data))
    return None if b"moov" in names else _PART_MISSING


def _asf(data: RandomAccessBytes) -> Shortfall | None:
    """The File Properties Object tells the file's size, unless it was written as a broadcast (ASF 01.20.06, 3.2)."""
    head = data[:_ASF_HEADER_BYTES]
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or at + 92 > len(head):
        return None
    (declared,), (flags,) = struct.unpack_from("<Q", head, at + 40), struct.unpack_from("<I", head, at + 88)
    is_broadcast = flags & 1
    return Shortfall(declared, len(data)) if not is_broadcast and declared > len(data) else None


def _webm(data: RandomAccessBytes) -> Shortfall | None:
    header = _ebml_size(data, 4)
    if header is None:
        return _PART_MISSING
    segment = header[0] + header[1]
    if data[segment : segment + 4] != b"\x18\x53\x80\x67":
        return _PART_MISSING
    body = _ebml_size(data, segment + 4)
    if body is None or body[1] < 0:
        return None
    end = body[0] + body[1]
    return Shortfall(end, len(data)) if end > len(data) else None


def _ebml_size(data: RandomAccessBytes, at: int) -> tuple[int, int] | None:
    """(first byte after the size, the size; −1 where it is unknown) of the EBML element whose size stands at `at`."""
    field = data[at : at + 8]
    if not field or field[0] == 0:
        return None
    length = 9 - field[0].bit_length()
    if length > len(field):
        return None
    value = int.from_bytes(field[:length], "big") & ((1 << 7 * length) - 1)
    return at + length, -1 if value == (1 << 7 * length) - 1 else value


_CHECKS: dict[str, Callable[[RandomAccessBytes], Shortfall | None]] = {
    "wav": _wav,
    "aiff": _aiff,
    "ogg": _ogg,
    "mp4": _mp4,
    "webm": _webm,
    "caf": _caf,
    "asf": _asf,
}
