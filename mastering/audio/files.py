"""Audio files: decode and encode. The only door of the engine to soundfile and PyAV.

Every way in which a file can be bad ends here in a `Fault` that says what is wrong and what to do. A file is never
trusted about its own length: what is decoded is counted, and decoding stops where the limit is passed. Libraries'
own error texts may hold paths and are dropped. Long because decoding and encoding share the doors they guard.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO, cast

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from mastering.audio import pcm
from mastering.audio.codecs import CODECS, LOSSLESS
from mastering.audio.container import is_cut_off, sniff
from mastering.contract import (
    MAX_CHANNELS,
    MAX_DURATION_S,
    MAX_INPUT_BYTES,
    MAX_RATE_HZ,
    MIN_DURATION_S,
    MIN_RATE_HZ,
    Fault,
    FaultCode,
    OutputFormat,
)
from mastering.dsp.dither import quantise
from mastering.dsp.resample import resampled
from mastering.dsp.stream import BLOCK_FRAMES, Audio, Blocks, Samples, collected, reblock, stored
from mastering.dsp.threads import ahead

Tick = Callable[[int], None]

_SILENCE = 10 ** (-100 / 20)

_SUBTYPES = {
    "VORBIS": "vorbis", "OPUS": "opus", "MPEG_LAYER_III": "mp3", "FLOAT": "float_32", "DOUBLE": "float_64",
    "PCM_S8": "pcm_8", "PCM_U8": "pcm_8",
}  # fmt: skip
"""libsndfile's names for codings; those of whole numbers need only lower case."""
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,ogg,asf,mp3,wav,aiff,flac,caf"


@dataclass(frozen=True)
class Recording:
    """An opened file: what its header says, and a way to decode it from the start."""

    container: str
    codec: str
    rate_hz: int
    channels: int
    promised_frames: int | None
    """From the header; for MP3, whose header may have no length, a guess."""
    lossy: bool
    decode: Callable[[], Iterator[Samples]]
    decode_beside: Callable[[], Iterator[Samples]]
    """The same for several threads at once, a little slower."""


def open_recording(source: BinaryIO, *, most_bytes: int = MAX_INPUT_BYTES) -> Recording:
    """Read the header. Raises a Fault for anything that is not a readable song within the limits."""
    size = source.seek(0, io.SEEK_END)
    if size == 0:
        raise Fault(FaultCode.EMPTY_FILE, "The file is empty (0 bytes). Choose the file again, or export it anew.")
    if size > most_bytes:
        raise Fault(
            FaultCode.TOO_LARGE,
            f"The file has {size / 2**20:.0f} MiB; at most {most_bytes // 2**20} MiB are allowed. "
            "Send it as FLAC, or in parts.",
            bytes=size,
            allowed=most_bytes,
        )
    container = sniff(source)
    if container is None:
        raise _unsupported(
            "This is not an audio file we can read, whatever its name says. Send WAV, FLAC, AIFF, MP3, Ogg or M4A."
        )
    if is_cut_off(source, container):
        raise _truncated()
    recording = _open_with_soundfile(source, container) or _open_with_av(source, container)
    _check_limits(recording)
    return recording


def _check_limits(recording: Recording) -> None:
    if not 1 <= recording.channels <= MAX_CHANNELS:
        raise Fault(
            FaultCode.TOO_MANY_CHANNELS,
            f"The file has {recording.channels} channels; mono and stereo are mastered here. Export a stereo mix.",
            channels=recording.channels,
            allowed=MAX_CHANNELS,
        )
    if not MIN_RATE_HZ <= recording.rate_hz <= MAX_RATE_HZ:
        raise Fault(
            FaultCode.UNSUPPORTED_RATE,
            f"The sample rate is {recording.rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are allowed. "
            "Export at 44100 or 48000 Hz.",
            rate_hz=recording.rate_hz,
        )
    if recording.promised_frames is not None and recording.promised_frames > MAX_DURATION_S * recording.rate_hz:
        raise _too_long(recording.promised_frames / recording.rate_hz)


