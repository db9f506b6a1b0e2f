"""Copies out of an ID3 tag the few frames that are read, so that the tag library sees no others.

A stranger's tag may hold frames that inflate to a thousand times their size, which mutagen inflates, or a million tiny
ones, for each of which it copies the rest of the tag. Here compressed frames are left out, frames that nobody asks for
are stepped over, and a tag is given up after so many of them; what is copied is a small tag of the same version.

Sources: id3.org (ID3v2.2, ID3v2.3 and ID3v2.4 structure).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mastering.audio.riff import RandomAccessBytes
from mastering.audio.tag_allowance import MAX_FIELDS, MAX_PICTURES_BYTES, Allowance

_HEADER_BYTES = 10
_MAX_UNSYNCHRONISED_BYTES = 2 * MAX_PICTURES_BYTES
"""Of a tag that must be taken apart as a whole, as version 2.3 wants it where no sync pattern may stand in a tag."""
_PICTURES = (b"APIC", b"PIC")
_DESCRIBED = (b"TXXX", b"TXX")
_DESCRIPTION_BYTES = 128
"""Of a TXXX frame, where its description is looked for: in UTF-16 one has up to 66."""
_UNSYNCHRONISED, _EXTENDED_HEADER = 0x80, 0x40


@dataclass(frozen=True)
class _Version:
    """What differs between the versions of ID3v2."""

    name_bytes: int
    header_bytes: int
    """Of a frame."""
    refused_flags: int
    """Of a frame that is compressed or encrypted."""


_VERSIONS = {2: _Version(3, 6, 0), 3: _Version(4, 10, 0x00C0), 4: _Version(4, 10, 0x000C)}


@dataclass(frozen=True)
class Wanted:
    """Names of frames, in every version, and the descriptions (lower case) of those TXXX frames that are wanted."""

    names: Collection[str]
    descriptions: Collection[str] = ()


def wanted_frames(data: RandomAccessBytes, at: int, wanted: Wanted, allowance: Allowance) -> bytes:
    """The ID3v2 tag at byte `at` of `data` with the wanted frames alone, as bytes; empty where there is no tag.

    Left out are compressed and encrypted frames, and what the allowance does not take. Pictures come first: for each
    frame the tag library copies all that is behind it.
    """
    header = data[at : at + _HEADER_BYTES]
    version = _VERSIONS.get(header[3]) if len(header) == _HEADER_BYTES and header[:3] == b"ID3" else None
    if version is None:
        return b""
    major, flags = header[3], header[5]
    start, end = at + _HEADER_BYTES, min(at + _HEADER_BYTES + _syncsafe(header[6:10]), len(data))
    if flags & _UNSYNCHRONISED and major < 4:
        if end - start > _MAX_UNSYNCHRONISED_BYTES:
            allowance.left_out.add("an unsynchronised tag above 32 MiB")
            return b""
        data = data[start:end].replace(b"\xff\x00", b"\xff")
        start, end = 0, len(data)
    if flags & _EXTENDED_HEADER and major > 2:
        size = data[start : start + 4]
        start += _syncsafe(size) if major == 4 else 4 + int.from_bytes(size, "big")
    pictures: list[bytes] = []
    others: list[bytes] = []
    for name, frame in _chosen(data, start, end, major, wanted, allowance):
        (pictures if name in _PICTURES else others).append(frame)
    frames = b"".join((*pictures, *others))
    # In 2.4 each frame is unsynchronised for itself, and the flag says that all are.
    kept_flags = flags & _UNSYNCHRONISED if major == 4 else 0
    return b"ID3" + bytes((major, 0, kept_flags)) + _as_syncsafe(len(frames)) + frames


def _chosen(
    data: RandomAccessBytes, start: int, end: int, major: int, wanted: Wanted, allowance: Allowance
) -> Iterator[tuple[bytes, bytes]]:
    """Name and bytes of each frame between `start` and `end` that is wanted and whole."""
    version = _VERSIONS[major]
    # Some programs write names of version 2.2 into tags of 2.3.
    names = {name.encode() for name in wanted.names} | {
        name.encode() + b"\0" for name in wanted.names if len(name) == 3
    }
    descriptions = [one.encode() for one in wanted.descriptions]
    at = start
    for _ in range(MAX_FIELDS):
        header = data[at : min(at + version.header_bytes, end)]
        name = header[: version.name_bytes]
        if len(header) < version.header_bytes or not name.strip(b"\0"):
            return
        size = _frame_size(data, at, end, major)
        first, at = at + version.header_bytes, at + version.header_bytes + size
        if name not in names or size <= 0 or at > end:
            continue
        if major > 2 and int.from_bytes(header[8:10], "big") & version.refused_flags:
            allowance.left_out.add("compressed fields")
            continue
        if name in _DESCRIBED and descriptions:
            head = data[first : min(first + _DESCRIPTION_BYTES, at)].replace(b"\0", b"").lower()
            if not any(description in head for description in descriptions):
                continue
        if not (allowance.takes_picture(size) if name in _PICTURES else allowance.takes_text(size)):
            continue
        written = _as_syncsafe(size) if major == 4 else header[version.name_bytes : version.name_bytes * 2]
        yield name, name + written + header[version.name_bytes * 2 :] + data[first:at]
    allowance.ends()


def _frame_size(data: RandomAccessBytes, at: int, end: int, major: int) -> int:
    """Bytes of the frame at `at` behind its header.

    Version 2.4 counts in seven bits a byte, but iTunes wrote eight: then what the other reading leads to is no frame.
    """
    if major == 2:
        return int.from_bytes(data[at + 3 : at + 6], "big")
    field = data[at + 4 : at + 8]
    plain = int.from_bytes(field, "big")
    if major == 3 or plain < 0x80:
        return plain
    if max(field) >= 0x80:
        return plain
    safe = _syncsafe(field)
    is_plain = not _is_frame_or_end(data, at + 10 + safe, end) and _is_frame_or_end(data, at + 10 + plain, end)
    return plain if is_plain else safe


def _is_frame_or_end(data: RandomAccessBytes, at: int, end: int) -> bool:
    name = data[at : min(at + 4, end)]
    is_padding = len(name) > 0 and not name.strip(b"\0")
    return at == end or is_padding or (len(name) == 4 and name.isalnum() and name.isupper())


def _syncsafe(field: bytes) -> int:
    a, b, c, d = field.ljust(4, b"\0")
    return a << 21 | b << 14 | c << 7 | d


def _as_syncsafe(size: int) -> bytes:
    return struct.pack("4B", *(size >> shift & 0x7F for shift in (21, 14, 7, 0)))
