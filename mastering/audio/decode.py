"""An audio file → what its header says, and its samples: libsndfile and FFmpeg's libraries, for the engine.

Every way in which a file can be bad ends in a `Fault` that says what is wrong and what to do (`refusals`). Libraries'
own error texts may hold paths and are dropped.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO, cast

import av
import numpy as np
import soundfile

from mastering.audio import pcm, refusals
from mastering.audio.codecs import DEMUXERS, SNDFILE_CODECS, is_lossless, libav_codec
from mastering.audio.container import container_of, ends_inside_id3, id3_end, xing_frames
from mastering.audio.riff import FileBytes
from mastering.audio.truncation import shortfall_of
from mastering.contract import MAX_CHANNELS, MAX_DURATION_S, MAX_INPUT_BYTES, MAX_RATE_HZ, MIN_RATE_HZ
from mastering.dsp.stream import BLOCK_FRAMES, Samples

_UNKNOWN_FRAMES = 1 << 62
"""libsndfile's count for a stream that does not say its length is this or more."""
_LAST_CODED_FRAME_BYTES = 1 << 16
"""A FLAC frame of 4608 frames of 24-bit stereo, uncompressed, has half as many."""


@dataclass(frozen=True)
class Recording:
    """An opened file: what its header says, and a way to decode it from the start."""

    container: str
    codec: str
    rate_hz: int
    channels: int
    promised_frames: int | None
    """From the header; for MP3, whose header may have no length, a guess."""
    declared_frames: int | None
    """The same without a guess: what must come, but for `allowed_missing_frames`."""
    lossy: bool
    decode: Callable[[], Iterator[Samples]]
    """Blocks of float32 (channels, frames). Raises Fault."""
    decode_in_parallel: Callable[[], Iterator[Samples]]
    """The same for several threads at once, a little slower."""


def open_recording(source: BinaryIO, *, most_bytes: int = MAX_INPUT_BYTES) -> Recording:
    """Read the header of a song of at most `most_bytes`.

    Raises Fault: empty_file, too_large, unsupported_format, truncated, undecodable, too_many_channels,
    unsupported_rate, too_long.
    """
    size = source.seek(0, io.SEEK_END)
    if size == 0:
        raise refusals.empty_song()
    if size > most_bytes:
        raise refusals.oversized_song(size, most_bytes)
    data = FileBytes(source)
    if ends_inside_id3(data):
        raise refusals.truncated_song()
    container = container_of(data)
    if container is None:
        raise refusals.unsupported_song(
            "This is not an audio file we can read, whatever its name says. Send WAV, FLAC, AIFF, MP3, Ogg or M4A."
        )
    if shortfall_of(container, data) is not None:
        raise refusals.truncated_song()
    recording = _open_with_sndfile(source, container) or _open_with_libav(source, container)
    _check_limits(recording)
    return recording


def _check_limits(recording: Recording) -> None:
    if not 1 <= recording.channels <= MAX_CHANNELS:
        raise refusals.many_channel_song(recording.channels)
    if not MIN_RATE_HZ <= recording.rate_hz <= MAX_RATE_HZ:
        raise refusals.unsupported_rate_song(recording.rate_hz)
    if recording.promised_frames is not None and recording.promised_frames > MAX_DURATION_S * recording.rate_hz:
        raise refusals.overlong_song(recording.promised_frames / recording.rate_hz)


class _IndependentReader(io.RawIOBase):
    """A reading position of its own in a file that several threads read at once; it sees what stands behind `start`."""

    def __init__(self, source: BinaryIO, lock: Lock, start: int = 0) -> None:
        self._source, self._lock, self._start, self._at = source, lock, start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        with self._lock:
            self._source.seek(self._start + self._at)
            data = self._source.read(len(buffer))
        self._at += len(data)
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            with self._lock:
                offset += self._source.seek(0, io.SEEK_END) - self._start
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        return self._at


