"""Files that a stranger might send to break a decoder, each with the faults that may answer it. All made here."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from mastering.contract import FaultCode as F

RATE_HZ = 44_100
DAMAGED = {F.UNDECODABLE, F.TRUNCATED, F.UNSUPPORTED_FORMAT}
_QUICKTIME = b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  "
Hostile = tuple[bytes, set[F]]


def noise(seconds: float = 1.5, channels: int = 2, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """`(frames, channels)`"""
    shape = (round(seconds * rate_hz), channels)
    return np.random.default_rng(7).uniform(-0.5, 0.5, shape).astype(np.float32)


def written(samples: NDArray[Any], rate_hz: int = RATE_HZ, kind: str = "WAV", subtype: str | None = None) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, samples, rate_hz, format=kind, subtype=subtype)
    return target.getvalue()


@cache
def encoded(container: str, codec: str, seconds: float = 1.5) -> bytes:
    """A coded file made by FFmpeg's libraries."""
    target = io.BytesIO()
    rate_hz = 48_000
    with av.open(target, "w", format=container) as media:
        stream: Any = media.add_stream(codec, rate=rate_hz)
        stream.codec_context.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(noise(seconds, 2, rate_hz).T), format="fltp", layout="stereo"
        )
        frame.sample_rate = rate_hz
        for part in av.AudioResampler(stream.codec_context.format, "stereo", rate_hz).resample(frame):
            media.mux(stream.encode(part))
        media.mux(stream.encode(None))
    return target.getvalue()


@cache
def all_hostile() -> dict[str, Hostile]:
    """At least fifty, by name; made when the first test asks, since every process collects every test."""
    return {**_no_audio(), **_lying_wav(), **_cut_short(), **_bad_samples(), **_lying_codecs(), **_damaged()}


def _no_audio() -> dict[str, Hostile]:
    none = {F.UNSUPPORTED_FORMAT}
    random = np.random.default_rng(1).bytes(20_000)
    return {
        "nothing at all": (b"", {F.EMPTY_FILE}),
        "one byte": (b"R", none),
        "text renamed .wav": (b"This is not a song.\n" * 500, none),
        "random bytes": (random, none),
        "zeros": (bytes(50_000), none),
        "an ELF program": (b"\x7fELF" + random, none),
        "a gzip bomb's beginning": (b"\x1f\x8b\x08" + random, none),
        "a zip archive": (b"PK\x03\x04" + random, none),
        "a PNG": (b"\x89PNG\r\n\x1a\n" + random, none),
        "an ffconcat playlist": (b"ffconcat version 1.0\nfile /etc/passwd\n", none),
        "an HLS playlist": (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", none),
        "an SDP description": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n", none),
        "an XML with an external entity": (b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', none),
        "a RIFF that is a video": (b"RIFF" + struct.pack("<I", 9000) + b"AVI " + random, none),
        "a FORM that is a picture": (b"FORM" + struct.pack(">I", 9000) + b"ILBM" + random, none),
        "an ID3 tag alone": (b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10), {F.TRUNCATED}),
        "an ID3 tag that claims 256 MB": (b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + random, {F.TRUNCATED}),
        "MPEG frames of random content": (_mpeg_headers(random), DAMAGED | {F.TOO_SHORT}),
    }


def _mpeg_headers(random: bytes) -> bytes:
    """Frame headers at the right distance (128 kbit/s at 44.1 kHz: 417 bytes), junk in between."""
    return b"".join(b"\xff\xfb\x90\x00" + random[at : at + 413] for at in range(0, 413 * 40, 413))


def wav(
    data: bytes, *, tag: int = 1, channels: int = 2, rate: int = RATE_HZ, bits: int = 16, size: int | None = None
) -> bytes:
    align = max(1, channels * bits // 8) & 0xFFFF
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * align & 0xFFFFFFFF, align, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body) & 0xFFFFFFFF) + body


