"""Decode a whole recording in blocks and keep four numbers of it. Bounded memory, whatever the header says.

libsndfile reads WAV and AIFF. FFmpeg's libraries, held to one demuxer and one thread, read what is coded: libsndfile
refuses a FLAC of unknown length and an Opus with a picture, and guesses the length of an MP3 from its size.
Blocks are ``(frames, channels)``, as the decoders give them; only their extremes are looked at.
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

from mastering.contract import MAX_CHANNELS, MAX_RATE_HZ, MIN_DURATION_S, MIN_RATE_HZ, Facts, Fault, FaultCode

BLOCK_FRAMES = 65_536
SILENCE_DBFS = -80.0
BEYOND_SOUND_DBFS = 120.0
_MOST_DAMAGED = 0.01
"""Share of a lossy file's packets that may fail: some junk at its end makes it no broken file."""
_UNKNOWN_FRAMES = 1 << 48
"""libsndfile's count for a stream that does not say its length is larger than this."""
_OUT_OF_MEMORY = 17
"""SFE_MALLOC_FAILED."""

_SUBTYPES = {
    "PCM_S8": "pcm_8", "PCM_U8": "pcm_8", "PCM_16": "pcm_16", "PCM_24": "pcm_24", "PCM_32": "pcm_32",
    "FLOAT": "float_32", "DOUBLE": "float_64", "ULAW": "mu_law", "ALAW": "a_law", "IMA_ADPCM": "adpcm",
    "MS_ADPCM": "adpcm",
}  # fmt: skip
_DEMUXERS = {"mp4": "mov", "webm": "matroska", "flac": "flac", "mp3": "mp3", "ogg": "ogg"}
_CODECS = {
    "aac": "aac", "alac": "alac", "flac": "flac", "mp3": "mp3", "mp3float": "mp3", "opus": "opus", "vorbis": "vorbis",
    "pcm_s16le": "pcm_16", "pcm_s16be": "pcm_16", "pcm_s24le": "pcm_24", "pcm_s24be": "pcm_24", "pcm_f32le": "float_32",
}  # fmt: skip
LOSSLESS = frozenset({"alac", "flac", "pcm_8", "pcm_16", "pcm_24", "pcm_32", "float_32", "float_64"})
_GUESSED_LENGTHS = frozenset({"mp3"})
"""Containers that need not say how long they are: their demuxer guesses from the file's size."""

Block = NDArray[Any]


@dataclass(frozen=True)
class Recording:
    """A recording that is open and not yet heard. `declared_frames` is None where its header does not say."""

    container: str
    codec: str
    rate_hz: int
    channels: int
    declared_frames: int | None
    blocks: Callable[[], Iterator[Block]]


@dataclass(frozen=True)
class Heard:
    """What decoding a recording to its end brought."""

    frames: int
    peak: float
    """Largest absolute sample; 1.0 is full scale."""
    broke: bool
    """The decoder stopped with an error."""


def open_recording(container: str, source: int) -> Recording:
    """Open the seekable descriptor `source`, whose content is of `container`. Raises Fault."""
    os.lseek(source, 0, os.SEEK_SET)
    return _open_libav(container, source) if container in _DEMUXERS else _open_sndfile(container, source)


def _open_sndfile(container: str, source: int) -> Recording:
    try:
        sound = soundfile.SoundFile(source, closefd=False)
    except soundfile.LibsndfileError as error:
        raise _sndfile_fault(error) from None
    if sound.subtype not in _SUBTYPES:
        raise _unknown_codec()
    return Recording(
        container=container,
        codec=_SUBTYPES[sound.subtype],
        rate_hz=sound.samplerate,
        channels=sound.channels,
        declared_frames=sound.frames if 0 < sound.frames < _UNKNOWN_FRAMES else None,
        blocks=lambda: _sndfile_blocks(sound),
    )


