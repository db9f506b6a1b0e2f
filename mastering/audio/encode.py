"""Encode a master into each format that can be asked for, by libsndfile, FFmpeg's libraries or pedalboard's LAME."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from pedalboard.io import WriteableAudioFile

from mastering.audio import pcm
from mastering.contract import OutputFormat
from mastering.dsp.dither import quantise
from mastering.dsp.resample import resampled
from mastering.dsp.stream import Audio
from mastering.dsp.threads import ahead

_SNDFILE_FORMATS: dict[OutputFormat, dict[str, Any]] = {
    OutputFormat.WAV24: {"format": "WAV", "subtype": "PCM_24"},
    OutputFormat.WAV16: {"format": "WAV", "subtype": "PCM_16"},
    OutputFormat.WAV32F: {"format": "WAV", "subtype": "FLOAT"},
    OutputFormat.FLAC: {"format": "FLAC", "subtype": "PCM_24", "compression_level": 0.4},
    OutputFormat.VORBIS: {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.2},
}
_LIBAV_FORMATS: dict[OutputFormat, tuple[str, str, str, int | None]] = {
    OutputFormat.ALAC: ("ipod", "alac", "s32p", None),
    OutputFormat.AAC: ("ipod", "aac", "fltp", 256_000),
    OutputFormat.OPUS: ("ogg", "libopus", "flt", 192_000),
}
"""Container, coder, its sample format, bits per second (None: as many as it takes)."""
_MP3_QUALITIES = {OutputFormat.MP3: "320", OutputFormat.MP3V0: "V0"}
"""Of pedalboard's LAME 3.100 at its quality 3: the samples of libsndfile's within 0.01 dB, in a third of the time."""
_SAMPLE_BITS = {OutputFormat.WAV24: 24, OutputFormat.WAV16: 16, OutputFormat.FLAC: 24, OutputFormat.ALAC: 24}
"""Of the formats of whole numbers; the others take floats."""


def sample_bits(kind: OutputFormat) -> int | None:
    """Of the whole numbers in this format; None where it takes floats."""
    return _SAMPLE_BITS.get(kind)


def encode(audio: Audio, kind: OutputFormat, target: BinaryIO, *, seed: int, tick: Callable[[int], None]) -> None:
    """Write `audio` as `kind` to `target`, from its start.

    Whole numbers are dithered from `seed`; lossy coders get floats. `tick` is called with the frames of each block
    that was written.
    """
    target.seek(0)
    target.truncate(0)
    audio = resampled(audio, kind.rate_hz(audio.rate_hz))
    if kind in _MP3_QUALITIES:
        _encode_with_pedalboard(audio, kind, target, tick)
    elif kind in _LIBAV_FORMATS:
        _encode_with_libav(audio, kind, target, seed, tick)
    else:
        _encode_with_sndfile(audio, kind, target, seed, tick)
    target.seek(0)


def _encode_with_sndfile(
    audio: Audio, kind: OutputFormat, target: BinaryIO, seed: int, tick: Callable[[int], None]
) -> None:
    how, bits = _SNDFILE_FORMATS[kind], _SAMPLE_BITS.get(kind)
    if how["format"] == "WAV" and audio.frames * audio.channels * 4 > pcm.MOST_BYTES:
        how = how | {"format": "RF64"}
    elif how["format"] == "WAV" and bits is not None and pcm.is_writable(audio.frames, audio.channels, bits):
        pcm.write(target, _whole_numbers(audio, kind, seed, tick), audio.rate_hz, audio.channels, bits)
        return
    with soundfile.SoundFile(target, "w", samplerate=audio.rate_hz, channels=audio.channels, **how) as file:
        for block in _whole_numbers(audio, kind, seed, tick):
            file.write(_interleaved(block))


def _interleaved(block: NDArray[Any]) -> NDArray[Any]:
    """(channels, frames) → (frames, channels), channel by channel for the reason that `decode` transposes so."""
    frames = np.empty(block.shape[::-1], block.dtype)
    for number, channel in enumerate(block):
        frames[:, number] = channel
    return frames


def _whole_numbers(audio: Audio, kind: OutputFormat, seed: int, tick: Callable[[int], None]) -> Iterator[NDArray[Any]]:
    """The blocks as the format's whole numbers, left-aligned in 32 bits; as they are where it takes floats."""
    bits = _SAMPLE_BITS.get(kind)
    blocks = enumerate(audio.read())
    made = (block if bits is None else quantise(block, bits, seed=seed, index=index) for index, block in blocks)
    for block in ahead(made):
        yield block
        tick(block.shape[1])


def _encode_with_pedalboard(audio: Audio, kind: OutputFormat, target: BinaryIO, tick: Callable[[int], None]) -> None:
    quality = _MP3_QUALITIES[kind]
    with WriteableAudioFile(target, audio.rate_hz, audio.channels, quality=quality, format="mp3") as file:
        for block in ahead(audio.read()):
            file.write(np.ascontiguousarray(block))
            tick(block.shape[1])


def _encode_with_libav(
    audio: Audio, kind: OutputFormat, target: BinaryIO, seed: int, tick: Callable[[int], None]
) -> None:
    container, coder, shape, rate = _LIBAV_FORMATS[kind]
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