def _truncated() -> Fault:
    return Fault(
        FaultCode.TRUNCATED,
        "The file ends before the audio that its header promises: it was cut off, probably in transfer. Send it again.",
    )


def _unsupported(message: str) -> Fault:
    return Fault(FaultCode.UNSUPPORTED_FORMAT, message)


def _undecodable() -> Fault:
    return Fault(
        FaultCode.UNDECODABLE,
        "The file is damaged or holds no audio that we can decode. Export it again, as WAV or FLAC.",
    )


def _too_long(seconds: float) -> Fault:
    return Fault(
        FaultCode.TOO_LONG,
        f"The audio lasts {seconds / 60:.1f} minutes or more; at most {MAX_DURATION_S // 60} minutes are allowed. "
        "Send it in parts.",
        minutes=round(seconds / 60, 1),
        allowed=MAX_DURATION_S // 60,
    )


class _Cursor(io.RawIOBase):
    """A reading position of its own in a file that several threads read at once."""

    def __init__(self, source: BinaryIO, lock: Lock) -> None:
        self._source, self._lock, self._at = source, lock, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        with self._lock:
            self._source.seek(self._at)
            data = self._source.read(len(buffer))
        self._at += len(data)
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            with self._lock:
                offset += self._source.seek(0, io.SEEK_END)
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        return self._at


def _open_with_soundfile(source: BinaryIO, container: str) -> Recording | None:
    if container == "mp3":
        # libsndfile takes an MP3's length from its size and stops there, short of the end.
        return None
    source.seek(0)
    lock = Lock()
    try:
        with soundfile.SoundFile(source) as file:
            known = 0 < file.frames < 2**62
            codec = "flac" if container == "flac" else _SUBTYPES.get(file.subtype, file.subtype.lower())
            return Recording(
                container,
                codec,
                file.samplerate,
                file.channels,
                file.frames if known else None,
                codec not in LOSSLESS,
                lambda: _decode_with_soundfile(source),
                lambda: _decode_with_soundfile(cast(BinaryIO, _Cursor(source, lock))),
            )
    except soundfile.LibsndfileError:
        return None


def _decode_with_soundfile(source: BinaryIO) -> Iterator[Samples]:
    source.seek(0)
    try:
        with soundfile.SoundFile(source) as file:
            if pcm.is_plain(file):
                yield from pcm.decoded(file, source)
                return
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                yield _planar(block)
    except soundfile.LibsndfileError:
        raise (_truncated() if _near_end(source) else _undecodable()) from None


def _planar(frames: Samples) -> Samples:
    """(frames, channels) → (channels, frames). Channel by channel: a plain transposed copy takes six times as long."""
    block = np.empty(frames.shape[::-1], frames.dtype)
    for channel, samples in zip(block, frames.T, strict=True):
        channel[...] = samples
    return block


def _near_end(source: BinaryIO) -> bool:
    """Within one coded frame of the end: a FLAC that is cut off fails there, one damaged inside before."""
    position = source.tell()
    return source.seek(0, io.SEEK_END) - position < 1 << 16


def _av_open(source: BinaryIO) -> Any:
    source.seek(0)
    return av.open(source, options={"format_whitelist": _DEMUXERS, "protocol_whitelist": ""}, metadata_errors="ignore")


def _open_with_av(source: BinaryIO, container: str) -> Recording:
    lock = Lock()
    try:
        with _av_open(source) as file:
            if not file.streams.audio:
                raise _unsupported("There is no sound in this file. Send one that has an audio track.")
            stream = file.streams.audio[0]
            codec = CODECS.get(stream.codec_context.name)
            if codec is None:
                raise _unsupported(
                    "The audio inside is coded in a way that is not read here. Export it as WAV or FLAC."
                )
            rate_hz = stream.codec_context.sample_rate
            seconds = float(stream.duration * stream.time_base) if stream.duration else None
            return Recording(
                container,
                codec,
                rate_hz,
                stream.codec_context.channels,
                None if seconds is None else round(seconds * rate_hz),
                codec not in LOSSLESS,
                lambda: _decode_with_av(source),
                lambda: _decode_with_av(cast(BinaryIO, _Cursor(source, lock))),
            )
    except (av.error.FFmpegError, IndexError, ValueError):
        raise _undecodable() from None