def _sndfile_blocks(sound: Any) -> Iterator[Block]:
    buffer = np.empty((BLOCK_FRAMES, sound.channels), np.float32)
    while True:
        try:
            block = sound.read(out=buffer)
        except soundfile.LibsndfileError as error:
            raise _sndfile_fault(error) from None
        if not len(block):
            return
        yield block


def _sndfile_fault(error: Any) -> Fault:
    return resource_fault() if error.code == _OUT_OF_MEMORY else undecodable_fault()


def _open_libav(container: str, source: int) -> Recording:
    try:
        # No protocol and no second demuxer: a file that names other files gets none of them.
        media = av.open(
            open(source, "rb", closefd=False, buffering=0),  # noqa: SIM115 - libav keeps it open
            format=_DEMUXERS[container],
            container_options={"protocol_whitelist": "none"},
            metadata_errors="ignore",
        )
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise _libav_fault(error) from None
    stream = next(iter(media.streams.audio), None)
    if stream is None:
        raise Fault(FaultCode.UNSUPPORTED_FORMAT, "There is no sound in this file. Send one that has an audio track.")
    if stream.codec_context.name not in _CODECS:
        raise _unknown_codec()
    stream.codec_context.thread_count = 1
    return Recording(
        container=container,
        codec=_CODECS[stream.codec_context.name],
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
                continue
            yield from (_block(frame, stream) for frame in frames)
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise _libav_fault(error) from None
    is_lossless = _CODECS[stream.codec_context.name] in LOSSLESS
    if damaged > (0 if is_lossless else max(2, packets * _MOST_DAMAGED)):
        raise undecodable_fault()


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
    return block if block.dtype.kind == "f" else block / np.float32(1 << 8 * block.dtype.itemsize - 1)


def _unknown_codec() -> Fault:
    return Fault(
        FaultCode.UNSUPPORTED_FORMAT,
        "The audio inside is coded in a way that this service does not read. Export it as WAV or FLAC.",
    )


def undecodable_fault() -> Fault:
    return Fault(FaultCode.UNDECODABLE, "The file is damaged: it cannot be decoded. Export it again.")


def warm_up() -> None:
    """Decode a moment of sound of each kind, so that nothing is left to import once files are out of reach."""
    for container, codec in (
        ("wav", None),
        ("mp4", "aac"),
        ("ogg", "libopus"),
        ("flac", "flac"),
        ("mp3", "libmp3lame"),
    ):
        source = os.memfd_create("")
        with open(source, "w+b", buffering=0) as spool:  # noqa: PTH123 - a descriptor
            noise = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000, 2)).astype(np.float32)
            if codec is None:
                soundfile.write(spool, noise, 48_000, format="WAV")
            else:
                _encode(spool, container, codec, noise)
            recording = open_recording(container, source)
            check_header(recording, 2.0)
            judge(recording, listen(recording, 3.0), False, 4608)


def _encode(spool: Any, container: str, codec: str, samples: Block) -> None:
    with av.open(spool, "w", format=container) as media:
        stream: Any = media.add_stream(codec, rate=48_000)
        stream.codec_context.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        for resampled in av.AudioResampler(stream.codec_context.format, "stereo", 48_000).resample(frame):
            media.mux(stream.encode(resampled))
        media.mux(stream.encode(None))


def check_header(recording: Recording, max_duration_s: float) -> None:
    """Refuse by what the header alone says. Raises Fault."""
    if recording.channels > MAX_CHANNELS:
        raise Fault(
            FaultCode.TOO_MANY_CHANNELS,
            f"The recording has {recording.channels} channels; mono and stereo are mastered. Mix it down to stereo.",
            channels=recording.channels,
            allowed=MAX_CHANNELS,
        )
    if not MIN_RATE_HZ <= recording.rate_hz <= MAX_RATE_HZ:
        raise Fault(
            FaultCode.UNSUPPORTED_RATE,
            f"The sample rate is {recording.rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are mastered. Resample it.",
            rate_hz=recording.rate_hz,
            least_hz=MIN_RATE_HZ,
            allowed_hz=MAX_RATE_HZ,
        )
    if recording.declared_frames is not None:
        check_length(recording.declared_frames, recording.rate_hz, max_duration_s)


