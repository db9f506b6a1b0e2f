"""Open a recording and hand out its blocks: the probe's only door to the decoders.

libsndfile reads WAV and AIFF; the samples of the commonest WAVs are taken by `audio.pcm`, in a quarter of the time.
FFmpeg's libraries, held to one demuxer and one thread, read what is coded: libsndfile refuses a FLAC of unknown length
and an Opus with a picture, and guesses the length of an MP3 from its size.
Blocks are ``(frames, channels)``, as the decoders give them: whole numbers stay whole (`full_scale`), since all that is
heard is how many there are and how large.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from mastering.audio import pcm
from mastering.audio.codecs import DEMUXERS, LIBAV_CODECS, SNDFILE_CODECS, is_lossless
from mastering.audio.riff import last_wav_audio
from mastering.contract import Fault, FaultCode
from mastering.probe.growing_file import Arriving, Growing

BLOCK_FRAMES = 65_536
_GLANCE_FRAMES = 16_384
"""Of whole numbers, where the first sound settles what the file is."""
_MOST_DAMAGED = 0.01
"""Share of a lossy file's packets that may fail: some junk at its end makes it no broken file."""
_GIVE_UP_DAMAGED = 64
"""So many damaged packets, if they are most of those seen, are no recording: a file may hold millions of them."""
_UNKNOWN_FRAMES = 1 << 48
"""libsndfile's count for a stream that does not say its length is larger than this."""
_OUT_OF_MEMORY = 17
"""SFE_MALLOC_FAILED."""

_READ_BY_SNDFILE = frozenset({"wav", "aiff"})
"""Containers; FFmpeg's libraries read the others."""
_NATIVE = {"pcm_8": np.int16, "pcm_16": np.int16, "pcm_24": np.int32, "pcm_32": np.int32}
"""What libsndfile hands out without converting it; all else as float32."""
_WIDTHS = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1}
"""Bytes of a sample in a WAV, where it has so many."""
_WIDEST_SAMPLE_BYTES = 8
_READ_AHEAD_BYTES = 64 * 1024
"""What libsndfile may take beyond the samples it was asked for: a block of ADPCM, say."""
_GUESSED_LENGTHS = frozenset({"mp3"})
"""Containers that need not say how long they are: their demuxer guesses from the file's size."""

Block = NDArray[Any]


@dataclass(frozen=True)
class Header:
    """What a recording says of itself. `declared_frames` is None where it does not say how many it has."""

    container: str
    codec: str
    rate_hz: int
    channels: int
    declared_frames: int | None


@dataclass(frozen=True)
class ProbedRecording(Header):
    """A recording that is open and not yet heard."""

    blocks: Callable[[], Iterator[Block]]
    is_settled: bool = False
    """Whole numbers up to the file's last byte, as many frames as declared: whatever they are, they are sound."""


def full_scale(block: Block) -> float:
    """The number that stands for 0 dBFS in this block."""
    return float(1 << 8 * block.dtype.itemsize - 1) if block.dtype.kind == "i" else 1.0


def open_recording(container: str, source: int, arriving: Arriving) -> ProbedRecording:
    """Open the seekable descriptor `source`, a `container` that `arriving` knows too. Raises Fault."""
    os.lseek(source, 0, os.SEEK_SET)
    open_it = _open_sndfile if container in _READ_BY_SNDFILE else _open_libav
    return open_it(container, source, arriving)


def _open_sndfile(container: str, source: int, arriving: Arriving) -> ProbedRecording:
    audio = last_wav_audio(arriving.data)
    if audio is None:
        arriving.need_all()
    sound = _sound(source)
    is_all_there_is = audio is not None and _is_between(sound, source, *audio)
    if not is_all_there_is and not arriving.is_whole:
        arriving.need_all()
        sound = _sound(source)
    if sound.subtype not in SNDFILE_CODECS:
        raise _unknown_codec()
    return ProbedRecording(
        container=container,
        codec=SNDFILE_CODECS[sound.subtype],
        rate_hz=sound.samplerate,
        channels=sound.channels,
        declared_frames=sound.frames if 0 < sound.frames < _UNKNOWN_FRAMES else None,
        blocks=lambda: _sndfile_blocks(sound, source, arriving),
        is_settled=is_all_there_is and pcm.is_plain(sound),
    )


def _sound(source: int) -> Any:
    os.lseek(source, 0, os.SEEK_SET)
    try:
        return soundfile.SoundFile(source, closefd=False)
    except soundfile.LibsndfileError as error:
        raise _sndfile_fault(error) from None


