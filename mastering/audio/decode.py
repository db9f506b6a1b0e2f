"""An audio file → what its header says, and its samples: libsndfile and FFmpeg's libraries, for the engine.

Every way in which a file can be bad ends in a `Fault` that says what is wrong and what to do (`refusals`). Libraries'
own error texts may hold paths and are dropped.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, BinaryIO, cast

import av
import numpy as np
import soundfile

from mastering.audio import pcm, refusals
from mastering.audio.codecs import READ_BY_SNDFILE, SNDFILE_CODECS, is_lossless
from mastering.audio.coded import CodedAudio
from mastering.audio.container import audio_start, container_of, ends_inside_tag
from mastering.audio.header_patches import Patch, header_patches, patched
from mastering.audio.raw_frames import RAW_CONTAINERS, ends_inside_frame
from mastering.audio.riff import FileBytes, RandomAccessBytes
from mastering.audio.truncation import is_open_ended, shortfall_of
from mastering.contract import (
    MAX_CHANNELS,
    MAX_DURATION_S,
    MAX_INPUT_BYTES,
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    Fault,
    FaultCode,
)
from mastering.dsp.stream import BLOCK_FRAMES, Samples

_LONGEST_FRAME_BYTES = 1 << 16
"""A FLAC frame of 4608 frames of 24-bit stereo, uncompressed, has half as many."""
_UNKNOWN_FRAMES = 1 << 62
"""libsndfile's count for a stream that does not say its length is this or more."""
_OPEN_ENDED = "The file does not say how long it is, as one written to a pipe does not: all that is in it was mastered."


@dataclass(frozen=True)
class Recording:
    """An opened file: what its header says, and a way to decode it from the start."""

    container: str
    codec: str
    rate_hz: int
    channels: int
    promised_frames: int | None
    """From the header; for raw frames (MP3, AAC), which may have no such header, a guess."""
    declared_frames: int | None
    """The same without a guess: what must come, but for `allowed_missing_frames`."""
    lossy: bool
    decode: Callable[[], Iterator[Samples]]
    """Blocks of float32 (channels, frames). Raises Fault."""
    decode_in_parallel: Callable[[], Iterator[Samples]]
    """The same for several threads at once, a little slower."""
    remarks: tuple[str, ...] = ()
    """Sentences on what was chosen, or cannot be known, of the file."""


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
    if ends_inside_tag(data):
        raise refusals.truncated_song()
    container = container_of(data)
    if container is None:
        raise refusals.unsupported_song(
            "This is not an audio file we can read, whatever its name says. Send WAV, FLAC, AIFF, MP3, Ogg or M4A."
        )
    if shortfall_of(container, data) is not None:
        raise refusals.truncated_song()
    recording = _open_with_sndfile(source, container, data) if container in READ_BY_SNDFILE else None
    if recording is None:
        recording = _open_coded(source, container, data)
    _check_limits(recording)
    if is_open_ended(container, data):
        recording = replace(recording, remarks=(*recording.remarks, _OPEN_ENDED))
    return recording


def _check_limits(recording: Recording) -> None:
    if not 1 <= recording.channels <= MAX_CHANNELS:
        raise refusals.many_channel_song(recording.channels)
    if not MIN_RATE_HZ <= recording.rate_hz <= MAX_RATE_HZ:
        raise refusals.unsupported_rate_song(recording.rate_hz)
    if recording.declared_frames is not None and recording.declared_frames > MAX_DURATION_S * recording.rate_hz:
        raise refusals.overlong_song(recording.declared_frames / recording.rate_hz)


