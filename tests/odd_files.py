"""Sound files as programs, pipes and broken transfers leave them, each with the length that it has, or why it has none.

Made here from the project's own libraries and a few changed bytes. `ODD_FILES` is the table that the probe and the
engine are held to (`tests/mastering/audio/test_odd_files.py`). `frames` is what FFmpeg decodes, and where FFmpeg or SoX
count otherwise the row says so. `python -m tests.odd_files` (`make odd-files`) holds the table to the programs that
this machine has.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from mastering.audio.container import id3_end
from mastering.contract import FaultCode as F
from tests.crowded_tags import ogg_checksum, ogg_pages
from tests.hostile_audio import chunk, encoded, form_chunk, noise, written

CD = 66_150
"""Frames of a second and a half at 44.1 kHz."""
DAT = 72_000
"""The same at 48 kHz."""
SHORTER = 52_920
"""Frames of 1.2 seconds at 44.1 kHz."""
OPEN = "does not say how long it is"
CUT = "may have been cut off"
STREAMS = "its default one, was mastered"
NOT_READ_BACK = "FFmpeg 5.1 reads nothing of it, nor of what it writes to a pipe itself; every sample is there"


@dataclass(frozen=True)
class OddFile:
    """A file and what is right to make of it: `frames`, or a refusal by one of `refused`."""

    suffix: str
    make: Callable[[], bytes]
    frames: int | None = None
    refused: frozenset[F] = frozenset()
    remark: str | None = None
    """What the report says of it, in part."""
    by_ffmpeg: int | None = None
    """Frames by FFmpeg 5.1, where they are others."""
    by_sox: int | None = None
    """The same of SoX 14.4.2 where it reads the file and counts otherwise."""
    because: str = ""
    """Why ours is right where FFmpeg's is another by more than a coder's frames."""


def _refused(suffix: str, make: Callable[[], bytes], *codes: F) -> OddFile:
    return OddFile(suffix, make, refused=frozenset(codes))


# What the files are made of


@cache
def _pcm() -> bytes:
    return (noise() * 32767).astype("<i2").tobytes()


def _riff(
    data_size: int, riff_size: int, audio: bytes | None = None, before: bytes = b"", mark: bytes = b"RIFF"
) -> bytes:
    sound = _pcm() if audio is None else audio
    return (
        mark + struct.pack("<I", riff_size) + b"WAVE" + form_chunk(44_100) + before + chunk(b"data", sound, data_size)
    )


def _rf64(riff_size: int, data_size: int, mark: bytes = b"RF64", in_chunk: int = 0xFFFFFFFF) -> bytes:
    sizes = chunk(b"ds64", struct.pack("<QQQI", riff_size, data_size, CD, 0))
    sound = chunk(b"data", _pcm(), in_chunk)
    return mark + b"\xff\xff\xff\xffWAVE" + sizes + form_chunk(44_100) + sound


_RF64_BYTES = 12 + 36 + 24 + 8 + 4 * CD - 8


def _overwritten(whole: bytes, changes: dict[int, bytes]) -> bytes:
    changed = bytearray(whole)
    for at, content in changes.items():
        changed[at : at + len(content)] = content
    return bytes(changed)


def _float_wav_of_0() -> bytes:
    whole = written(noise(), subtype="FLOAT")
    return _overwritten(whole, {4: bytes(4), whole.index(b"data") + 4: bytes(4)})


def _aiff(size: int, frames: int) -> bytes:
    """Sizes as a pipe's writer leaves them: of the file, of the sound, of the frames."""
    whole = written(noise(), kind="AIFF", subtype="PCM_16")
    at, common = whole.index(b"SSND"), whole.index(b"COMM")
    sizes = {4: struct.pack(">I", size), at + 4: struct.pack(">I", size), common + 10: struct.pack(">I", frames)}
    return _overwritten(whole, sizes)


def _sized(kind: str, at: int, size: bytes, subtype: str = "PCM_16") -> bytes:
    return _overwritten(written(noise(), kind=kind, subtype=subtype), {at: size})


def _w64(size: int) -> bytes:
    whole = written(noise(), kind="W64", subtype="PCM_24")
    at = whole.index(b"data\xf3\xac\xd3\x11")
    return _overwritten(whole, {16: b"\xff" * 8, at + 16: struct.pack("<Q", size)})


