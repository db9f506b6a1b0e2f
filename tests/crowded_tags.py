"""Songs whose tags hold so many tiny fields that a reader which looks each of them up in a list takes minutes.

Each holds a second and a half of sound behind, or before, some megabytes of fields with different names.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

from mastering.audio.container import id3_end
from tests.hostile_audio import encoded, noise, written

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
MIB = 1 << 20


def mp3_with_text_frames(tag_bytes: int = 5 * MIB) -> bytes:
    """ID3v2.4 TXXX frames, 20 bytes each."""
    frames = b"".join(b"TXXX\0\0\0\x0a\0\0\0%07d\0v" % number for number in range(tag_bytes // 20))
    size = len(frames)
    synchsafe = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    whole = encoded("mp3", "libmp3lame")
    return b"ID3\4\0\0" + synchsafe + frames + whole[id3_end(whole) :]


def vorbis_comments(total_bytes: int) -> bytes:
    count = total_bytes // 13
    fields = b"".join(struct.pack("<I", 9) + b"%07d=v" % number for number in range(count))
    return struct.pack("<I", 0) + struct.pack("<I", count) + fields


def flac_with_comments(total_bytes: int = MIB) -> bytes:
    whole, comments = written(noise(), kind="FLAC"), vorbis_comments(total_bytes)
    return whole[:42] + b"\x04" + len(comments).to_bytes(3, "big") + comments + whole[42:]


def opus_with_comments(total_bytes: int = 5 * MIB) -> bytes:
    """Ogg Opus whose second packet holds the comments."""
    first, _, *others = ogg_pages(encoded("ogg", "libopus"))
    tags = b"OpusTags" + vorbis_comments(total_bytes)
    return first + b"".join(_pages_of_packet(tags, serial=first[14:18])) + b"".join(others)


def ogg_pages(whole: bytes) -> list[bytes]:
    pages, at = [], 0
    while at < len(whole):
        segments = whole[at + 26]
        end = at + 27 + segments + sum(whole[at + 27 : at + 27 + segments])
        pages.append(whole[at:end])
        at = end
    return pages


def _pages_of_packet(packet: bytes, serial: bytes) -> Iterable[bytes]:
    lacing = b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
    for number, at in enumerate(range(0, len(lacing), 255)):
        sizes = lacing[at : at + 255]
        body = packet[255 * at : 255 * at + sum(sizes)]
        head = b"OggS\0" + bytes([1 if at else 0]) + bytes(8) + serial + struct.pack("<I", number + 1)
        unsigned = head + bytes(4) + bytes([len(sizes)]) + sizes + body
        yield head + struct.pack("<I", ogg_checksum(unsigned)) + unsigned[26:]


def ogg_checksum(page: bytes) -> int:
    """Of RFC 3533: zlib's polynomial with the bits the other way round, begun with zero and not inverted."""
    mirrored = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def m4a_with_items(total_bytes: int = 4 * MIB) -> bytes:
    """Freeform items in `ilst`, in a second `udta` at the end of `moov`."""
    whole = bytearray(encoded("mp4", "aac"))
    mean, data = _box(b"mean", bytes(4) + b"m"), _box(b"data", struct.pack(">II", 1, 0) + b"v")
    item_bytes = len(_box(b"----", mean + _box(b"name", bytes(4) + b"0000000") + data))
    items = b"".join(
        _box(b"----", mean + _box(b"name", bytes(4) + b"%07d" % number) + data)
        for number in range(total_bytes // item_bytes)
    )
    handler = _box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    udta = _box(b"udta", _box(b"meta", bytes(4) + handler + _box(b"ilst", items)))
    at = whole.index(b"moov") - 4
    (size,) = struct.unpack(">I", whole[at : at + 4])
    assert at + size == len(whole), "moov is the last box"
    whole[at : at + 4] = struct.pack(">I", size + len(udta))
    return bytes(whole) + udta


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def webm_with_tags(total_bytes: int = MIB) -> bytes:
    """SimpleTag elements, at the segment's beginning."""
    whole = bytearray(encoded("webm", "libopus"))
    one = len(_simple_tag(0))
    tag = _element(b"\x73\x73", b"".join(_simple_tag(number) for number in range(total_bytes // one)))
    tags = _element(b"\x12\x54\xc3\x67", tag)
    at = whole.index(b"\x18\x53\x80\x67") + 4
    assert whole[at] == 1, "a size of eight bytes"
    size = int.from_bytes(whole[at + 1 : at + 8], "big")
    whole[at + 1 : at + 8] = (size + len(tags)).to_bytes(7, "big")
    return bytes(whole[: at + 8]) + tags + bytes(whole[at + 8 :])


def _simple_tag(number: int) -> bytes:
    return _element(b"\x67\xc8", _element(b"\x45\xa3", b"%07d" % number) + _element(b"\x44\x87", b"v"))


def _element(name: bytes, content: bytes) -> bytes:
    size = len(content)
    return name + (bytes([0x80 | size]) if size < 127 else b"\x01" + size.to_bytes(7, "big")) + content


def caf_with_information(total_bytes: int = MIB) -> bytes:
    """Strings of the `info` chunk, in front of the samples."""
    strings = b"".join(b"%07d\0v\0" % number for number in range(total_bytes // 10))
    info = struct.pack(">I", total_bytes // 10) + strings
    whole = encoded("caf", "pcm_s16be")
    at = whole.index(b"data")
    return whole[:at] + b"info" + struct.pack(">q", len(info)) + info + whole[at:]


CROWDED = {
    "FLAC": flac_with_comments,
    "Opus": opus_with_comments,
    "M4A": m4a_with_items,
    "WebM": webm_with_tags,
    "CAF": caf_with_information,
}
"""Those of which a library reads the tags before it gives any sound."""
