"""The loudest stretch of a song, cut out: what previews are made of and plans are tried on."""

from __future__ import annotations

import numpy as np

from mastering.dsp.loudness import BLOCKS_PER_S, BlockEnergies
from mastering.dsp.stream import Audio, Samples, stored


def loudest_s(energies: BlockEnergies, seconds: float) -> float:
    """Where the loudest `seconds` begin, to a tenth of a second."""
    width = round(seconds * BLOCKS_PER_S)
    if energies.size <= width:
        return 0.0
    total = np.concatenate([[0.0], np.cumsum(energies)])
    step = BLOCKS_PER_S // 10
    sums = (total[width:] - total[:-width])[::step]
    return int(np.argmax(sums)) * step / BLOCKS_PER_S


def cut(audio: Audio, start_s: float, seconds: float) -> Audio:
    """A copy of that stretch, in memory."""
    first = min(round(start_s * audio.rate_hz), audio.frames)
    end = min(first + round(seconds * audio.rate_hz), audio.frames)
    pieces: list[Samples] = []
    at = 0
    for block in audio.read():
        pieces.append(block[:, max(0, first - at) : max(0, end - at)].copy())
        at += block.shape[1]
        if at >= end:
            break
    return stored(np.concatenate(pieces, axis=1), audio.rate_hz)


def fresh(audio: Audio) -> Audio:
    """The same recording in an array of its own: a render overwrites what it is given."""
    assert audio.samples is not None  # noqa: S101 - `cut` keeps what it cuts
    return stored(audio.samples.copy(), audio.rate_hz)