def _caf(size: int) -> bytes:
    whole = encoded("caf", "pcm_s16be")
    return _overwritten(whole, {whole.index(b"data") + 4: struct.pack(">q", size)})


def _flac_counting(frames: int) -> bytes:
    """A FLAC whose header counts `frames`; 0 is what a pipe's writer leaves."""
    whole = written(noise(), kind="FLAC", subtype="PCM_16")
    return _overwritten(whole, {21: bytes([whole[21] & 0xF0]), 22: struct.pack(">I", frames)})


@cache
def _vorbis(rate_hz: int = 44_100, channels: int = 2, number: int = 1) -> bytes:
    """Each `number` is a stream with a serial number of its own."""
    return written(noise(1.5, channels, rate_hz), rate_hz, "OGG", "VORBIS")


@cache
def _shorter() -> bytes:
    return written(noise(1.2), kind="OGG", subtype="VORBIS")


def _without_end_mark(whole: bytes) -> bytes:
    *pages, last = ogg_pages(whole)
    unsigned = _overwritten(last, {5: bytes([last[5] & ~4]), 22: bytes(4)})
    return b"".join(pages) + _overwritten(unsigned, {22: struct.pack("<I", ogg_checksum(unsigned))})


def _cut(whole: bytes, share: float = 0.6) -> bytes:
    return whole[: int(len(whole) * share)]


@cache
def _mp3() -> bytes:
    whole = encoded("mp3", "libmp3lame")
    return whole[id3_end(whole) :]


def _first_frame_bytes(mp3: bytes) -> int:
    return mp3.index(mp3[:2], 4)


def _mp3_without_header() -> bytes:
    whole = _mp3()
    return whole[_first_frame_bytes(whole) :]


def _mp3_counting(frames: int) -> bytes:
    """With `frames` MPEG frames in its Xing header, of which there are 64."""
    whole = _mp3()
    at = max(whole.find(b"Xing"), whole.find(b"Info"))
    return _overwritten(whole, {at + 8: struct.pack(">I", frames)})


def _id3(size: int = 1000) -> bytes:
    return b"ID3\3\0\0" + bytes([0, 0, size >> 7, size & 127]) + bytes(size)


def _ape() -> bytes:
    item = struct.pack("<II", 3, 0) + b"Title\0Ode"
    header, footer = (
        b"APETAGEX" + struct.pack("<IIII", 2000, len(item) + 32, 1, flags) + bytes(8)
        for flags in (0xA0000000, 0x80000000)
    )
    return header + item + footer


_ID3V1 = b"TAG" + b"Ode".ljust(125, b"\0")


class _Pipe:
    """A file that cannot seek."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, piece: bytes) -> int:
        self.data += piece
        return len(piece)


def _media(
    container: str, *streams: tuple[str, float], default: int = 0, is_piped: bool = False, **options: str
) -> bytes:
    """A file with audio streams side by side: coding and seconds of each, at 48 kHz."""
    target: Any = _Pipe() if is_piped else io.BytesIO()
    with av.open(target, "w", format=container, options=options) as media:
        made: list[Any] = [media.add_stream(codec, rate=48_000) for codec, _ in streams]
        for number, stream in enumerate(made):
            stream.codec_context.layout = "stereo"
            stream.codec_context.bit_rate = 128_000
            stream.disposition = Disposition.default if number == default else 0
        for stream, (_, seconds) in zip(made, streams, strict=True):
            form, samples = stream.codec_context.format, noise(seconds, 2, 48_000)
            if form.name == "s16":
                frame = av.AudioFrame.from_ndarray(_whole_numbers(samples).reshape(1, -1), "s16", "stereo")
            else:
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", "stereo")
            frame.sample_rate, frame.pts = 48_000, 0
            parts = [frame] if form.name == "s16" else av.AudioResampler(form, "stereo", 48_000).resample(frame)
            packets = [packet for part in [*parts, None] for packet in stream.encode(part)]
            media.mux(packets)
    return bytes(target.data) if is_piped else target.getvalue()


def _whole_numbers(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return (samples * 32767).astype(np.int16)


def _piped(container: str, codec: str, **options: str) -> bytes:
    """As FFmpeg writes to a pipe."""
    return _media(container, (codec, 1.5), is_piped=True, **options)


def _edited_m4a(first_frame: int) -> bytes:
    """An M4A whose edit list begins the song later."""
    whole = encoded("mp4", "aac")
    at = whole.index(b"elst") + 4
    duration, _ = struct.unpack(">Ii", whole[at + 8 : at + 16])
    shorter = duration - first_frame * 1000 // 48_000  # in milliseconds, as `mvhd` counts
    return _overwritten(whole, {at + 8: struct.pack(">Ii", shorter, first_frame)})


def _m4a_with_open_mdat() -> bytes:
    """`mdat` as the last box, of size 0: to the file's end."""
    whole = encoded("mp4", "aac")
    sound, moov = whole.index(b"mdat") - 4, whole.index(b"moov") - 4
    index = bytearray(whole[moov:])
    at = index.index(b"stco") + 8
    for place in range(at + 4, at + 4 + 4 * int.from_bytes(index[at : at + 4], "big"), 4):
        moved = int.from_bytes(index[place : place + 4], "big") + len(index)
        index[place : place + 4] = moved.to_bytes(4, "big")
    return whole[:sound] + bytes(index) + bytes(4) + whole[sound + 4 : moov]


