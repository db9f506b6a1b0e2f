"""Blocks of a WavPack file, read before FFmpeg's decoder sees one: how long they are, and of how many channels.

A stereo block is whole in itself. Several blocks for one stretch of time are several channels, for all of which the
decoder would make room at once, two thousand times as much as the file has bytes: such a file is refused before it is
decoded. Source: WavPack 4 & 5 Binary File / Block Format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mastering.audio.riff import RandomAccessBytes

_HEADER = struct.Struct("<4sIHBBIIII")
"""Mark, bytes behind the first eight, version, two high bytes, samples of all, first sample, samples, flags."""
_MAX_BLOCKS = 100_000
"""A block holds half a second or so; ninety minutes have ten thousand."""
_WHOLE = 0x1800
"""First and last block of its stretch of time."""
_HYBRID = 0x8
_UNKNOWN_FRAMES = 0xFFFFFFFF


@dataclass(frozen=True)
class WavPackBlocks:
    """What the blocks of a file say of it."""

    end: int
    """The first byte behind them."""
    declared_frames: int | None
    """By the first block; None where its writer did not know."""
    is_cut_short: bool
    """Its last block is not whole."""
    is_plain: bool
    """Each block is whole in itself, so there are two channels at most; and there are no more blocks than are read."""
    is_hybrid: bool
    """Lossy: what would make it whole is in a file of its own (.wvc)."""


def read_blocks(data: RandomAccessBytes, at: int = 0) -> WavPackBlocks:
    """The blocks from byte `at` on, up to what is none, which may be a tag."""
    declared, is_cut_short, is_plain, is_hybrid = None, False, True, False
    for number in range(_MAX_BLOCKS):
        header = data[at : at + _HEADER.size]
        if len(header) < _HEADER.size or header[:4] != b"wvpk":
            is_cut_short = header[:4] == b"wvpk"
            break
        _, size, _, _, _, total, _, samples, flags = _HEADER.unpack(header)
        if number == 0:
            declared, is_hybrid = (None if total == _UNKNOWN_FRAMES else total), bool(flags & _HYBRID)
        at += 8 + max(size, _HEADER.size - 8)
        if at > len(data):
            is_cut_short = True
            break
        is_plain = is_plain and (samples == 0 or flags & _WHOLE == _WHOLE)
    else:
        is_plain = False
    return WavPackBlocks(min(at, len(data)), declared, is_cut_short, is_plain, is_hybrid)