def _is_between(sound: Any, source: int, at: int, size: int) -> bool:
    """Whether libsndfile too sees the audio in `size` bytes from `at` on, so that what is to come can't change it."""
    frame_bytes = sound.channels * _WIDTHS.get(sound.subtype, 0)
    if not frame_bytes:
        return False
    sound.seek(0)  # which leaves its descriptor at the first sample
    return (os.lseek(source, 0, os.SEEK_CUR), int(sound.frames)) == (at, size // frame_bytes)


def _sndfile_blocks(sound: Any, source: int, arriving: Arriving) -> Iterator[Block]:
    if pcm.is_plain(sound):
        yield from _plain_blocks(sound, source, arriving)
        return
    buffer = np.empty((BLOCK_FRAMES, sound.channels), _NATIVE.get(SNDFILE_CODECS[sound.subtype], np.float32))
    most_bytes = BLOCK_FRAMES * sound.channels * _WIDEST_SAMPLE_BYTES + _READ_AHEAD_BYTES
    while True:
        arriving.need(os.lseek(source, 0, os.SEEK_CUR) + most_bytes)
        arriving.keep_up()
        try:
            block = sound.read(out=buffer)
        except soundfile.LibsndfileError as error:
            raise _sndfile_fault(error) from None
        if not len(block):
            return
        yield block


def _plain_blocks(sound: Any, source: int, arriving: Arriving) -> Iterator[Block]:
    """Samples are looked at as they come by: nothing before them is asked for again."""
    sound.seek(0)  # which leaves its descriptor at the first sample
    at = os.lseek(source, 0, os.SEEK_CUR)

    def read_into(room: memoryview) -> int:
        nonlocal at
        count = arriving.pass_by(at, room)
        at += count
        return count

    yield from pcm.numbers(sound, read_into, _GLANCE_FRAMES)


def _sndfile_fault(error: Any) -> Fault:
    return resource_fault() if error.code == _OUT_OF_MEMORY else undecodable_fault()


def _open_libav(container: str, source: int, arriving: Arriving) -> ProbedRecording:
    try:
        # No protocol and no second demuxer: a file that names other files gets none of them.
        media = av.open(
            Growing(arriving),
            format=DEMUXERS[container],
            container_options={"protocol_whitelist": "none"},
            metadata_errors="ignore",
        )
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise _libav_fault(error) from None
    stream = next(iter(media.streams.audio), None)
    if stream is None:
        raise Fault(FaultCode.UNSUPPORTED_FORMAT, "There is no sound in this file. Send one that has an audio track.")
    if stream.codec_context.name not in LIBAV_CODECS:
        raise _unknown_codec()
    stream.codec_context.thread_count = 1
    return ProbedRecording(
        container=container,
        codec=LIBAV_CODECS[stream.codec_context.name],
        rate_hz=stream.rate or 0,
        channels=stream.channels,
        declared_frames=_declared_frames(container, stream),
        blocks=lambda: _libav_blocks(media, stream),
    )


def _declared_frames(container: str, stream: Any) -> int | None:
    if container in _GUESSED_LENGTHS or not stream.duration or not stream.time_base:
        return None
    return round(stream.duration * stream.time_base * stream.rate) if stream.rate else None


def _libav_blocks(media: Any, stream: Any) -> Iterator[Block]:
    """A packet that cannot be decoded is passed over, as players do; too many of them are a broken file."""
    packets = damaged = 0
    try:
        for packet in media.demux(stream):
            packets += 1
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                damaged += 1
                if damaged >= _GIVE_UP_DAMAGED and 2 * damaged > packets:
                    raise undecodable_fault() from None
                continue
            yield from (_block(frame, stream) for frame in frames)
            if not frames:
                yield _no_sound(stream)  # so that whoever listens sees the time go by
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise _libav_fault(error) from None
    allowed = 0 if is_lossless(LIBAV_CODECS[stream.codec_context.name]) else max(2, packets * _MOST_DAMAGED)
    if damaged > allowed:
        raise undecodable_fault()


def _no_sound(stream: Any) -> Block:
    return np.empty((0, stream.channels), np.float32)


def _libav_fault(error: Exception) -> Fault:
    return resource_fault() if getattr(error, "errno", None) == errno.ENOMEM else undecodable_fault()


def _block(frame: Any, stream: Any) -> Block:
    if (frame.sample_rate, frame.layout.nb_channels) != (stream.rate, stream.channels):
        raise Fault(
            FaultCode.UNSUPPORTED_FORMAT,
            "The recording changes its sample rate or its channels midway. Export it as one WAV or FLAC.",
        )
    samples = frame.to_ndarray()
    block: Block = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    return block


def _unknown_codec() -> Fault:
    return Fault(
        FaultCode.UNSUPPORTED_FORMAT,
        "The audio inside is coded in a way that this service does not read. Export it as WAV or FLAC.",
    )


def undecodable_fault() -> Fault:
    return Fault(FaultCode.UNDECODABLE, "The file is damaged: it cannot be decoded. Export it again.")


def resource_fault() -> Fault:
    return Fault(
        FaultCode.RESOURCE_LIMIT,
        "Decoding this file wanted more time or memory than an honest recording needs. Export it as WAV or FLAC.",
    )