def _many_channel_wavpack() -> bytes:
    """The first block says that others of the same stretch of time follow."""
    whole = encoded("wv", "wavpack")
    return _overwritten(whole, {25: bytes([whole[25] & ~0x10])})


def _wavpack_counting(frames: int) -> bytes:
    return _overwritten(encoded("wv", "wavpack"), {12: struct.pack("<I", frames)})


_DAMAGED = (F.TRUNCATED, F.UNDECODABLE, F.UNSUPPORTED_FORMAT)
_ADTS, _WAVPACK = ("adts", "aac"), ("wv", "wavpack")

_WAV = {
    "WAV, plain": OddFile("wav", lambda: _riff(4 * CD, 36 + 4 * CD), CD),
    "WAV, sizes of 0": OddFile("wav", lambda: _riff(0, 0), CD, remark=OPEN, by_sox=0),
    "WAV, audio of 0 bytes in a file of 44": OddFile("wav", lambda: _riff(0, 36), CD, remark=OPEN, by_sox=0),
    "WAV, sizes of 0xFFFFFFFF (ffmpeg to a pipe)": OddFile(
        "wav", lambda: _riff(0xFFFFFFFF, 0xFFFFFFFF, before=chunk(b"LIST", b"INFO")), CD, remark=OPEN
    ),
    "WAV, size of 0x7FFFF000 (sox to a pipe)": OddFile("wav", lambda: _riff(0x7FFFF000, 0x7FFFF024), CD, remark=OPEN),
    "WAV, size of 0x7FFFFFFF (lame, oggdec to a pipe)": OddFile(
        "wav", lambda: _riff(0x7FFFFFFF, 0x80000023), CD, remark=OPEN
    ),
    "WAV, 24 bits of mono, sizes of 0xFFFFFFFF": OddFile(
        "wav", lambda: _sized("WAV", 40, b"\xff" * 4, "PCM_24"), CD, remark=OPEN
    ),
    "WAV, sizes of 0 in floats": OddFile("wav", _float_wav_of_0, CD, remark=OPEN, by_sox=0),
    "WAV, four bytes fewer than it says": OddFile("wav", lambda: _riff(4 * CD + 4, 40 + 4 * CD), CD),
    "WAV, a hundred bytes fewer than it says": _refused("wav", lambda: _riff(4 * CD + 100, 136 + 4 * CD), F.TRUNCATED),
    "WAV, cut off": _refused("wav", lambda: _cut(_riff(4 * CD, 36 + 4 * CD)), F.TRUNCATED),
    "WAV, a list behind its audio": OddFile("wav", lambda: _riff(4 * CD, 48 + 4 * CD) + chunk(b"LIST", b"INFO"), CD),
    "WAV, 999 bytes behind its end": OddFile("wav", lambda: _riff(4 * CD, 36 + 4 * CD) + bytes(range(111)) * 9, CD),
    "WAV, an odd number of bytes and no padding": OddFile(
        "wav", lambda: written(noise(1.5, 1)[1:], subtype="PCM_U8"), CD - 1
    ),
    "WAV, empty but for a list": _refused(
        "wav", lambda: _riff(0, 36 + 1012, b"") + chunk(b"LIST", b"INFO" + bytes(1000)), *_DAMAGED, F.TOO_SHORT
    ),
    "WAV, behind an ID3 tag": OddFile("wav", lambda: _id3() + _riff(4 * CD, 36 + 4 * CD), CD),
    "WAV, behind an ID3 tag, sizes of 0": OddFile("wav", lambda: _id3() + _riff(0, 0), CD, remark=OPEN),
    "WAV, an MP3 inside": OddFile("wav", lambda: _media("wav", ("libmp3lame", 1.5)), 73_728),
    "WAV, μ-law": OddFile("wav", lambda: written(noise(), subtype="ULAW"), CD),
    "WAV, IMA ADPCM": OddFile("wav", lambda: written(noise(), subtype="IMA_ADPCM"), 67_353),
    "WAV, Microsoft ADPCM": OddFile("wav", lambda: written(noise(), subtype="MS_ADPCM"), 67_188),
    "WAV, doubles": OddFile("wav", lambda: written(noise(), subtype="DOUBLE"), CD),
    "RF64": OddFile("wav", lambda: _rf64(_RF64_BYTES, 4 * CD), CD),
    "RF64, sizes of 0 (ffmpeg to a pipe)": OddFile(
        "wav", lambda: _rf64(0, 0), CD, remark=OPEN, by_ffmpeg=0, by_sox=0, because=NOT_READ_BACK
    ),
    "RF64, sizes of -1": OddFile(
        "wav", lambda: _rf64((1 << 64) - 1, (1 << 64) - 1), CD, remark=OPEN, by_ffmpeg=0, because=NOT_READ_BACK
    ),
    "RF64, its size where a RIFF has it": OddFile("wav", lambda: _rf64(_RF64_BYTES, 4 * CD, in_chunk=4 * CD), CD),
    "RF64, cut off": _refused("wav", lambda: _cut(_rf64(_RF64_BYTES, 4 * CD)), F.TRUNCATED),
    "BW64": OddFile("wav", lambda: _rf64(_RF64_BYTES, 4 * CD, b"BW64"), CD),
    "BW64, sizes of 0": OddFile(
        "wav", lambda: _rf64(0, 0, b"BW64"), CD, remark=OPEN, by_ffmpeg=0, because=NOT_READ_BACK
    ),
}
_OTHER_PCM = {
    "AIFF, sizes of 0 (ffmpeg to a pipe)": OddFile(
        "aiff", lambda: _aiff(0, 0), CD, remark=OPEN, by_ffmpeg=0, because=NOT_READ_BACK
    ),
    "AIFF, size of 0x7F000008 (sox to a pipe)": OddFile("aiff", lambda: _aiff(0x7F000008, 0x1FC00000), CD, remark=OPEN),
    "AIFF, an odd number of bytes": OddFile(
        "aiff", lambda: written(noise(1.5, 1)[1:], kind="AIFF", subtype="PCM_S8"), CD
    ),
    "AIFF, cut off": _refused("aiff", lambda: _cut(written(noise(), kind="AIFF")), F.TRUNCATED),
    "AIFC, little-endian": OddFile("aiff", lambda: _media("aiff", ("pcm_s16le", 1.5)), DAT),
    "W64": OddFile("w64", lambda: written(noise(), kind="W64", subtype="PCM_24"), CD),
    "W64, sizes of -1 (ffmpeg to a pipe)": OddFile(
        "w64", lambda: _w64((1 << 63) - 1), CD, remark=OPEN, by_ffmpeg=0, because=NOT_READ_BACK
    ),
    "W64, cut off": _refused("w64", lambda: _cut(written(noise(), kind="W64")), F.TRUNCATED),
    "AU": OddFile("au", lambda: written(noise(), kind="AU", subtype="PCM_24"), CD),
    "AU, μ-law": OddFile("au", lambda: written(noise(), kind="AU", subtype="ULAW"), CD),
    "AU, size of 0xFFFFFFFF (ffmpeg to a pipe)": OddFile("au", lambda: _sized("AU", 8, b"\xff" * 4), CD, remark=OPEN),
    "AU, size of 0": OddFile("au", lambda: _sized("AU", 8, bytes(4)), CD, remark=OPEN),
    "AU, cut off": _refused("au", lambda: _cut(written(noise(), kind="AU")), F.TRUNCATED),
    "CAF, size of -1 (ffmpeg to a pipe)": OddFile("caf", lambda: _caf(-1), DAT, remark=OPEN),
    "CAF, floats": OddFile("caf", lambda: written(noise(), kind="CAF", subtype="FLOAT"), CD),
    "CAF, Apple Lossless": OddFile("caf", lambda: encoded("caf", "alac"), DAT),
    "CAF, cut off": _refused("caf", lambda: _cut(encoded("caf", "pcm_s16be")), F.TRUNCATED),
}
_FLAC_AND_OGG = {
    "FLAC, of unknown length (ffmpeg to a pipe)": OddFile("flac", lambda: _flac_counting(0), CD, remark=OPEN),
    "FLAC, more frames than it says": OddFile("flac", lambda: _flac_counting(40_000), CD, by_sox=40_000),
    "FLAC, fewer frames than it says": _refused("flac", lambda: _flac_counting(CD + 1), F.TRUNCATED),
    "FLAC, cut off": _refused("flac", lambda: _cut(written(noise(), kind="FLAC")), F.TRUNCATED),
    "FLAC, behind an ID3 tag": OddFile("flac", lambda: _id3() + written(noise(), kind="FLAC"), CD),
    "FLAC, before an ID3v1 tag": OddFile("flac", lambda: written(noise(), kind="FLAC") + _ID3V1, CD),
    "Ogg Vorbis": OddFile("ogg", _vorbis, CD),
    "Ogg Vorbis, two in a chain": OddFile("ogg", lambda: _vorbis() + _shorter(), CD + SHORTER, by_ffmpeg=119_198),
    "Ogg Vorbis, three in a chain": OddFile(
        "ogg", lambda: _vorbis() + _shorter() + _vorbis(44_100, 2, 2), 2 * CD + SHORTER, by_ffmpeg=185_476
    ),
    "Ogg Vorbis, two copies of one in a chain": OddFile(
        "ogg", lambda: 2 * _vorbis(), 2 * CD, by_ffmpeg=132_428, by_sox=CD
    ),
    "Ogg Vorbis, two in a chain, junk between": OddFile(
        "ogg", lambda: _vorbis() + bytes(500) + _shorter(), CD + SHORTER, by_ffmpeg=119_198
    ),
    "Ogg Vorbis, two in a chain, the second cut off": _refused(
        "ogg", lambda: _cut(_vorbis() + _shorter(), 0.9), F.TRUNCATED
    ),
    "Ogg Vorbis, two in a chain of different rates": _refused(
        "ogg", lambda: _vorbis() + _vorbis(22_050), F.UNSUPPORTED_FORMAT
    ),
    "Ogg Vorbis, two in a chain of different channels": _refused(
        "ogg", lambda: _vorbis() + _vorbis(44_100, 1), F.UNSUPPORTED_FORMAT
    ),
    "Ogg Vorbis, three hundred in a chain": _refused("ogg", lambda: 300 * _vorbis(8_000, 1), F.UNSUPPORTED_FORMAT),
    "Ogg Vorbis, without its end mark": OddFile(
        "ogg", lambda: _without_end_mark(_vorbis()), CD + 26, by_sox=CD, remark=OPEN
    ),
    "Ogg Vorbis, a chain without its first end mark": OddFile(
        "ogg", lambda: _without_end_mark(_vorbis()) + _shorter(), CD + 26 + SHORTER, by_ffmpeg=119_224
    ),
    "Ogg Vorbis, cut off": _refused("ogg", lambda: _cut(_vorbis()), F.TRUNCATED),
    "Ogg Vorbis, behind an ID3 tag": OddFile("ogg", lambda: _id3() + _vorbis(), CD),
    "Ogg Opus, two in a chain": OddFile("opus", lambda: 2 * encoded("ogg", "libopus"), 2 * DAT, by_ffmpeg=144_312),
    "Ogg Opus, without its end mark": OddFile(
        "opus", lambda: _without_end_mark(encoded("ogg", "libopus")), DAT + 648, remark=OPEN
    ),
    "Ogg, Opus behind Vorbis": OddFile(
        "ogg",
        lambda: _vorbis(48_000) + encoded("ogg", "libopus"),
        2 * DAT,
        by_ffmpeg=DAT,
        because="FFmpeg 5.1 stops where the coding changes",
    ),
    "Ogg FLAC, two in a chain": OddFile("oga", lambda: 2 * _media("ogg", ("flac", 1.5)), 2 * DAT),
    "Ogg, two streams side by side": OddFile(
        "ogg", lambda: _media("ogg", ("libopus", 1.2), ("libopus", 1.5)), 57_600, remark=STREAMS
    ),
}
_MPEG = {
    "MP3": OddFile("mp3", _mp3, DAT),
    "MP3, without a Xing header": OddFile("mp3", _mp3_without_header, 73_728),
    "MP3, two joined": OddFile("mp3", lambda: 2 * _mp3(), 147_503),
    "MP3, two joined with their tags": OddFile("mp3", lambda: 2 * (_id3() + _mp3() + _ID3V1), 146_351),
    "MP3, two joined without headers": OddFile("mp3", lambda: 2 * _mp3_without_header(), 2 * 73_728),
    "MP3, 5,000 zeros before its first frame": OddFile("mp3", lambda: bytes(5000) + _mp3(), DAT, by_ffmpeg=73_728),
    "MP3, 100,000 zeros and a tag before its first frame": OddFile(
        "mp3", lambda: bytes(100_000) + _id3() + _mp3(), DAT, by_ffmpeg=73_728
    ),
    "MP3, zeros behind its tag": OddFile("mp3", lambda: _id3() + bytes(3000) + _mp3(), DAT, by_ffmpeg=73_728),
    "MP3, zeros at its end": OddFile("mp3", lambda: _mp3() + bytes(5000), 72_623),
    "MP3, an ID3v1 tag at its end": OddFile("mp3", lambda: _mp3() + _ID3V1, DAT),
    "MP3, an APE tag at its end": OddFile("mp3", lambda: _mp3() + _ape(), DAT),
    "MP3, an APE tag before its first frame": OddFile("mp3", lambda: _ape() + _mp3(), DAT, by_ffmpeg=73_728),
    "MP3, more frames than its Xing header says": OddFile("mp3", lambda: _mp3_counting(20), DAT),
    "MP3, fewer frames than its Xing header says": _refused("mp3", lambda: _mp3_counting(90), F.TRUNCATED),
    "MP3, a Xing header that counts none": OddFile("mp3", lambda: _mp3_counting(0), 72_623),
    "MP3, cut off": _refused("mp3", lambda: _cut(_mp3()), F.TRUNCATED),
    "MP3, cut off and without a header": OddFile("mp3", lambda: _cut(_mp3_without_header(), 0.903), 66_816, remark=CUT),
    "MP2": OddFile("mp2", lambda: encoded("mp2", "mp2"), 72_576),
    "MP2, zeros before its first frame": OddFile("mp2", lambda: bytes(3000) + encoded("mp2", "mp2"), 72_576),
    "ADTS (AAC)": OddFile("aac", lambda: encoded(*_ADTS), 73_728),
    "ADTS (AAC), behind an ID3 tag": OddFile("aac", lambda: _id3() + encoded(*_ADTS), 73_728),
    "ADTS (AAC), two joined": OddFile("aac", lambda: 2 * encoded(*_ADTS), 2 * 73_728),
    "ADTS (AAC), cut off": OddFile("aac", lambda: _cut(encoded(*_ADTS), 0.9), 65_536, remark=CUT),
    "AC-3": OddFile("ac3", lambda: encoded("ac3", "ac3"), 72_192),
    "E-AC-3": OddFile("eac3", lambda: encoded("eac3", "eac3"), 72_192),
    "AC-3, cut off": OddFile("ac3", lambda: _cut(encoded("ac3", "ac3"), 0.9), 66_048, remark=CUT),
    "WavPack": OddFile("wv", lambda: encoded(*_WAVPACK), DAT),
    "WavPack, of unknown length (ffmpeg to a pipe)": OddFile("wv", lambda: _wavpack_counting(0xFFFFFFFF), DAT),
    "WavPack, before an APE tag": OddFile("wv", lambda: encoded(*_WAVPACK) + _ape(), DAT),
    "WavPack, cut off": _refused("wv", lambda: _cut(encoded(*_WAVPACK)), F.TRUNCATED),
    "WavPack, fewer frames than it says": _refused("wv", lambda: _wavpack_counting(DAT + 9), F.TRUNCATED),
    "WavPack, of many channels by its blocks": _refused("wv", _many_channel_wavpack, F.UNSUPPORTED_FORMAT),
    "TTA": _refused("tta", lambda: _media("tta", ("tta", 1.5)), F.UNSUPPORTED_FORMAT),
}
_BOXES = {
    "M4A, two streams, the second its default": OddFile(
        "m4a", lambda: _media("mp4", ("aac", 1.2), ("aac", 1.5), default=1), 72_704, remark=STREAMS
    ),
    "M4A, two streams, the first its default": OddFile(
        "m4a", lambda: _media("mp4", ("aac", 1.2), ("aac", 1.5)), 58_368, remark=STREAMS
    ),
    "M4A, its edit list begins later": OddFile("m4a", lambda: _edited_m4a(12_000), 61_728),
    "M4A, in fragments (ffmpeg to a pipe)": OddFile(
        "m4a", lambda: _piped("mp4", "aac", movflags="frag_keyframe+empty_moov"), 73_728
    ),
    "M4A, its sound box to the end of the file": OddFile("m4a", _m4a_with_open_mdat, 73_728),
    "M4A, cut off": _refused("m4a", lambda: _cut(encoded("mp4", "aac")), F.TRUNCATED),
    "M4A in fragments, cut off": _refused(
        "m4a", lambda: _cut(_piped("mp4", "aac", movflags="frag_keyframe+empty_moov"), 0.95), F.TRUNCATED
    ),
    "Apple Lossless, cut off": _refused("m4a", lambda: _cut(encoded("mp4", "alac")), F.TRUNCATED),
    "WebM, of unknown length (ffmpeg to a pipe)": OddFile("webm", lambda: _piped("webm", "libopus"), DAT),
    "Matroska, two streams, the second its default": OddFile(
        "mkv", lambda: _media("matroska", ("flac", 1.2), ("flac", 1.5), default=1), DAT, remark=STREAMS
    ),
    "WebM, cut off": _refused("webm", lambda: _cut(encoded("webm", "libopus")), F.TRUNCATED),
    "WMA": OddFile("wma", lambda: _media("asf", ("wmav2", 1.5)), 71_680),
    "WMA, as it was sent (ffmpeg to a pipe)": OddFile("wma", lambda: _piped("asf", "wmav2"), 71_680, remark=OPEN),
    "WMA, cut off": _refused("wma", lambda: _cut(_media("asf", ("wmav2", 1.5))), F.TRUNCATED),
}
ODD_FILES: dict[str, OddFile] = {**_WAV, **_OTHER_PCM, **_FLAC_AND_OGG, **_MPEG, **_BOXES}


