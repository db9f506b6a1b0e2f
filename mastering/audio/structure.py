"""What a file's own bytes say of it: its container, and whether its end is missing. Bytes in, words out; no decoding.

Decoders paper over a missing end (libsndfile shortens a WAV's length in silence), so the declared sizes are read here.
Sources: RIFF/WAVE (Multimedia Programming Interface 1.0), EBU Tech 3306 (RF64), AIFF-C (1991), RFC 3533 (Ogg pages),
RFC 9639 (FLAC), ISO 14496-12 (boxes), RFC 8794 (EBML), Core Audio Format Specification 1.0,
ASF Specification 01.20.06, ISO 11172-3 (MPEG audio header), id3.org (ID3v2.4 §3.1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

Bytes = mmap | bytes
_MAX_CHUNKS = 4096
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
"""What a writer that could not seek back leaves as the size of its audio."""
_HEAD_BYTES = 16 * 1024
_PADDING = 8
"""Bytes by which honest writers get the size of the last chunk wrong."""


@dataclass(frozen=True)
class Shortfall:
    """The file says it holds `declared` bytes (0 where the part is missing altogether) and holds `present`."""

    declared: int
    present: int


def container_of(data: Bytes) -> str | None:
    """The container by content, never by name: wav, aiff, flac, mp3, ogg, mp4, webm, asf, caf, or None."""
    start = after_tag(data)
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


def shortfall_of(container: str, data: Bytes) -> Shortfall | None:
    """How much of the end is missing, by the file's own sizes; None where nothing is."""
    check = {"wav": _wav, "aiff": _aiff, "ogg": _ogg, "mp4": _mp4, "webm": _webm, "caf": _caf}.get(container)
    return check(data) if check else None


def last_audio_of(data: Bytes) -> tuple[int, int] | None:
    """First byte and size of the audio of a WAV in which nothing stands behind it; None for any other file.

    libsndfile looks behind the audio as soon as it opens a file, and believes what it finds there.
    """
    if data[:4] != b"RIFF":
        return None
    audio = [(at, size) for name, at, size in wav_chunks(data[:_HEAD_BYTES]) if name == b"data"]
    is_last = any(size not in _UNKNOWN_SIZES and at + size + (size & 1) >= len(data) for at, size in audio[:1])
    return audio[0] if is_last else None


def is_all_tag(data: Bytes) -> bool:
    """An ID3 tag, and the file ends before the audio that should follow it."""
    return after_tag(data) >= len(data) > 0


def after_tag(data: Bytes) -> int:
    """Where the file begins behind an ID3 tag at its start."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    a, b, c, d = data[6:10]
    return 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if data[5] & 0x10 else 0)


_LAYER_3_KBPS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def _has_mpeg_frames(data: Bytes, start: int) -> bool:
    """Two layer III frames in a row: one alone turns up in random bytes."""
    first = _mpeg_frame_bytes(data, start)
    return first is not None and _mpeg_frame_bytes(data, start + first) is not None


def _mpeg_frame_bytes(data: Bytes, at: int) -> int | None:
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate_index, kbps_index = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or rate_index == 3 or kbps_index in (0, 15):
        return None
    kbps = _LAYER_3_KBPS[3 if version == 3 else 2][kbps_index]
    slots = 144 if version == 3 else 72
    return slots * kbps * 1000 // _RATES_HZ[version][rate_index] + (head[2] >> 1 & 1)


def mpeg_samples(data: Bytes) -> int | None:
    """Samples that the Xing or Info header of an MP3 announces, encoder's padding included; None without one."""
    start = after_tag(data)
    head = data[start : start + 4]
    if len(head) < 4:
        return None
    is_version_1, is_mono = head[1] >> 3 & 3 == 3, head[3] >> 6 == 3
    at = start + 4 + {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[is_version_1, is_mono]
    if data[at : at + 4] not in (b"Xing", b"Info") or len(data) < at + 12 or not data[at + 7] & 1:
        return None
    return int.from_bytes(data[at + 8 : at + 12], "big") * (1152 if is_version_1 else 576)


def _chunks(data: Bytes | memoryview, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte of the content and declared size of each chunk of a RIFF or FORM file."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        name, size = struct.unpack(f"{order}4sI", data[at : at + 8])
        yield name, at + 8, size
        at += 8 + size + (size & 1)


def wav_chunks(data: Bytes | memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte of the content and declared size of each chunk of a WAV, as far as it is there."""
    return _chunks(data, "<")


def _wav(data: Bytes) -> Shortfall | None:
    long_size = 0
    for name, at, size in wav_chunks(data):
        if name == b"ds64" and at + 16 <= len(data):
            (long_size,) = struct.unpack("<Q", data[at + 8 : at + 16])
        if name == b"data":
            return _missing(long_size if size == 0xFFFFFFFF else size, len(data) - at)
    return Shortfall(0, 0)


def _aiff(data: Bytes) -> Shortfall | None:
    for name, at, size in _chunks(data, ">"):
        if name == b"SSND":
            return _missing(size, len(data) - at)
    return Shortfall(0, 0)


def _missing(declared: int, present: int) -> Shortfall | None:
    if declared in _UNKNOWN_SIZES or declared <= present + _PADDING:
        return None
    return Shortfall(declared, present)


def _caf(data: Bytes) -> Shortfall | None:
    at = 8
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            break
        name, size = struct.unpack(">4sq", data[at : at + 12])
        if name == b"data":
            return None if size < 0 else _missing(size, len(data) - at - 12)
        at += 12 + max(size, 0)
    return Shortfall(0, 0)


def _ogg(data: Bytes) -> Shortfall | None:
    """The last page must be whole and say that it is the last (flag 4)."""
    at = data.rfind(b"OggS", max(0, len(data) - 2 * 65_307))
    if at < 0 or at + 27 > len(data):
        return Shortfall(0, 0)
    lacing = data[at + 27 : at + 27 + data[at + 26]]
    end = at + 27 + data[at + 26] + sum(lacing)
    if end > len(data):
        return Shortfall(end, len(data))
    return None if data[at + 5] & 4 else Shortfall(0, 0)


def _mp4(data: Bytes) -> Shortfall | None:
    at, names = 0, set()
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        size, name = struct.unpack(">I4s", data[at : at + 8])
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack(">Q", data[at + 8 : at + 16])
        names.add(name)
        at = len(data) if size == 0 else at + max(size, 8)
    if at > len(data):
        return Shortfall(at, len(data))
    return None if b"moov" in names else Shortfall(0, 0)


def _webm(data: Bytes) -> Shortfall | None:
    header = _ebml_size(data, 4)
    if header is None:
        return Shortfall(0, 0)
    segment = header[0] + header[1]
    if data[segment : segment + 4] != b"\x18\x53\x80\x67":
        return Shortfall(0, 0)
    body = _ebml_size(data, segment + 4)
    if body is None or body[1] < 0:
        return None
    end = body[0] + body[1]
    return Shortfall(end, len(data)) if end > len(data) else None


def _ebml_size(data: Bytes, at: int) -> tuple[int, int] | None:
    """(first byte after the size, the size; −1 where it is unknown) of the EBML element whose size stands at `at`."""
    if at >= len(data) or data[at] == 0:
        return None
    length = 9 - data[at].bit_length()
    if at + length > len(data):
        return None
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return at + length, -1 if value == (1 << 7 * length) - 1 else value