def _open_with_sndfile(source: BinaryIO, container: str) -> Recording | None:
    """None for what libsndfile does not read, or in a coding that is not on the list."""
    if container == "mp3":
        # libsndfile takes an MP3's length from its size and stops there, short of the end.
        return None
    source.seek(0)
    lock = Lock()
    try:
        with soundfile.SoundFile(source) as file:
            codec = "flac" if container == "flac" else SNDFILE_CODECS.get(file.subtype)
            if codec is None:
                return None
            frames = file.frames if 0 < file.frames < _UNKNOWN_FRAMES else None
            return Recording(
                container,
                codec,
                file.samplerate,
                file.channels,
                frames,
                frames,
                not is_lossless(codec),
                lambda: _decode_with_sndfile(source),
                lambda: _decode_with_sndfile(cast(BinaryIO, _IndependentReader(source, lock))),
            )
    except soundfile.LibsndfileError:
        return None


def _decode_with_sndfile(source: BinaryIO) -> Iterator[Samples]:
    source.seek(0)
    try:
        with soundfile.SoundFile(source) as file:
            if pcm.is_plain(file):
                yield from pcm.decoded(file, source)
                return
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                yield _planar(block)
    except soundfile.LibsndfileError:
        raise (refusals.truncated_song() if _is_near_end(source) else refusals.undecodable_song()) from None


def _planar(frames: Samples) -> Samples:
    """(frames, channels) → (channels, frames). Channel by channel: a plain transposed copy takes six times as long."""
    block = np.empty(frames.shape[::-1], frames.dtype)
    for channel, samples in zip(block, frames.T, strict=True):
        channel[...] = samples
    return block


def _is_near_end(source: BinaryIO) -> bool:
    """Within one coded frame of the end: a FLAC that is cut off fails there, one damaged inside before."""
    position = source.tell()
    return source.seek(0, io.SEEK_END) - position < _LAST_CODED_FRAME_BYTES


def _open_with_libav(source: BinaryIO, container: str) -> Recording:
    # FFmpeg's libraries see no ID3 tag in front: they take time in the square of the number of its frames.
    lock, start = Lock(), id3_end(FileBytes(source))

    def open_file() -> Any:
        # No protocol and no second demuxer: a file that names other files gets none of them.
        options = {"protocol_whitelist": ""}
        reader = _IndependentReader(source, lock, start)
        return av.open(reader, format=DEMUXERS[container], options=options, metadata_errors="ignore")

    try:
        with open_file() as file:
            if not file.streams.audio:
                raise refusals.unsupported_song("There is no sound in this file. Send one that has an audio track.")
            stream = file.streams.audio[0]
            codec = libav_codec(stream)
            if codec is None:
                raise refusals.unsupported_song(
                    "The audio inside is coded in a way that is not read here. Export it as WAV or FLAC."
                )
            rate_hz = stream.codec_context.sample_rate
            frames = round(float(stream.duration * stream.time_base) * rate_hz) if stream.duration else None
            return Recording(
                container,
                codec,
                rate_hz,
                stream.codec_context.channels,
                frames,
                xing_frames(FileBytes(source)) if container == "mp3" else frames,
                not is_lossless(codec),
                lambda: _decode_with_libav(open_file),
                lambda: _decode_with_libav(open_file),
            )
    except (av.error.FFmpegError, IndexError, ValueError):
        raise refusals.undecodable_song() from None


def _decode_with_libav(open_file: Callable[[], Any]) -> Iterator[Samples]:
    try:
        with open_file() as file:
            stream = file.streams.audio[0]
            planar = av.AudioResampler(format="fltp")
            for frame in file.decode(stream):
                yield from (_samples_of(part) for part in planar.resample(frame))
            yield from (_samples_of(part) for part in planar.resample(None))
    except (av.error.FFmpegError, IndexError, ValueError):
        raise refusals.undecodable_song() from None


def _samples_of(frame: Any) -> Samples:
    samples: Samples = frame.to_ndarray()
    return samples
