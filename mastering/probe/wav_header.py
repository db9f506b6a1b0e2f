"""What a plain WAV is, told by its beginning and its size: no decoder is asked, and nothing to come can change it.

To be born and to end takes a child ten milliseconds of a core, and a song needs two of them. They are worth it where C
code meets a stranger's bytes; here is none of it. So one child, locked up like any other, looks at the beginnings of
all such files, one after the other, and forgets each: it copies none of its samples. Whatever is not as plain as that,
not sound at once, or not as it should be, it says nothing of: a child of its own hears it, and says what is wrong.

Source: RIFF/WAVE (Multimedia Programming Interface 1.0); WAVE_FORMAT_EXTENSIBLE (mmreg.h).
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, NamedTuple

from mastering.audio.riff import wav_chunks
from mastering.contract import Fault
from mastering.probe.checks import DecodeSummary, check_header, is_silent, judge
from mastering.probe.decoders import Header
from mastering.protocol.probe import Request

MOST_BYTES = 1024 * 1024
"""Of a beginning."""
SIZES = struct.Struct("!II")
"""Before each question: the bytes of its request, and those of the file's beginning behind that."""
_EVERY_SAMPLES = 33
"""One sample in so many is looked at, of each channel in turn."""
_HEAD_BYTES = 16 * 1024
"""In which the audio must begin."""
_FORMAT = struct.Struct("<HHIIHH")
"""Tag, channels, frames a second, bytes a second, bytes a frame, bits a sample."""
_PCM, _EXTENSIBLE = 0x0001, 0xFFFE
_PCM_GUID = b"\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
_FILLERS = frozenset({b"JUNK", b"junk", b"PAD ", b"FLLR"})
"""Chunks that every reader passes over."""


def serve(feed: int) -> None:
    """Answer on the descriptor `feed` until the caller hangs up: a line of JSON for each question, null for nothing."""
    room = memoryview(bytearray(MOST_BYTES))
    while sizes := _read(feed, memoryview(bytearray(SIZES.size))):
        of_request, of_beginning = SIZES.unpack(sizes)
        if of_beginning > len(room):
            raise ValueError("so much is no beginning")
        text, beginning = _read(feed, memoryview(bytearray(of_request))), _read(feed, room[:of_beginning])
        line = json.dumps(glance(Request.model_validate_json(bytes(text)), beginning)).encode() + b"\n"
        beginning[:] = bytes(len(beginning))  # forgotten before anybody hears of it
        os.write(feed, line)


def _read(feed: int, room: memoryview) -> memoryview:
    """As much as fits into `room`; less where the caller hung up."""
    count = 0
    while count < len(room) and (got := os.readv(feed, [room[count:]])):
        count += got
    return room[:count]


def glance(request: Request, beginning: memoryview) -> dict[str, Any] | None:
    """What `request` would be answered of the file that begins so, or None where more must be known."""
    size = request.size or 0
    plain = _plain(beginning, size) if size <= request.max_bytes else None
    if plain is None:
        return None
    try:
        check_header(plain.header, request.max_duration_s)
        return request.answer(judge(plain.header, plain.heard, is_cut_short=False, slack_frames=0), size)
    except Fault:
        return None


class _Plain(NamedTuple):
    """A WAV of whole numbers whose parts no two readers can take for different ones."""

    header: Header
    heard: DecodeSummary
    """All of its frames, by a peak of its beginning."""


def _plain(beginning: memoryview, size: int) -> _Plain | None:
    head = beginning[:_HEAD_BYTES]
    if size >= 1 << 32 or bytes(head[:12]) != b"RIFF" + struct.pack("<I", max(0, size - 8)) + b"WAVE":
        return None
    parts = [part for part in wav_chunks(head) if part[0] not in _FILLERS]
    if [name for name, *_ in parts] not in ([b"fmt ", b"data"], [b"fmt ", b"fact", b"data"]):
        return None
    (_, at, described), *counted, (_, first, audio_bytes) = parts
    form = _form(bytes(head[at : at + described]))
    if form is None or audio_bytes % 2 or audio_bytes % form.frame_bytes or first + audio_bytes != size:
        return None
    frames = audio_bytes // form.frame_bytes
    if any(bytes(head[at : at + length]) != struct.pack("<I", frames) for _, at, length in counted):
        return None
    header = Header("wav", f"pcm_{8 * form.width}", form.rate_hz, form.channels, frames)
    return _Plain(header, DecodeSummary(frames, _peak(beginning[first:], form.width), broke=False))


def _peak(audio: memoryview, width: int) -> float:
    """The largest that is found up to the first which is no silence; 1.0 is full scale."""
    peak, full_scale = 0.0, float(1 << 8 * width - 1)
    for at in range(0, len(audio) - width + 1, _EVERY_SAMPLES * width):
        sample = int.from_bytes(audio[at : at + width], "little", signed=True)
        peak = max(peak, abs(sample) / full_scale)
        if not is_silent(peak):
            break
    return peak


class _Form(NamedTuple):
    """Of samples that are whole numbers."""

    width: int
    """Bytes of one."""
    channels: int
    rate_hz: int

    @property
    def frame_bytes(self) -> int:
        return self.width * self.channels


def _form(described: bytes) -> _Form | None:
    """By the chunk that describes it; None for other than whole numbers of 16 or 24 bits, packed as they should be."""
    if len(described) not in (16, 40):
        return None
    tag, channels, rate_hz, bytes_per_s, frame_bytes, bits = _FORMAT.unpack_from(described)
    is_pcm = tag == _PCM if len(described) == 16 else tag == _EXTENSIBLE and _is_extended_pcm(described, bits)
    if not is_pcm or bits not in (16, 24) or not channels:
        return None
    form = _Form(bits // 8, channels, rate_hz)
    return form if (frame_bytes, bytes_per_s) == (form.frame_bytes, rate_hz * form.frame_bytes) else None


def _is_extended_pcm(described: bytes, bits: int) -> bool:
    extra, valid_bits = struct.unpack_from("<HH", described, 16)
    return extra == 22 and valid_bits == bits and described[24:] == _PCM_GUID