class _IndependentReader(io.RawIOBase):
    """A reading position of its own in a file that several threads read at once.

    It sees what stands between `start` and `end`, with `patches` in their places.
    """

    def __init__(
        self, source: BinaryIO, lock: Lock, start: int = 0, end: int | None = None, patches: tuple[Patch, ...] = ()
    ) -> None:
        self._source, self._lock, self._start, self._end = source, lock, start, end
        self._patches = patches
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        first = self._start + self._at
        wanted = len(buffer) if self._end is None else max(0, min(len(buffer), self._end - first))
        with self._lock:
            self._source.seek(first)
            data = self._source.read(wanted)
        buffer[: len(data)] = patched(data, first, self._patches) if self._patches else data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            offset += self._size()
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def _size(self) -> int:
        if self._end is not None:
            return self._end - self._start
        with self._lock:
            return self._source.seek(0, io.SEEK_END) - self._start


def _open_with_sndfile(source: BinaryIO, container: str, data: RandomAccessBytes) -> Recording | None:
    """None for what libsndfile does not read, or in a coding that is not on the list."""
    patches, start, lock = header_patches(container, data), audio_start(data), Lock()

    def parallel_reader() -> BinaryIO:
        return cast(BinaryIO, _IndependentReader(source, lock, start, patches=patches))

    def reader() -> BinaryIO:
        return parallel_reader() if patches or start else source

    try:
        with _sound_file(reader()) as file:
            codec = SNDFILE_CODECS.get(file.subtype)
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
                lambda: _decode_with_sndfile(reader()),
                lambda: _decode_with_sndfile(parallel_reader()),
            )
    except soundfile.LibsndfileError:
        return None


def _sound_file(source: BinaryIO) -> Any:
    source.seek(0)
    return soundfile.SoundFile(source)


def _decode_with_sndfile(source: BinaryIO) -> Iterator[Samples]:
    try:
        with _sound_file(source) as file:
            if pcm.is_plain(file):
                yield from pcm.decoded(file, source)
                return
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                yield _planar(block)
    except soundfile.LibsndfileError:
        raise refusals.undecodable_song() from None


def _planar(frames: Samples) -> Samples:
    """(frames, channels) → (channels, frames). Channel by channel: a plain transposed copy takes six times as long."""
    block = np.empty(frames.shape[::-1], frames.dtype)
    for channel, samples in zip(block, frames.T, strict=True):
        channel[...] = samples
    return block


def _open_coded(source: BinaryIO, container: str, data: RandomAccessBytes) -> Recording:
    lock = Lock()
    audio = CodedAudio(lambda start, end: _IndependentReader(source, lock, start, end), container, data)
    return Recording(
        container,
        audio.codec,
        audio.rate_hz,
        audio.channels,
        audio.guessed_frames,
        audio.declared_frames,
        not is_lossless(audio.codec),
        lambda: _decode_coded(audio, len(data)),
        lambda: _decode_coded(audio, len(data)),
        tuple(_remarks(audio, container, data)),
    )


def _remarks(audio: CodedAudio, container: str, data: RandomAccessBytes) -> Iterator[str]:
    if audio.streams > 1:
        yield (
            f"The file holds {audio.streams} recordings side by side: number {audio.stream + 1}, its default one, "
            "was mastered."
        )
    if container in RAW_CONTAINERS and ends_inside_frame(container, data):
        yield "The file ends in the middle of a frame: it may have been cut off."


def _decode_coded(audio: CodedAudio, size: int) -> Iterator[Samples]:
    """`size` of the file in bytes: one that is no longer than a frame may end inside its first."""
    planar, count = av.AudioResampler(format="fltp"), 0
    try:
        for frames in audio.packets():
            for frame in frames:
                count += frame.samples
                if frame.format.name == "fltp":  # as most coders give it: nothing to convert
                    yield _samples_of(frame)
                else:
                    yield from (_samples_of(part) for part in planar.resample(frame))
        yield from (_samples_of(part) for part in planar.resample(None))
    except Fault as fault:
        is_end_missing = audio.declared_frames is not None and count < audio.declared_frames
        is_end_missing = is_end_missing and (count > 0 or size < _LONGEST_FRAME_BYTES)
        if fault.code is FaultCode.UNDECODABLE and is_end_missing:
            raise refusals.truncated_song() from None
        raise


def _samples_of(frame: Any) -> Samples:
    samples: Samples = frame.to_ndarray()
    return samples
