"""The facts of a plain WAV by its header, its first samples and its size: no decoder is asked, no later byte matters.

To start and to end takes a child ten milliseconds of a core, and a song and its master need two. They are worth it
where C code parses untrusted bytes; here is none. So one long-lived child, sandboxed like any other, reads the
beginnings of all such files, one after the other, and clears each: it copies none of their samples. Of a file that is
less plain, does not begin with sound or is not as it should be it says nothing: a child of its own decodes it, and says
what is wrong.

Source: RIFF/WAVE (Multimedia Programming Interface 1.0); WAVE_FORMAT_EXTENSIBLE (mmreg.h).
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from mastering.audio.riff import wav_chunks
from mastering.contract import Facts, Fault
from mastering.probe.checks import DecodeSummary, check_header, facts_of, is_silent
from mastering.probe.recording import Header
from mastering.protocol.probe import (
    MAX_REQUEST_BYTES,
    MAX_WAV_BEGINNING_BYTES,
    WAV_HEADER_SIZES,
    ProbeAnswer,
    ProbeRequest,
    verified_audio,
)

_EVERY_SAMPLES = 33
"""One sample in so many is checked, of each channel in turn (the number is odd)."""
_MAX_HEADER_BYTES = 16 * 1024
"""In which the audio must begin."""
_FORMAT = struct.Struct("<HHIIHH")
"""Tag, channels, frames a second, bytes a second, bytes a frame, bits a sample."""
_PCM, _EXTENSIBLE = 0x0001, 0xFFFE
_PCM_GUID = b"\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
_FILLERS = frozenset({b"JUNK", b"junk", b"PAD ", b"FLLR"})
"""Chunks that every reader skips."""


def serve_wav_headers(feed: int) -> None:
    """Answer on the descriptor `feed` until the caller hangs up: a line for each question, null where nothing is known.

    Raises ValueError for a question that is larger than agreed.
    """
    buffer = memoryview(bytearray(MAX_WAV_BEGINNING_BYTES))
    while sizes := _read(feed, memoryview(bytearray(WAV_HEADER_SIZES.size))):
        request_bytes, beginning_bytes = WAV_HEADER_SIZES.unpack(sizes)
        if beginning_bytes > len(buffer) or request_bytes > MAX_REQUEST_BYTES:
            raise ValueError("the beginning of a file is larger than agreed")
        text = _read(feed, memoryview(bytearray(request_bytes)))
        beginning = _read(feed, buffer[:beginning_bytes])
        facts = plain_wav_facts(ProbeRequest.model_validate_json(bytes(text)), beginning)
        line = ProbeAnswer(ok=facts).model_dump_json(exclude_none=True).encode() if facts else b"null"
        beginning[:] = bytes(len(beginning))  # cleared before it is answered
        os.write(feed, line + b"\n")


def _read(feed: int, target: memoryview) -> memoryview:
    """As much as fits into `target`; less where the caller hung up."""
    count = 0
    while count < len(target) and (got := os.readv(feed, [target[count:]])):
        count += got
    return target[:count]


def plain_wav_facts(request: ProbeRequest, beginning: memoryview) -> Facts | None:
    """What `request` is answered of the file that begins so; None where that does not settle it, or is a fault."""
    size = request.size or 0
    wav = _plain_wav(beginning, size) if size <= request.max_bytes else None
    if wav is None:
        return None
    try:
        check_header(wav.header, request.max_duration_s)
        facts = facts_of(wav.header, wav.summary, is_cut_short=False, allowed_missing_frames=0)
        return facts if request.expected is None else verified_audio(facts, size, request)
    except Fault:
        return None


class _PlainWav(NamedTuple):
    """A WAV of whole numbers whose parts no two readers can take for different ones."""

    header: Header
    summary: DecodeSummary
    """All of its frames, and the peak of its beginning."""


def _plain_wav(beginning: memoryview, size: int) -> _PlainWav | None:
    head = beginning[:_MAX_HEADER_BYTES]
    if size >= 1 << 32 or bytes(head[:12]) != b"RIFF" + struct.pack("<I", max(0, size - 8)) + b"WAVE":
        return None
    chunks = [chunk for chunk in wav_chunks(head) if chunk[0] not in _FILLERS]
    if [name for name, *_ in chunks] not in ([b"fmt ", b"data"], [b"fmt ", b"fact", b"data"]):
        return None
    (_, at, format_bytes), *fact_chunks, (_, first, audio_bytes) = chunks
    form = _sample_format(bytes(head[at : at + format_bytes]))
    if form is None or audio_bytes % 2 or audio_bytes % form.frame_bytes or first + audio_bytes != size:
        return None
    frames = audio_bytes // form.frame_bytes
    if any(bytes(head[at : at + length]) != struct.pack("<I", frames) for _, at, length in fact_chunks):
        return None
    header = Header("wav", f"pcm_{8 * form.sample_bytes}", form.rate_hz, form.channels, frames)
    return _PlainWav(header, DecodeSummary(frames, _first_peak(beginning[first:], form.sample_bytes), has_failed=False))


def _first_peak(audio: memoryview, sample_bytes: int) -> float:
    """The largest sample up to the first that is louder than silence; 1.0 is full scale."""
    peak, full_scale = 0.0, float(1 << 8 * sample_bytes - 1)
    for at in range(0, len(audio) - sample_bytes + 1, _EVERY_SAMPLES * sample_bytes):
        sample = int.from_bytes(audio[at : at + sample_bytes], "little", signed=True)
        peak = max(peak, abs(sample) / full_scale)
        if not is_silent(peak):
            break
    return peak


class _SampleFormat(NamedTuple):
    """Samples of whole numbers."""

    sample_bytes: int
    channels: int
    rate_hz: int

    @property
    def frame_bytes(self) -> int:
        return self.sample_bytes * self.channels


def _sample_format(described: bytes) -> _SampleFormat | None:
    """By the content of the fmt chunk; None for other than whole numbers of 16 or 24 bits, packed as they should be."""
    if len(described) not in (16, 40):
        return None
    tag, channels, rate_hz, bytes_per_s, frame_bytes, bits = _FORMAT.unpack_from(described)
    is_pcm = tag == _PCM if len(described) == 16 else tag == _EXTENSIBLE and _is_extended_pcm(described, bits)
    if not is_pcm or bits not in (16, 24) or not channels:
        return None
    form = _SampleFormat(bits // 8, channels, rate_hz)
    return form if (frame_bytes, bytes_per_s) == (form.frame_bytes, rate_hz * form.frame_bytes) else None


def _is_extended_pcm(described: bytes, bits: int) -> bool:
    extra, valid_bits = struct.unpack_from("<HH", described, 16)
    return extra == 22 and valid_bits == bits and described[24:] == _PCM_GUID
