"""Vorbis comments and pictures of a FLAC or an Ogg stream, read within bounds.

The tag library takes every comment that a file announces, six million empty ones included, and walks an Ogg file to its
last page. Here a bounded number is looked at, and nothing is copied but what is wanted.

Sources: the Vorbis comment specification, RFC 9639 (FLAC §8), RFC 3533 (Ogg pages), RFC 7845 (Opus §5.2), the FLAC to
Ogg mapping 1.0.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator
from typing import Any

import mutagen
from mutagen.flac import Picture

from mastering.audio.riff import RandomAccessBytes
from mastering.audio.tag_allowance import MAX_FIELDS, Allowance
from mastering.audio.tag_fields import FREE_NAMES, Texts, by_free_names
from mastering.audio.tag_record import TagPicture, picture

_BLOCK: Any = Picture  # Untyped in mutagen.
_COMMENTS, _PICTURE = 4, 6
"""Kinds of FLAC's metadata blocks."""
_MAX_BLOCKS = 1024
_MAX_PAGES = 8192
"""Of an Ogg file, up to the end of its comments: 24 MiB of them in libogg's pages of 4 KiB are 6,000."""
_MAX_PACKET_BYTES = 24 * 1024 * 1024
"""Pictures of 16 MiB in base64, and what stands around them."""
_MAX_NAME_BYTES = 64
_EMBEDDED = "metadata_block_picture"
_STREAMS = {b"\x01vorbis": 7, b"OpusHead": 8, b"\x7fFLAC": 4}
"""How the first packet of a stream begins, and the bytes before the comments in its second."""


def flac(data: RandomAccessBytes, at: int, allowance: Allowance) -> tuple[Texts, list[TagPicture]]:
    """Texts and pictures of the FLAC that begins at byte `at`."""
    texts: Texts = {}
    pictures: list[TagPicture] = []
    for kind, start, end in _flac_blocks(data, at + 4):
        if kind == _COMMENTS and not texts:
            texts, embedded = _comments(data, start, end, allowance)
            pictures += embedded
        elif kind == _PICTURE and allowance.takes_picture(end - start):
            pictures += _picture(data[start:end])
    return texts, pictures


def ogg(data: RandomAccessBytes, at: int, allowance: Allowance) -> tuple[Texts, list[TagPicture]]:
    """Texts and pictures of the first Vorbis, Opus or FLAC stream of the Ogg file that begins at byte `at`."""
    packet = _comment_packet(data, at, allowance)
    return _comments(packet, 0, len(packet), allowance)


def _flac_blocks(data: RandomAccessBytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Kind, first byte and end of each metadata block that is whole."""
    for _ in range(_MAX_BLOCKS):
        head = data[at : at + 4]
        if len(head) < 4:
            return
        start, at = at + 4, at + 4 + int.from_bytes(head[1:], "big")
        if at > len(data):
            return
        yield head[0] & 0x7F, start, at
        if head[0] & 0x80:
            return


def _comment_packet(data: RandomAccessBytes, at: int, allowance: Allowance) -> bytes:
    serial, skipped, packet = b"", 0, bytearray()
    for _ in range(_MAX_PAGES):
        head = data[at : at + 27]
        if len(head) < 27 or head[:4] != b"OggS":
            break
        lacing = data[at + 27 : at + 27 + head[26]]
        start, at = at + 27 + head[26], at + 27 + head[26] + sum(lacing)
        if not serial:
            first = data[start : start + 8]
            found = next((size for name, size in _STREAMS.items() if first.startswith(name)), 0)
            serial, skipped = (head[14:18], found) if found else (b"", 0)
        elif head[14:18] == serial:
            last = next((number for number, size in enumerate(lacing) if size < 255), None)
            packet += data[start : start + sum(lacing[: len(lacing) if last is None else last + 1])]
            if last is not None:
                return bytes(packet[skipped:])
            if len(packet) > _MAX_PACKET_BYTES:
                break
    if serial:
        allowance.left_out.add(f"comments that do not end within 24 MiB and {_MAX_PAGES} pages")
    return b""


def _comments(data: RandomAccessBytes, at: int, end: int, allowance: Allowance) -> tuple[Texts, list[TagPicture]]:
    found: dict[str, list[str]] = {}
    pictures: list[TagPicture] = []
    for name, first, last in _fields(data, at, end, allowance):
        if name == _EMBEDDED:
            pictures += _embedded(data, first, last, allowance)
        elif name in FREE_NAMES and allowance.takes_text(last - first):
            found.setdefault(name, []).append(data[first:last].decode(errors="replace"))
    return by_free_names(found), pictures


def _fields(data: RandomAccessBytes, at: int, end: int, allowance: Allowance) -> Iterator[tuple[str, int, int]]:
    """Name in lower case, first byte and end of the value of each comment."""
    at += 4 + _size(data, at)
    count = _size(data, at)
    at += 4
    for _ in range(min(count, MAX_FIELDS)):
        start, at = at + 4, at + 4 + _size(data, at)
        if start > end or at > end:
            return
        name, equals, _ = data[start : min(start + _MAX_NAME_BYTES, at)].partition(b"=")
        if equals:
            yield name.decode("ascii", "replace").lower(), start + len(name) + 1, at
    if count > MAX_FIELDS:
        allowance.ends()


def _size(data: RandomAccessBytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _embedded(data: RandomAccessBytes, first: int, last: int, allowance: Allowance) -> list[TagPicture]:
    if not allowance.takes_picture((last - first) * 3 // 4):
        return []
    try:
        return _picture(base64.b64decode(data[first:last]))
    except binascii.Error:
        return []


def _picture(block: bytes) -> list[TagPicture]:
    """None where the block is broken, or names a picture elsewhere."""
    try:
        found = _BLOCK(block)
    except (mutagen.MutagenError, ValueError, struct.error):
        return []
    return [] if found.mime == "-->" else [picture(found.data, found.mime, found.type, found.desc)]