def _decode_with_av(source: BinaryIO) -> Iterator[Samples]:
    try:
        with _av_open(source) as file:
            stream = file.streams.audio[0]
            planar = av.AudioResampler(format="fltp")
            for frame in file.decode(stream):
                yield from (_floats(part) for part in planar.resample(frame))
            yield from (_floats(part) for part in planar.resample(None))
    except (av.error.FFmpegError, IndexError, ValueError):
        raise _undecodable() from None


def _floats(frame: Any) -> Samples:
    samples: Samples = frame.to_ndarray()
    return samples


def load(recording: Recording, *, keep_samples: int, tick: Tick) -> Audio:
    """Decode the whole recording once, checking every sample.

    Up to `keep_samples` samples (frames x channels) stay in memory as float32; a longer recording is counted, let go
    and decoded anew whenever it is read. `tick` is called with the frames of each decoded block.
    """
    promised = recording.promised_frames
    blocks = checked(recording, tick)
    if promised is not None and promised * recording.channels <= keep_samples:
        return stored(collected(blocks, recording.channels, promised), recording.rate_hz)
    frames = sum(block.shape[1] for block in blocks)
    return Audio(recording.rate_hz, recording.channels, frames, lambda: reblock(recording.decode_beside()))


def checked(recording: Recording, tick: Tick) -> Blocks:
    """The blocks of a recording, each one looked at; raises a Fault for what no song can be made of."""
    frames, is_heard = 0, False
    for block in ahead(reblock(recording.decode())):
        frames += block.shape[1]
        if frames > MAX_DURATION_S * recording.rate_hz:
            raise _too_long(frames / recording.rate_hz)
        # Of numbers alone the sum of squares is one, too, unless they are beyond all sound.
        squares = sum(float(channel @ channel) for channel in block)
        if not math.isfinite(squares) and not np.isfinite(block).all():
            seconds = (frames - block.shape[1]) / recording.rate_hz
            raise Fault(
                FaultCode.NOT_FINITE,
                f"The audio holds samples that are not numbers, first near {seconds:.1f} s. "
                "Export it again without the plug-in that makes them.",
            )
        is_heard = is_heard or squares > block.size * _SILENCE**2 or float(np.abs(block).max()) >= _SILENCE
        tick(block.shape[1])
        yield block
    _check_length(recording, frames)
    if not is_heard:
        raise Fault(FaultCode.SILENT, "The audio is silent (no sample above −100 dBFS). Check what was exported.")


def _check_length(recording: Recording, frames: int) -> None:
    promised = recording.promised_frames
    # Coded audio may round its length to a coder frame or two; half a second is more than that.
    if promised is not None and recording.codec != "mp3" and frames < promised - recording.rate_hz // 2:
        raise _truncated()
    if not frames:
        raise _undecodable()
    if frames < MIN_DURATION_S * recording.rate_hz:
        raise Fault(
            FaultCode.TOO_SHORT,
            f"The audio lasts {frames / recording.rate_hz:.2f} s; at least {MIN_DURATION_S:.0f} s is needed.",
            seconds=round(frames / recording.rate_hz, 3),
            allowed=MIN_DURATION_S,
        )


