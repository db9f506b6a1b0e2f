"""Which container a file is, by its content and never by its name: the one truth for the probe and the engine.

Bytes in, a name out; nothing is decoded. Sources: RFC 9639 (FLAC), RFC 3533 (Ogg), ISO 14496-12 (MP4 boxes), RFC 8794
(EBML), Core Audio Format Specification 1.0, ASF Specification 01.20.06, ISO 11172-3 (MPEG audio header), id3.org
(ID3v2.4 §3.1); `riff` has those of WAV and AIFF.
"""

from __future__ import annotations

from mastering.audio.riff import RandomAccessBytes

CONTAINER_HEAD_BYTES = 16 * 1024
"""Enough of a file's beginning, behind a tag, to tell its container: an MP3 frame of the largest size, and the next."""
_MAX_ID3_TAGS = 8
_LAYER_3_KBPS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by their index: version 1 (3), versions 2 and 2.5 (2)."""
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Sample rates by version and index."""


def container_of(data: RandomAccessBytes) -> str | None:
    """wav, aiff, flac, mp3, ogg, mp4, webm (Matroska too), asf or caf; None for any other file."""
    start = id3_end(data)
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
    return "mp3" if _has_mpeg_frames(data, start) else None


def id3_end(data: RandomAccessBytes) -> int:
    """The first byte behind the ID3 tags at the file's start; 0 without one. Some programs put one before another's."""
    end = 0
    for _ in range(_MAX_ID3_TAGS):
        head = data[end : end + 10]
        if head[:3] != b"ID3" or len(head) < 10:
            break
        a, b, c, d = head[6:10]
        end += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 0x10 else 0)
    return end


def ends_inside_id3(data: RandomAccessBytes) -> bool:
    """Whether the file ends before the audio that should follow its ID3 tag."""
    return id3_end(data) >= len(data) > 0


def _has_mpeg_frames(data: RandomAccessBytes, start: int) -> bool:
    """Two layer III frames in a row: the header of one alone turns up in random bytes."""
    first = _mpeg_frame_bytes(data, start)
    return first is not None and _mpeg_frame_bytes(data, start + first) is not None


def _mpeg_frame_bytes(data: RandomAccessBytes, at: int) -> int | None:
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate_index, kbps_index = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or rate_index == 3 or kbps_index in (0, 15):
        return None
    kbps = _LAYER_3_KBPS[3 if version == 3 else 2][kbps_index]
    slots = 144 if version == 3 else 72
    return slots * kbps * 1000 // _RATES_HZ[version][rate_index] + (head[2] >> 1 & 1)


def xing_frames(data: RandomAccessBytes) -> int | None:
    """Audio frames that an MP3's Xing or Info header announces, the encoder's padding included; None without one."""
    start = id3_end(data)
    head = data[start : start + 4]
    if len(head) < 4:
        return None
    is_version_1, is_mono = head[1] >> 3 & 3 == 3, head[3] >> 6 == 3
    at = start + 4 + {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[is_version_1, is_mono]
    header = data[at : at + 12]
    if header[:4] not in (b"Xing", b"Info") or len(header) < 12 or not header[7] & 1:
        return None
    return int.from_bytes(header[8:12], "big") * (1152 if is_version_1 else 576)
