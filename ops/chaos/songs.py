"""What the clients of chaos send: cuts of synthesised music that carry their number, and files made to do harm."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import soundfile
from mutagen.flac import FLAC
from mutagen.id3 import ID3, TXXX
from mutagen.oggvorbis import OggVorbis
from numpy.typing import NDArray

from mastering.engine.demo import demo_song
from ops.chaos.proxy import MARKER
from ops.chaos.schedule import TUNE_S, PlannedSong
from tests.hostile_audio import chunk, form_chunk, noise, riff, two_faced, wav, written

RATE_HZ = 44_100
_SUBTYPES = {"wav16": "PCM_16", "wav24": "PCM_24"}
_LEAST_LIKENESS = 0.4
"""Of a master to its song, as a correlation: with its own it is above 0.8, with another cut below 0.2."""
_MOST_SHIFT = 4096
"""Frames by which a coded song may begin later in one decoder than in another."""
_COMPARED_S = 6.0
"""From the beginning: enough to tell a song by."""


def honest_song(plan: PlannedSong) -> bytes:
    """The file of a planned song."""
    samples, marker = _cut(plan).T, MARKER % plan.number
    file = io.BytesIO()
    match plan.format:
        case "flac":
            soundfile.write(file, samples, RATE_HZ, format="FLAC", subtype="PCM_16")
            file.seek(0)
            flac = FLAC(file)  # type: ignore[no-untyped-call]
            flac["comment"] = marker.decode()
            file.seek(0)
            flac.save(file)
        case "mp3":
            soundfile.write(file, samples, RATE_HZ, format="MP3")
            tags = ID3()  # type: ignore[no-untyped-call]
            tags.add(TXXX(encoding=3, desc="song", text=[marker.decode()]))  # type: ignore[no-untyped-call]
            file.seek(0)
            tags.save(file)
        case "ogg":
            soundfile.write(file, samples, RATE_HZ, format="OGG", subtype="VORBIS")
            file.seek(0)
            vorbis = OggVorbis(file)  # type: ignore[no-untyped-call]
            vorbis["comment"] = marker.decode()
            file.seek(0)
            vorbis.save(file)
        case _:
            soundfile.write(file, samples, RATE_HZ, format="WAV", subtype=_SUBTYPES[plan.format])
            return _with_chunk(file.getvalue(), chunk(b"note", marker + b"\0" * (len(marker) % 2)))
    return file.getvalue()


def why_not_its_master(plan: PlannedSong, master: bytes) -> str | None:
    """What is wrong with a master of the song, in a phrase; None where it is sound."""
    try:
        made, rate_hz = soundfile.read(io.BytesIO(master), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        return "it can't be decoded"
    if rate_hz != RATE_HZ or abs(len(made) / rate_hz - plan.seconds) > 0.1:
        return f"it lasts {len(made) / rate_hz:.2f} s, its song {plan.seconds:.2f} s"
    if not np.isfinite(made).all() or np.abs(made).max() < 0.05:
        return "it is silent or not finite"
    frames = round(_COMPARED_S * RATE_HZ)
    if (likeness := _likeness(_cut(plan)[:, :frames].mean(axis=0), made[:frames].mean(axis=1))) < _LEAST_LIKENESS:
        return f"it is another song's: a correlation of {likeness:.2f}"
    return None


def prepare() -> None:
    """Make what all songs are cut from, before many threads ask for it at once."""
    _tune()


@cache
def _tune() -> NDArray[np.float32]:
    """The demo song, again and again for TUNE_S."""
    song = demo_song(RATE_HZ)
    frames = round(TUNE_S * RATE_HZ)
    return np.tile(song, (1, -(-frames // song.shape[1])))[:, :frames]


def _cut(plan: PlannedSong) -> NDArray[np.float32]:
    start = round(plan.start_s * RATE_HZ)
    return _tune()[:, start : start + round(plan.seconds * RATE_HZ)]


def _likeness(song: NDArray[np.float32], master: NDArray[np.float32]) -> float:
    """The largest correlation of the two within some shift."""
    size = 1 << (len(song) + len(master)).bit_length()
    product = np.fft.irfft(np.fft.rfft(master, size) * np.conj(np.fft.rfft(song, size)), size)
    near = np.concatenate((product[: _MOST_SHIFT + 1], product[-_MOST_SHIFT:]))
    return float(np.abs(near).max() / (np.linalg.norm(song) * np.linalg.norm(master) or 1.0))


def _with_chunk(whole: bytes, inserted: bytes) -> bytes:
    """A WAV file with a chunk before its first one."""
    size = struct.unpack_from("<I", whole, 4)[0] + len(inserted)
    return whole[:4] + struct.pack("<I", size) + whole[8:12] + inserted + whole[12:]


_INFLATED_MIB = 1536
_TXXX_FRAMES = 300_000


@cache
def _id3_that_inflates() -> bytes:
    """An ID3 tag of 1.5 MB with one compressed frame that inflates to 1.5 GiB."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflate.compress(bytes(1 << 20))
    deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    size = _INFLATED_MIB << 20
    adler = (size % 65_521) << 16 | 1  # of so many zeros
    body = b"\x78\xda" + block * _INFLATED_MIB + b"\x03\0" + struct.pack(">I", adler)
    flags = b"\0\x09"  # compressed, and its length is said
    return _id3([b"TXXX" + _synchsafe(len(body) + 4) + flags + _synchsafe(min(size, 0x0FFFFFFF)) + body])


