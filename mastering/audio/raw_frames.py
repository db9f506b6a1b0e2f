"""Audio that is nothing but coded frames, one behind the other: MP3, MP2, ADTS (AAC), AC-3 and E-AC-3.

Bytes in, sizes out; nothing is decoded. Sources: ISO 11172-3 and 13818-3 (MPEG audio header), ISO 14496-3 Annex 1.A
(ADTS), ETSI TS 102 366 (AC-3, Annex E for E-AC-3), the LAME project (Xing header).
"""

from __future__ import annotations

from mastering.audio.riff import RandomAccessBytes

MAX_ZERO_BYTES = 1 << 20
"""Before the first frame: cutting programs and broken downloads leave some, which players step over."""
_FRAMES_IN_A_ROW = {"mp3": 2, "mp2": 3, "aac": 3, "ac3": 3, "eac3": 3}
"""So many make a file one of these: the header of a single one turns up in random bytes."""
_PIECE_BYTES = 64 * 1024
_HEADER_BYTES = 7
_LARGEST_FRAME_BYTES = 8192
RAW_CONTAINERS = frozenset(_FRAMES_IN_A_ROW)

_MPEG_KBPS = {
    ("mp3", 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    ("mp2", 3): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    ("mp3", 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    ("mp2", 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by their index: version 1 (3), versions 2 and 2.5 (2)."""
_MPEG_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Sample rates by version and index."""
_MPEG_LAYERS = {1: "mp3", 2: "mp2"}
_AC3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_AC3_RATES_HZ = (48000, 44100, 32000)


def zeros_end(data: RandomAccessBytes, at: int) -> int:
    """The first byte from `at` on that is not zero, or `MAX_ZERO_BYTES` further on."""
    end = at
    while end < at + MAX_ZERO_BYTES and (piece := data[end : end + _PIECE_BYTES]):
        behind = piece.lstrip(b"\0")
        end += len(piece) - len(behind)
        if behind:
            break
    return end


def raw_container(data: RandomAccessBytes, at: int) -> str | None:
    """mp3, mp2, aac, ac3 or eac3 by the frames that begin at byte `at`; None where there are none."""
    first = _frame(data, at)
    if first is None:
        return None
    kind = first[0]
    for _ in range(_FRAMES_IN_A_ROW[kind]):
        found = _frame(data, at)
        if found is None or found[0] != kind:
            return None
        at += found[1]
    return kind


def ends_inside_frame(kind: str, data: RandomAccessBytes) -> bool:
    """Whether the last frame of a file of `kind` frames is not whole. False where something else stands behind them."""
    tail = data[max(0, len(data) - _PIECE_BYTES) : len(data)]
    at = next((at for at in range(_LARGEST_FRAME_BYTES) if raw_container(tail, at) == kind), len(tail))
    while (frame := _frame(tail, at)) is not None and frame[0] == kind:
        at += max(1, frame[1])
    return at > len(tail) or 0 < len(tail) - at < _HEADER_BYTES


def _frame(data: RandomAccessBytes, at: int) -> tuple[str, int] | None:
    """Kind and size in bytes of the frame at `at`."""
    head = data[at : at + _HEADER_BYTES]
    if len(head) < _HEADER_BYTES:
        return None
    if head[:2] == b"\x0b\x77":
        return _ac3_frame(head)
    if head[0] != 0xFF:
        return None
    return _adts_frame(head) if head[1] & 0xF6 == 0xF0 else _mpeg_frame(head)


def _mpeg_frame(head: bytes) -> tuple[str, int] | None:
    version, kind = head[1] >> 3 & 3, _MPEG_LAYERS.get(head[1] >> 1 & 3)
    rate_index, kbps_index = head[2] >> 2 & 3, head[2] >> 4
    if head[1] & 0xE0 != 0xE0 or kind is None or version == 1 or rate_index == 3 or kbps_index in (0, 15):
        return None
    kbps = _MPEG_KBPS[kind, 3 if version == 3 else 2][kbps_index]
    slots = 72 if kind == "mp3" and version != 3 else 144
    return kind, slots * kbps * 1000 // _MPEG_RATES_HZ[version][rate_index] + (head[2] >> 1 & 1)


def _adts_frame(head: bytes) -> tuple[str, int] | None:
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return ("aac", size) if head[2] >> 2 & 15 <= 12 and size > 7 else None


def _ac3_frame(head: bytes) -> tuple[str, int] | None:
    syntax = head[5] >> 3
    if 10 < syntax <= 16:
        return "eac3", 2 * ((head[2] & 7) << 8 | head[3]) + 2
    rate_index, size_index = head[4] >> 6, head[4] & 63
    if syntax > 10 or rate_index == 3 or size_index >= 2 * len(_AC3_KBPS):
        return None
    # 1536 samples; at 44.1 kHz every other frame is a word longer.
    words = 1536 * _AC3_KBPS[size_index >> 1] * 1000 // _AC3_RATES_HZ[rate_index] // 16
    return "ac3", 2 * (words + (size_index & 1 if rate_index == 1 else 0))


def xing_frames(data: RandomAccessBytes, at: int) -> int | None:
    """Audio frames that the Xing or Info header of an MP3 announces, the encoder's padding included; None without one.

    The MP3's first frame begins at byte `at`.
    """
    head = data[at : at + 4]
    if len(head) < 4:
        return None
    is_version_1, is_mono = head[1] >> 3 & 3 == 3, head[3] >> 6 == 3
    at += 4 + {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[is_version_1, is_mono]
    header = data[at : at + 12]
    if header[:4] not in (b"Xing", b"Info") or len(header) < 12 or not header[7] & 1:
        return None
    return int.from_bytes(header[8:12], "big") * (1152 if is_version_1 else 576)
