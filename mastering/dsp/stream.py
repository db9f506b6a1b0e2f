"""Audio as a run of blocks: how a song of any length goes through the engine within bounded memory.

A block is float32 ``(channels, frames)``, C-contiguous, at most `BLOCK_FRAMES` long; only the last may be shorter.
The block length is fixed because it is part of what makes a render repeatable bit for bit. It is as long as fits the
processor's cache with what is made of it: Python is asked for fewer steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Blocks = Iterator[Samples]

BLOCK_FRAMES = 1 << 17


@dataclass(frozen=True)
class Audio:
    """A recording that can be read from its start as often as needed, a block at a time."""

    rate_hz: int
    channels: int
    frames: int
    read: Callable[[], Blocks]
    samples: Samples | None = None
    """All of it, where it is kept in memory."""

    def map(self, change: Callable[[Blocks], Blocks]) -> Audio:
        """The same recording with `change` (frames in = frames out) applied whenever it is read."""
        return Audio(self.rate_hz, self.channels, self.frames, lambda: change(self.read()))


def stored(samples: Samples, rate_hz: int) -> Audio:
    """A recording held in memory; its blocks are views."""
    return Audio(rate_hz, samples.shape[0], samples.shape[1], lambda: split(samples), samples)


def collected(blocks: Iterable[Samples], channels: int, frames: int) -> Samples:
    """Blocks of about `frames` in all as one array."""
    kept = np.empty((channels, frames), np.float32)
    filled = 0
    for block in blocks:
        end = filled + block.shape[1]
        if end > kept.shape[1]:
            kept = np.concatenate([kept[:, :filled], np.empty((channels, end), np.float32)], axis=1)
        kept[:, filled:end] = block
        filled = end
    return kept[:, :filled]


def split(samples: Samples) -> Blocks:
    for start in range(0, samples.shape[1], BLOCK_FRAMES):
        yield samples[:, start : start + BLOCK_FRAMES]


def reblock(pieces: Iterable[Samples]) -> Blocks:
    """Pieces of any length as blocks of `BLOCK_FRAMES`."""
    held: list[Samples] = []
    frames = 0
    for piece in pieces:
        if not frames and piece.shape[1] == BLOCK_FRAMES:
            yield np.ascontiguousarray(piece)
            continue
        held.append(piece)
        frames += piece.shape[1]
        if frames < BLOCK_FRAMES:
            continue
        joined = np.concatenate(held, axis=1)
        whole = frames - frames % BLOCK_FRAMES
        yield from split(joined[:, :whole])
        held, frames = [joined[:, whole:]], frames - whole
    if frames:
        yield np.concatenate(held, axis=1)