def check_length(frames: int, rate_hz: int, max_duration_s: float) -> None:
    """Raises Fault(too_long) where `frames` last longer than `max_duration_s`."""
    if frames > max_duration_s * rate_hz:
        minutes, allowed = frames / rate_hz / 60, max_duration_s / 60
        raise Fault(
            FaultCode.TOO_LONG,
            f"The recording lasts {minutes:.1f} minutes or more; at most {allowed:.0f} are mastered. Split it.",
            duration_s=round(frames / rate_hz),
            allowed_s=round(max_duration_s),
        )


def listen(recording: Recording, max_duration_s: float) -> Heard:
    """Decode to the end. Raises Fault(not_finite, too_long, too_many_channels, resource_limit)."""
    frames, peak, broke = 0, 0.0, False
    blocks = recording.blocks()
    try:
        for block in blocks:
            frames += len(block)
            check_length(frames, recording.rate_hz, max_duration_s)
            # A NaN or an infinity anywhere shows in the extremes: numpy's max and min hand NaN on.
            peak = _finite_peak(peak, block)
    except Fault as fault:
        if fault.code is not FaultCode.UNDECODABLE:
            raise
        broke = True
    return Heard(frames, peak, broke)


def _finite_peak(peak: float, block: Block) -> float:
    extremes = max(float(block.max()), -float(block.min())) if block.size else 0.0
    if not extremes <= 10 ** (BEYOND_SOUND_DBFS / 20):  # so that NaN is caught, which is no number's lesser
        raise Fault(
            FaultCode.NOT_FINITE,
            "The recording holds samples that are no sound (NaN, infinity or beyond +120 dBFS). Export it again.",
        )
    return max(peak, extremes)


def judge(recording: Recording, heard: Heard, is_cut_short: bool, slack_frames: int) -> Facts:
    """Facts of a recording that was heard to its end, or the Fault that stops it."""
    declared = recording.declared_frames
    if is_cut_short or (declared is not None and not heard.broke and heard.frames < declared - slack_frames):
        raise _truncated(recording, heard)
    if heard.broke and declared is not None and 0 < heard.frames < declared:
        raise _truncated(recording, heard)
    if heard.broke or heard.frames == 0:
        raise undecodable_fault()
    if heard.frames < MIN_DURATION_S * recording.rate_hz:
        raise Fault(
            FaultCode.TOO_SHORT,
            f"The recording lasts {heard.frames / recording.rate_hz:.2f} s; at least {MIN_DURATION_S:.0f} s is needed.",
            duration_s=round(heard.frames / recording.rate_hz, 3),
            least_s=MIN_DURATION_S,
        )
    if heard.peak < 10 ** (SILENCE_DBFS / 20):
        raise Fault(
            FaultCode.SILENT,
            f"The recording is silent: nothing in it is louder than {SILENCE_DBFS:.0f} dBFS. Send one with sound.",
        )
    return Facts(
        container=recording.container,
        codec=recording.codec,
        rate_hz=recording.rate_hz,
        channels=recording.channels,
        frames=heard.frames,
        duration_s=heard.frames / recording.rate_hz,
        lossy=recording.codec not in LOSSLESS,
    )


def _truncated(recording: Recording, heard: Heard) -> Fault:
    seconds, declared = heard.frames / recording.rate_hz, recording.declared_frames
    whole = f" of {declared / recording.rate_hz:.1f} s" if declared and declared > heard.frames else ""
    return Fault(
        FaultCode.TRUNCATED,
        f"The file is cut short or damaged: only {seconds:.1f} s{whole} could be read. Send the whole file again.",
        decoded_s=round(seconds, 3),
        **({"declared_s": round(declared / recording.rate_hz, 3)} if declared else {}),
    )


def resource_fault() -> Fault:
    return Fault(
        FaultCode.RESOURCE_LIMIT,
        "Decoding this file wanted more time or memory than an honest recording needs. Export it as WAV or FLAC.",
    )