_MP3 = {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": 0}
_SOUNDFILE: dict[OutputFormat, dict[str, Any]] = {
    OutputFormat.WAV24: {"format": "WAV", "subtype": "PCM_24"},
    OutputFormat.WAV16: {"format": "WAV", "subtype": "PCM_16"},
    OutputFormat.WAV32F: {"format": "WAV", "subtype": "FLOAT"},
    OutputFormat.FLAC: {"format": "FLAC", "subtype": "PCM_24", "compression_level": 0.4},
    OutputFormat.MP3: {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "CONSTANT",
        "compression_level": 0,
    },
    OutputFormat.MP3V0: {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "VARIABLE",
        "compression_level": 0,
    },
    OutputFormat.VORBIS: {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.2},
}
_AV: dict[OutputFormat, tuple[str, str, str, int | None]] = {
    OutputFormat.ALAC: ("ipod", "alac", "s32p", None),
    OutputFormat.AAC: ("ipod", "aac", "fltp", 256_000),
    OutputFormat.OPUS: ("ogg", "libopus", "flt", 192_000),
}
"""Container, coder, its sample format, bits per second."""
_BITS = {OutputFormat.WAV24: 24, OutputFormat.WAV16: 16, OutputFormat.FLAC: 24, OutputFormat.ALAC: 24}


def encode(audio: Audio, kind: OutputFormat, target: BinaryIO, *, seed: int, tick: Tick) -> None:
    """Write `audio` to `target`, from its start. Whole numbers are dithered from `seed`; lossy coders get floats."""
    target.seek(0)
    target.truncate(0)
    audio = resampled(audio, kind.rate_hz(audio.rate_hz))
    if kind in _AV:
        _encode_with_av(audio, kind, target, seed, tick)
    else:
        _encode_with_soundfile(audio, kind, target, seed, tick)
    target.seek(0)


def _encode_with_soundfile(audio: Audio, kind: OutputFormat, target: BinaryIO, seed: int, tick: Tick) -> None:
    how, bits = _SOUNDFILE[kind], _BITS.get(kind)
    if how["format"] == "WAV" and audio.frames * audio.channels * 4 > pcm.MOST_BYTES:
        how = how | {"format": "RF64"}
    elif how["format"] == "WAV" and bits is not None and pcm.is_writable(audio.frames, audio.channels, bits):
        pcm.write(target, _whole_numbers(audio, kind, seed, tick), audio.rate_hz, audio.channels, bits)
        return
    with soundfile.SoundFile(target, "w", samplerate=audio.rate_hz, channels=audio.channels, **how) as file:
        for block in _whole_numbers(audio, kind, seed, tick):
            file.write(_interleaved(block))


def _interleaved(block: NDArray[Any]) -> NDArray[Any]:
    """(channels, frames) → (frames, channels), channel by channel like `_planar`."""
    frames = np.empty(block.shape[::-1], block.dtype)
    for number, channel in enumerate(block):
        frames[:, number] = channel
    return frames


def _whole_numbers(audio: Audio, kind: OutputFormat, seed: int, tick: Tick) -> Iterator[NDArray[Any]]:
    """The blocks as the format's whole numbers, left-aligned in 32 bits; as they are where it takes floats."""
    bits = _BITS.get(kind)
    blocks = enumerate(audio.read())
    made = (block if bits is None else quantise(block, bits, seed=seed, index=index) for index, block in blocks)
    for block in ahead(made):
        yield block
        tick(block.shape[1])


def _encode_with_av(audio: Audio, kind: OutputFormat, target: BinaryIO, seed: int, tick: Tick) -> None:
    container, coder, shape, rate = _AV[kind]
    layout = "stereo" if audio.channels == 2 else "mono"
    with av.open(target, "w", format=container) as file:
        stream: Any = file.add_stream(coder, rate=audio.rate_hz)
        stream.codec_context.layout, stream.codec_context.format = layout, shape
        if rate is not None:
            stream.codec_context.bit_rate = rate
        convert = av.AudioResampler(format=shape, layout=layout, rate=audio.rate_hz)
        start = 0
        for block in _whole_numbers(audio, kind, seed, tick):
            held = "s32p" if block.dtype == np.int32 else "fltp"
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format=held, layout=layout)
            frame.sample_rate, frame.pts = audio.rate_hz, start
            start += block.shape[1]
            for part in convert.resample(frame):
                file.mux(stream.encode(part))
        file.mux(stream.encode(None))