def _lying_wav() -> dict[str, Hostile]:
    pcm = (noise() * 32767).astype("<i2").tobytes()
    refused = DAMAGED | {F.TOO_MANY_CHANNELS, F.UNSUPPORTED_RATE, F.TOO_SHORT, F.TOO_LONG}
    return {
        "WAV with no channels": (wav(pcm, channels=0), refused),
        "WAV with 65,535 channels": (wav(pcm, channels=65_535), refused),
        "WAV with 6 channels": (written(noise(1.5, 6)), {F.TOO_MANY_CHANNELS}),
        "WAV with a rate of 0": (wav(pcm, rate=0), refused),
        "WAV with a rate of 1 Hz": (wav(pcm, rate=1), refused),
        "WAV with a rate of 4 GHz": (wav(pcm, rate=0xFFFFFFFF), refused),
        "WAV at 384 kHz": (written(noise(1.5, 1, 384_000), 384_000), {F.UNSUPPORTED_RATE}),
        "WAV with 0 bits": (wav(pcm, bits=0), refused),
        "WAV with 255 bits": (wav(pcm, bits=255), refused),
        "WAV of an unknown codec": (wav(pcm, tag=0x1234), refused),
        "WAV that says it is GSM": (wav(pcm, tag=0x31), refused),
        "WAV whose data is 4 GB by its header": (wav(pcm, size=0xFFFFFFF0), {F.TRUNCATED}),
        "WAV without data": (wav(b""), {F.UNDECODABLE, F.TOO_SHORT, F.TRUNCATED}),
        "WAV header alone": (wav(pcm)[:12], {F.TRUNCATED}),
        "WAV with a format chunk that never ends": (
            b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff" + pcm[:9000],
            {F.TRUNCATED},
        ),
        "WAV of 100,000 empty chunks": (b"RIFF\xff\xff\xff\xffWAVE" + b"junk\x00\x00\x00\x00" * 100_000, DAMAGED),
        "RF64 whose data is 2^63 bytes": (_rf64(pcm), {F.TRUNCATED, F.UNDECODABLE}),
        "AIFF whose sound chunk claims 2 GB": (_aiff_with_size(0x7FFFFFFF), {F.TRUNCATED}),
        "three hours at 8 kHz": (_long_wav(), {F.TOO_LONG}),
        "half a second": (written(noise(0.5)), {F.TOO_SHORT}),
        "one sample": (written(noise()[:1]), {F.TOO_SHORT}),
    }


def _rf64(pcm: bytes) -> bytes:
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, 1 << 63, (1 << 63) - 8, 1 << 61, 0)
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 2, RATE_HZ, RATE_HZ * 4, 4, 16)
    return b"RF64\xff\xff\xff\xffWAVE" + ds64 + form + b"data\xff\xff\xff\xff" + pcm


def _aiff_with_size(size: int) -> bytes:
    whole = bytearray(written(noise(), kind="AIFF", subtype="PCM_16"))
    at = whole.index(b"SSND")
    whole[at + 4 : at + 8] = struct.pack(">I", size)
    return bytes(whole)


def _long_wav() -> bytes:
    return wav(bytes([127, 129]) * (3 * 3600 * 4000), channels=1, rate=8000, bits=8)


