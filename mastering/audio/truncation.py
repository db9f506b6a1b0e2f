"""Whether a file's end is missing, by the sizes that the file itself declares: the same for the probe and the engine.

Decoders paper over a missing end (libsndfile shortens a WAV's length in silence), so the declared sizes are read here.
Nothing is said of damage further inside. Sources: those of `riff` and `container`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from mastering.audio import ogg, riff, wavpack
from mastering.audio.container import behind_tags
from mastering.audio.riff import RandomAccessBytes
from mastering.contract.limits import MAX_SIZE_ERROR_BYTES

_MAX_PARTS = 4096
"""Boxes or chunks that are looked at; an honest file has a few dozen beside its audio."""
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

    FLAC and raw frames declare no size in bytes: their frames are counted as they are decoded.
    """
    check = _CHECKS.get(container)
    return check(behind_tags(data)) if check else None


def is_open_ended(container: str, data: RandomAccessBytes) -> bool:
    """Whether a file of `container` does not say where it ends, though such files do: nobody can tell if it was cut."""
    check = _OPEN_ENDS.get(container)
    return check(behind_tags(data)) if check else False


def _wav(data: RandomAccessBytes) -> Shortfall | None:
    audio = riff.wav_audio(data)
    return _PART_MISSING if audio is None else _missing(audio[1], len(data) - audio[0])


def _aiff(data: RandomAccessBytes) -> Shortfall | None:
    audio = _aiff_audio(data)
    if audio is None:
        return _PART_MISSING
    return None if _is_open_aiff(data) else _missing(audio[1], len(data) - audio[0])


def _aiff_audio(data: RandomAccessBytes) -> tuple[int, int] | None:
    return next(((at, size) for name, at, size in riff.aiff_chunks(data) if name == b"SSND"), None)


def _w64(data: RandomAccessBytes) -> Shortfall | None:
    audio = _w64_audio(data)
    if audio is None:
        return _PART_MISSING
    return None if audio[1] >= riff.W64_UNKNOWN_BYTES else _missing(audio[1], len(data) - audio[0])


def _w64_audio(data: RandomAccessBytes) -> tuple[int, int] | None:
    return next(((at, size) for name, at, size in riff.w64_chunks(data) if name == b"data"), None)


def _au(data: RandomAccessBytes) -> Shortfall | None:
    at, size = struct.unpack(">II", data[4:12]) if len(data) >= 12 else (0, 0)
    return None if _is_open_au(data) else _missing(size, len(data) - at)


def _missing(declared: int, present: int) -> Shortfall | None:
    return None if declared <= present + MAX_SIZE_ERROR_BYTES else Shortfall(declared, present)


def _caf(data: RandomAccessBytes) -> Shortfall | None:
    size_and_start = _caf_audio(data)
    if size_and_start is None:
        return _PART_MISSING
    at, size = size_and_start
    return None if size < 0 else _missing(size, len(data) - at)


def _caf_audio(data: RandomAccessBytes) -> tuple[int, int] | None:
    at = 8
    for _ in range(_MAX_PARTS):
        if at + 12 > len(data):
            break
        name, size = struct.unpack(">4sq", data[at : at + 12])
        if name == b"data":
            return at + 12, size
        at += 12 + max(size, 0)
    return None


def _ogg(data: RandomAccessBytes) -> Shortfall | None:
    """The last page must be whole. That it is the last, not every writer says."""
    page = ogg.last_page(data)
    if page is None:
        return _PART_MISSING
    return Shortfall(page[1], len(data)) if page[1] > len(data) else None


def _wavpack(data: RandomAccessBytes) -> Shortfall | None:
    return _PART_MISSING if wavpack.read_blocks(data).is_cut_short else None


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
    declared, is_sent = _asf_size(data)
    return Shortfall(declared, len(data)) if not is_sent and declared > len(data) else None


def _asf_size(data: RandomAccessBytes) -> tuple[int, bool]:
    """Of the file in bytes, as it says, and whether it was written as a broadcast."""
    head = data[:_ASF_HEADER_BYTES]
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or at + 92 > len(head):
        return 0, False
    (declared,), (flags,) = struct.unpack_from("<Q", head, at + 40), struct.unpack_from("<I", head, at + 88)
    return declared, bool(flags & 1)


def is_broadcast(container: str, data: RandomAccessBytes) -> bool:
    """Whether a file is an ASF that was written while it was sent: its length is not told, whatever its header says."""
    return container == "asf" and _asf_size(behind_tags(data))[1]


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


def _is_open_wav(data: RandomAccessBytes) -> bool:
    return any(name == b"data" and riff.is_open(data, at, size) for name, at, size in riff.wav_chunks(data))


def _is_open_aiff(data: RandomAccessBytes) -> bool:
    audio = _aiff_audio(data)
    return audio is not None and (audio[1] == 0 or audio[1] in riff.AIFF_PLACEHOLDERS)


def _is_open_w64(data: RandomAccessBytes) -> bool:
    audio = _w64_audio(data)
    return audio is not None and audio[1] >= riff.W64_UNKNOWN_BYTES


def _is_open_au(data: RandomAccessBytes) -> bool:
    return data[8:12] in (bytes(4), b"\xff\xff\xff\xff")


def _is_open_caf(data: RandomAccessBytes) -> bool:
    audio = _caf_audio(data)
    return audio is not None and audio[1] < 0


def _is_open_flac(data: RandomAccessBytes) -> bool:
    """The 36 bits of STREAMINFO that count the samples are zero (RFC 9639, section 8.2)."""
    counted = data[21:26]
    return len(counted) == 5 and counted[0] & 15 == 0 and not any(counted[1:])


def _is_open_ogg(data: RandomAccessBytes) -> bool:
    page = ogg.last_page(data)
    return page is not None and not page[2]


_CHECKS: dict[str, Callable[[RandomAccessBytes], Shortfall | None]] = {
    "wav": _wav,
    "aiff": _aiff,
    "w64": _w64,
    "au": _au,
    "ogg": _ogg,
    "mp4": _mp4,
    "webm": _webm,
    "caf": _caf,
    "asf": _asf,
    "wavpack": _wavpack,
}
_OPEN_ENDS: dict[str, Callable[[RandomAccessBytes], bool]] = {
    "wav": _is_open_wav,
    "aiff": _is_open_aiff,
    "w64": _is_open_w64,
    "au": _is_open_au,
    "ogg": _is_open_ogg,
    "caf": _is_open_caf,
    "flac": _is_open_flac,
    "asf": lambda data: is_broadcast("asf", data),
}