# What other programs make of them

_CODER_FRAMES = 2304
"""By which two decoders of a lossy coding may differ at each end, or two versions of one: two frames of an MP3."""


def main() -> int:
    """Hold the table to the ffmpeg and sox of this machine; 1 where one of them counts otherwise."""
    counters = {"ffmpeg": _by_ffmpeg, "sox": _by_sox}
    there = [name for name in counters if shutil.which(name)]
    for name in counters.keys() - there:
        print(f"{name} is not installed here: what it counts was not checked.")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, file in ODD_FILES.items():
            path = Path(folder) / f"odd.{file.suffix}"
            path.write_bytes(file.make())
            for program in there if file.frames is not None else []:
                expected, found = _expected(file, program), counters[program](path)
                if found is not None and expected is not None and abs(found - expected) > _CODER_FRAMES:
                    print(f"{name}: {program} counts {found}, the table says {expected}")
                    wrong += 1
    print(f"{len(ODD_FILES)} files, {wrong} counted otherwise than the table says.")
    return 1 if wrong else 0


def _expected(file: OddFile, program: str) -> int | None:
    other = file.by_ffmpeg if program == "ffmpeg" else file.by_sox
    return file.frames if other is None else other


def _by_ffmpeg(path: Path) -> int:
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-f", "s16le", "-ac", "1", "-"], capture_output=True, check=False
    )
    return len(done.stdout) // 2


def _by_sox(path: Path) -> int | None:
    """None for a format that it does not know."""
    done = subprocess.run(["sox", path, "-t", "s16", "-c", "1", "-"], capture_output=True, check=False)
    return len(done.stdout) // 2 if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