@cache
def _id3_of_tiny_frames() -> bytes:
    return _id3([b"TXXX" + _synchsafe(6) + b"\0\0\3k\0v\0\0"] * _TXXX_FRAMES)


def _id3(frames: list[bytes]) -> bytes:
    body = b"".join(frames)
    return b"ID3\x04\0\0" + _synchsafe(len(body)) + body


def _synchsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def _mp3() -> bytes:
    return written(noise(3.0), kind="MP3")


def _pcm() -> bytes:
    return (noise(3.0) * 32_767).astype("<i2").tobytes()


def _endless_flac() -> bytes:
    flac = bytearray(written(noise(), kind="FLAC"))
    flac[21] |= 0x0F  # the upper four bits of the number of samples
    return bytes(flac)


def _not_a_number() -> bytes:
    samples: NDArray[Any] = noise()
    samples[40_000, 1] = np.nan
    return written(samples, subtype="FLOAT")


def _half(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


HOSTILE: dict[str, Callable[[], bytes]] = {
    "id3_inflates": lambda: _id3_that_inflates() + _mp3(),
    "wav_id3_inflates": lambda: riff(form_chunk() + chunk(b"id3 ", _id3_that_inflates()) + chunk(b"data", _pcm())),
    "id3_tiny_frames": lambda: _id3_of_tiny_frames() + _mp3(),
    "wav_id3_tiny_frames": lambda: riff(form_chunk() + chunk(b"data", _pcm()) + chunk(b"id3 ", _id3_of_tiny_frames())),
    "wav_cut_in_half": lambda: _half(written(noise())),
    "mp3_cut_in_half": lambda: _half(_mp3()),
    "ogg_cut_in_half": lambda: _half(written(noise(), kind="OGG", subtype="VORBIS")),
    "wav_of_4_gb_by_its_header": lambda: wav(_pcm(), size=0xFFFFFFF0),
    "wav_of_65535_channels": lambda: wav(_pcm(), channels=65_535),
    "wav_of_100000_chunks": lambda: b"RIFF\xff\xff\xff\xffWAVE" + b"junk\0\0\0\0" * 100_000,
    "flac_of_2_to_the_35_samples": _endless_flac,
    "another_rate_at_the_end": lambda: two_faced()["RIFF, another rate"],
    "another_length_at_the_end": lambda: two_faced()["RIFF, another audio"],
    "not_a_number": _not_a_number,
    "random_bytes": lambda: np.random.default_rng(1).bytes(200_000),
}
"""Files that harm whoever opens them without care, by kind."""
LEFT_OUT: frozenset[str] = frozenset()
"""Kinds that chaos does not send: of those that the router can't bear yet, with the reason beside."""


def hostile_kinds() -> list[str]:
    return [kind for kind in HOSTILE if kind not in LEFT_OUT]
