"""Read and write WAV samples by numpy: libsndfile does the same a sample at a time, and slower.

libsndfile still reads and checks every header, and finds where the samples start; Python's own `wave` writes headers.
The rest is copying: the samples of 16- and 24-bit WAVs lie side by side, in the order of the frames.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from mastering.dsp.stream import BLOCK_FRAMES, Samples

_WIDTHS = {"PCM_16": 2, "PCM_24": 3}
"""Subtype → bytes of a sample."""
MOST_BYTES = (1 << 32) - (1 << 20)
"""Of the samples in a WAV that is no RF64: its sizes have 32 bits, and headers and tags need a little."""


def is_plain(file: Any) -> bool:
    """Whether `whole_numbers` can read what this soundfile.SoundFile has opened."""
    return file.format in ("WAV", "WAVEX", "RF64") and file.subtype in _WIDTHS and file.endian in ("FILE", "LITTLE")


def whole_numbers(
    file: Any, read_into: Callable[[memoryview], int | None], block_frames: int = BLOCK_FRAMES
) -> Iterator[NDArray[Any]]:
    """Blocks (frames, channels) of whole numbers: int16, or int32 with the 24 bits left-aligned.

    Each block overwrites the one before. `file` has been opened on the same source that `read_into` reads, from where
    `file` has left it, into the memory that it is given; it returns how many bytes it read.
    """
    width = _WIDTHS[file.subtype]
    frame_bytes = width * file.channels
    file.seek(0)  # which leaves what it reads at the first sample
    raw = bytearray(1 + block_frames * frame_bytes)
    samples = _in_place(raw, width, block_frames * file.channels)
    left = file.frames
    while left:
        wanted = memoryview(raw)[1 : 1 + min(left, block_frames) * frame_bytes]
        frames = _fill(wanted, read_into) // frame_bytes
        if not frames:
            return
        found = samples[: frames * file.channels]
        # Four bytes are read for 24 bits: the lowest is that of the sample before.
        yield (found & -256 if width == 3 else found).reshape(frames, file.channels)
        left -= frames


def is_plain_float(file: Any) -> bool:
    """Whether `floats` can read what this soundfile.SoundFile has opened."""
    return file.format in ("WAV", "WAVEX", "RF64") and file.subtype == "FLOAT" and file.endian in ("FILE", "LITTLE")


def floats(
    file: Any, read_into: Callable[[memoryview], int | None], block_frames: int = BLOCK_FRAMES
) -> Iterator[NDArray[np.float32]]:
    """Blocks (frames, channels) of a WAV of 32-bit floats, whatever they hold; `file` and `read_into` as before."""
    frame_bytes = 4 * file.channels
    file.seek(0)
    raw = bytearray(block_frames * frame_bytes)
    samples = np.frombuffer(raw, "<f4")
    left = file.frames
    while left:
        wanted = memoryview(raw)[: min(left, block_frames) * frame_bytes]
        frames = _fill(wanted, read_into) // frame_bytes
        if not frames:
            return
        yield samples[: frames * file.channels].reshape(frames, file.channels)
        left -= frames


def decoded(file: Any, source: BinaryIO) -> Iterator[Samples]:
    """The blocks of `source`, which `file` has opened; the same floats that `file` itself would give."""
    for block in whole_numbers(file, cast(io.RawIOBase, source).readinto):
        floats = np.empty(block.shape[::-1], np.float32)
        for channel, found in zip(floats, block.T, strict=True):
            channel[...] = found
        floats *= np.float32(2.0**-15 if block.dtype == np.int16 else 2.0**-31)
        yield floats


def _in_place(raw: bytearray, width: int, count: int) -> NDArray[Any]:
    """A view of the samples in `raw` after its first byte, as whole numbers, uncopied."""
    kind, start = ("<i2", 1) if width == 2 else ("<i4", 0)
    return as_strided(np.frombuffer(raw, kind, 1, start), (count,), (width,), writeable=False)


def _fill(target: memoryview, read_into: Callable[[memoryview], int | None]) -> int:
    """Read until `target` is full or there is no more. How many bytes were read."""
    filled = 0
    while filled < len(target) and (count := read_into(target[filled:])):
        filled += count
    return filled


def is_writable(frames: int, channels: int, bits: int) -> bool:
    """Whether `write` makes a valid file of so many frames: `wave` knows no RF64, and does not pad an odd chunk."""
    size = frames * channels * bits // 8
    return size % 2 == 0 and size < MOST_BYTES


def write(target: BinaryIO, blocks: Iterable[NDArray[np.int32]], rate_hz: int, channels: int, bits: int) -> None:
    """Blocks (channels, frames) of left-aligned whole numbers as a WAV of 16 or 24 bits."""
    width = bits // 8
    with wave.open(target, "wb") as file:
        file.setparams((channels, width, rate_hz, 0, "NONE", ""))
        for block in blocks:
            packed = np.empty((block.shape[1], channels, width), np.uint8)
            octets = block.astype("<i4", copy=False).view(np.uint8).reshape(channels, -1, 4)
            for number, channel in enumerate(octets):
                for octet in range(width):
                    packed[:, number, octet] = channel[:, 4 - width + octet]
            file.writeframesraw(packed.data.cast("B"))