def _cut_short() -> dict[str, Hostile]:
    cut = {F.TRUNCATED}
    halves = {
        "WAV": written(noise()),
        "AIFF": written(noise(), kind="AIFF"),
        "FLAC": written(noise(), kind="FLAC"),
        "Ogg Vorbis": written(noise(), kind="OGG", subtype="VORBIS"),
        "Opus": encoded("ogg", "libopus"),
        "MP3": encoded("mp3", "libmp3lame"),
        "M4A": encoded("mp4", "aac"),
        "ALAC": encoded("mp4", "alac"),
        "WebM": encoded("webm", "libopus"),
    }
    cuts = {f"{name} cut in half": (whole[: len(whole) // 2], cut) for name, whole in halves.items()}
    tails = {f"{name} without its last 300 bytes": (halves[name][:-300], cut) for name in ("FLAC", "Ogg Vorbis", "M4A")}
    heads = {
        f"the first 60 bytes of {name}": (halves[name][:60], DAMAGED | {F.TOO_SHORT})
        for name in ("FLAC", "Ogg Vorbis", "MP3", "M4A", "WebM")
    }
    return {**cuts, **tails, **heads}


def _bad_samples() -> dict[str, Hostile]:
    def spoiled(value: float) -> bytes:
        samples = noise()
        samples[40_000, 1] = value
        return written(samples, subtype="FLOAT")

    huge = noise().astype(np.float64)
    huge[7, 0] = 1e300
    return {
        "NaN in a float WAV": (spoiled(np.nan), {F.NOT_FINITE}),
        "infinity in a float WAV": (spoiled(np.inf), {F.NOT_FINITE}),
        "minus infinity in a float WAV": (spoiled(-np.inf), {F.NOT_FINITE}),
        "a sample of 1e30": (spoiled(1e30), {F.NOT_FINITE}),
        "a sample of 1e300 in double precision": (written(huge, subtype="DOUBLE"), {F.NOT_FINITE}),
        "NaN in an AIFF": (
            written(np.full((70_000, 1), np.nan, np.float32), kind="AIFF", subtype="FLOAT"),
            {F.NOT_FINITE},
        ),
        "digital silence": (written(np.zeros((70_000, 2), np.float32)), {F.SILENT}),
        "silence as FLAC": (written(np.zeros((70_000, 2), np.float32), kind="FLAC"), {F.SILENT}),
    }


def _lying_codecs() -> dict[str, Hostile]:
    flac = bytearray(written(noise(), kind="FLAC"))
    flac[21] |= 0x0F  # the upper four bits of the number of samples
    endless = bytearray(_flac_bomb())
    endless[21] &= 0xF0
    endless[22:26] = bytes(4)
    return {
        "FLAC that expands 40 to 1 into three hours": (_flac_bomb(), {F.TOO_LONG}),
        "FLAC of three hours, with its length left out": (bytes(endless), {F.TOO_LONG}),
        "FLAC whose header says 2^35 samples": (bytes(flac), {F.TOO_LONG}),
        "two Ogg streams of different rates in a chain": (_chained_ogg(), DAMAGED),
        "an MP4 whose sample table points outside": (_moved_offsets(), DAMAGED),
        "an MP4 with a box of 2^63 bytes": (_vast_box(), DAMAGED),
        "an MP4 of nested boxes, 2,000 deep": (_nested_boxes(), DAMAGED),
        "an MP4 with a data reference to /etc/passwd": (_reference_outside(), DAMAGED),
        "a MOV without a moov": (_QUICKTIME + b"\x00\x00\x20\x08mdat" + bytes(8192), DAMAGED),
        "a WebM of nothing": (b"\x1a\x45\xdf\xa3\x84\x42\x86\x81\x01" + bytes(3000), DAMAGED),
        "an Ogg of pages without a codec": (b"OggS\x00\x02" + bytes(20) + b"\x01\x1e" + bytes(30), DAMAGED),
        "an Ogg with a picture for a codec": (b"OggS\x00\x06" + bytes(20) + b"\x01\x1e\x80theora" + bytes(23), DAMAGED),
    }  # fmt: skip


@cache
def _flac_bomb() -> bytes:
    quiet = np.zeros((8000 * 3 * 3600, 1), np.int16)
    quiet[::8000] = 9000
    return written(quiet, 8000, "FLAC", "PCM_16")


def _chained_ogg() -> bytes:
    first, second = (written(noise(1.5, 2, rate), rate, "OGG", "VORBIS") for rate in (44_100, 22_050))
    return first + second


def _moved_offsets() -> bytes:
    whole = bytearray(encoded("mp4", "aac"))
    at = whole.index(b"stco") + 12
    whole[at : at + 4] = b"\x7f\xff\xff\xff"
    return bytes(whole)


def _vast_box() -> bytes:
    return (
        b"\x00\x00\x00\x14ftypM4A \x00\x00\x00\x00M4A "
        + b"\x00\x00\x00\x01moov"
        + struct.pack(">Q", 1 << 63)
        + bytes(999)
    )


def _nested_boxes() -> bytes:
    inner = b""
    for _ in range(2000):
        inner = struct.pack(">I4s", len(inner) + 8, b"moov") + inner
    return b"\x00\x00\x00\x14ftypM4A \x00\x00\x00\x00M4A " + inner


def _reference_outside() -> bytes:
    """The data reference says that the samples lie in another file, and the own ones are cut away."""
    whole = bytearray(encoded("mp4", "aac"))
    at = whole.index(b"url ")
    whole[at : at + 8] = b"alis" + b"\x00\x00\x00\x00"  # not self-contained
    start = whole.index(b"mdat") + 4
    whole[start : start + 20_000] = bytes(len(whole[start : start + 20_000]))
    return bytes(whole)


def _damaged() -> dict[str, Hostile]:
    wholes: dict[str, Callable[[], bytes]] = {
        "FLAC": lambda: written(noise(), kind="FLAC"),
        "Ogg Vorbis": lambda: written(noise(), kind="OGG", subtype="VORBIS"),
        "ALAC": lambda: encoded("mp4", "alac"),
    }
    # A size read from damaged bytes may be one that no machine has the memory for.
    answers = DAMAGED | {F.RESOURCE_LIMIT}
    return {f"{name} with every 97th byte changed": (_spoil(make()), answers) for name, make in wholes.items()}


def _spoil(whole: bytes) -> bytes:
    spoiled = bytearray(whole)
    for at in range(200, len(spoiled), 97):
        spoiled[at] ^= 0x5A
    return bytes(spoiled)


def two_faced() -> dict[str, bytes]:
    """Files that say one thing of themselves at their beginning, and another to whoever knows their end."""
    sound = (noise(5.0) * 32767).astype("<i2").tobytes()
    files = {}
    for name, behind in {
        "rate": form_chunk(rate=8000),
        "channels": form_chunk(channels=9),
        "audio": chunk(b"data", 3 * sound),
        "list": chunk(b"LIST", b"INFO" + bytes(4000)),
    }.items():
        rest = behind + bytes(60_000)
        long = struct.pack("<QQQI", 4 + 36 + len(sound) + len(rest), len(sound), len(sound) // 4, 0)
        body = form_chunk() + chunk(b"data", sound + rest)
        files[f"RF64, another {name}"] = b"RF64\xff\xff\xff\xffWAVE" + chunk(b"ds64", long) + body
        files[f"RIFF, another {name}"] = riff(form_chunk() + chunk(b"data", sound) + rest)
        inner, tag = riff(form_chunk() + chunk(b"data", sound) + rest), bytearray(2000)
        tag[2:10] = chunk(b"data", b"", 2010 + len(inner) - 20)
        files[f"behind a tag, another {name}"] = b"ID3\3\0\0\0\0\x0f\x50" + bytes(tag) + inner
    files["an empty chunk at the end"] = riff(form_chunk() + chunk(b"data", sound) + b"data\0\0\0\0")
    files["an odd number of bytes"] = riff(form_chunk() + chunk(b"data", sound[:-1]) + b"\0")
    files["data of another size than its frames"] = riff(form_chunk() + chunk(b"data", sound + b"\1\2\3"))
    return files


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content


def form_chunk(rate: int = 48_000, channels: int = 2) -> bytes:
    return chunk(b"fmt ", struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels, 2 * channels, 16))


def riff(body: bytes) -> bytes:
    return chunk(b"RIFF", b"WAVE" + body)
