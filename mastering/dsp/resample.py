"""Another sample rate, by soxr's very-high-quality setting, a block at a time. Only where it was asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr

from mastering.dsp.stream import Audio, Blocks, Samples, reblock


def resampled(audio: Audio, rate_hz: int) -> Audio:
    """`audio` at `rate_hz`; frames become round(frames x new rate / old rate)."""
    if rate_hz == audio.rate_hz:
        return audio
    frames = round(audio.frames * rate_hz / audio.rate_hz)
    return Audio(rate_hz, audio.channels, frames, lambda: reblock(exactly(_converted(audio, rate_hz), frames)))


def _converted(audio: Audio, rate_hz: int) -> Iterator[Samples]:
    stream = soxr.ResampleStream(audio.rate_hz, rate_hz, audio.channels, dtype="float32", quality="VHQ")
    for block in audio.read():
        yield np.ascontiguousarray(stream.resample_chunk(np.ascontiguousarray(block.T)).T)
    nothing = np.zeros((0, audio.channels), np.float32)
    yield np.ascontiguousarray(stream.resample_chunk(nothing, last=True).T)


def exactly(pieces: Iterator[Samples], frames: int) -> Blocks:
    """The pieces cut, or filled up with silence, to `frames`: a resampler may end a frame early or late."""
    left, channels = frames, 1
    for piece in pieces:
        channels = piece.shape[0]
        part = piece[:, :left]
        left -= part.shape[1]
        yield part
    if left:
        yield np.zeros((channels, left), np.float32)
