"""What libsndfile is shown in place of a few bytes of a header, so that it finds the audio that is there.

A writer to a pipe cannot seek back to fill in how much it wrote; libsndfile takes some of what such writers leave (zero
above all) for the size of the audio, and knows nothing of BW64, which is RF64 by another name (ITU-R BS.2088).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from mastering.audio import riff
from mastering.audio.container import audio_start, behind_tags
from mastering.audio.riff import RandomAccessBytes


class Patch(NamedTuple):
    """Bytes to be read from byte `at` on."""

    at: int
    content: bytes


def header_patches(container: str, data: RandomAccessBytes) -> tuple[Patch, ...]:
    """The patches for a file of `container`; none for nearly all."""
    patches = _PATCHES.get(container)
    if patches is None:
        return ()
    start = audio_start(data)
    return tuple(Patch(start + at, content) for at, content in patches(behind_tags(data)))


def patched(stretch: bytes, at: int, patches: tuple[Patch, ...]) -> bytes:
    """The bytes of the file from `at` on with `patches` in their places."""
    changed = bytearray(stretch)
    for start, content in patches:
        for number, octet in enumerate(content, start - at):
            if 0 <= number < len(changed):
                changed[number] = octet
    return bytes(changed)


def _wav(data: RandomAccessBytes) -> tuple[Patch, ...]:
    renamed = (Patch(0, b"RF64"),) if data[:4] == b"BW64" else ()
    for name, at, size in riff.wav_chunks(data):
        if name == b"data" and riff.is_open(data, at, size):
            return (*renamed, *_with_sizes(data, at))
    return renamed


def _with_sizes(data: RandomAccessBytes, at: int) -> tuple[Patch, ...]:
    """All sizes of a WAV whose audio goes from byte `at` to the end."""
    whole, audio = len(data) - 8, len(data) - at
    if data[12:16] == b"ds64":
        return (Patch(20, struct.pack("<QQQ", whole, audio, 0)),)
    if whole >= 1 << 32:
        return ()
    return Patch(4, struct.pack("<I", whole)), Patch(at - 4, struct.pack("<I", audio))


def _w64(data: RandomAccessBytes) -> tuple[Patch, ...]:
    for name, at, size in riff.w64_chunks(data):
        if name == b"data" and size >= riff.W64_UNKNOWN_BYTES:
            return (Patch(16, struct.pack("<Q", len(data))), Patch(at - 8, struct.pack("<Q", len(data) - at + 24)))
    return ()


def _au(data: RandomAccessBytes) -> tuple[Patch, ...]:
    return (Patch(8, b"\xff\xff\xff\xff"),) if data[8:12] == bytes(4) else ()


_PATCHES: dict[str, Callable[[RandomAccessBytes], tuple[Patch, ...]]] = {"wav": _wav, "w64": _w64, "au": _au}
