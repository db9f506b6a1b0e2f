"""Which container a file is, by its content and never by its name: the one truth for the probe and the engine.

Bytes in, a name out; nothing is decoded. Sources: RFC 9639 (FLAC), RFC 3533 (Ogg), ISO 14496-12 (MP4 boxes), RFC 8794
(EBML), Core Audio Format Specification 1.0, ASF Specification 01.20.06, id3.org (ID3v2.4 §3.1), the APE tag's (version
2); `riff` has those of WAV, AIFF and W64, `raw_frames` those of MP3 and its like.
"""

from __future__ import annotations

from mastering.audio.raw_frames import raw_container, zeros_end
from mastering.audio.riff import BytesBehind, RandomAccessBytes

CONTAINER_HEAD_BYTES = 32 * 1024
"""Enough of a file's beginning, behind a tag, to tell its container: three AAC frames of the largest size (8 KiB)."""
_MAX_ID3_TAGS = 8
_APE_HEADER_BYTES = 32
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


def container_of(data: RandomAccessBytes) -> str | None:
    """The file's container, by the names of `codecs.DEMUXERS`; None for any other file."""
    start = audio_start(data)
    head = data[start : start + 16]
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"OggS":
        return "ogg"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "webm"
    if head == b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c":
        return "asf"
    if head[:6] == b"caff\x00\x01":
        return "caf"
    if head == _W64:
        return "w64"
    if head[:4] == b".snd":
        return "au"
    if head[:4] == b"wvpk":
        return "wavpack"
    return raw_container(data, start)


def audio_start(data: RandomAccessBytes) -> int:
    """The first byte behind tags, and, where the file is nothing but frames, behind zeros before the first of them."""
    start, end = tags_end(data), leading_end(data)
    return end if end > start and raw_container(data, end) else start


def behind_tags(data: RandomAccessBytes) -> RandomAccessBytes:
    """The bytes from `audio_start` on."""
    start = audio_start(data)
    return BytesBehind(data, start) if start else data


def leading_end(data: RandomAccessBytes) -> int:
    """The first byte behind tags and zeros."""
    end = tags_end(data)
    behind = zeros_end(data, end)
    return tags_end(data, behind) if behind > end else end


def tags_end(data: RandomAccessBytes, start: int = 0) -> int:
    """The first byte behind the ID3 and APE tags at byte `start`; that itself without one."""
    end = id3_end(data, start)
    head = data[end : end + _APE_HEADER_BYTES]
    if head[:8] == b"APETAGEX" and len(head) == _APE_HEADER_BYTES:
        end += _APE_HEADER_BYTES + int.from_bytes(head[12:16], "little")
    return end


def id3_end(data: RandomAccessBytes, start: int = 0) -> int:
    """The first byte behind the ID3 tags at byte `start`. Some programs put one before another's."""
    end = start
    for _ in range(_MAX_ID3_TAGS):
        head = data[end : end + 10]
        if head[:3] != b"ID3" or len(head) < 10:
            break
        a, b, c, d = head[6:10]
        end += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 0x10 else 0)
    return end


def ends_inside_tag(data: RandomAccessBytes) -> bool:
    """Whether the file ends before the audio that should follow its ID3 or APE tag."""
    return tags_end(data) >= len(data) > 0
