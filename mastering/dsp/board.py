"""A board of pedalboard's processors on a stream of blocks, and what it does to the spectrum.

Filters are minimum phase: nothing sounds before a hit. Each processor works on both channels, on the mid or on the
side; those in a row on the same are one pedalboard. A compressor on both channels is linked: it follows the louder of
the two, sample by sample, and its gain is given to both, so that no sound moves to another place.

pedalboard computes in float32, one sample after the other: the same bits in pieces of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pedalboard
from numpy.typing import NDArray
from pedalboard._pedalboard import Pedalboard

from mastering.contract.board import (
    Compressor,
    Gain,
    HighpassFilter,
    HighShelfFilter,
    LowpassFilter,
    LowShelfFilter,
    PeakFilter,
    Processor,
    Side,
)
from mastering.dsp.stream import Blocks, Samples

_BUFFER_FRAMES = 8192
_LEAST_FRAMES = 16
"""pedalboard tells channels from frames by the shape: what is shorter is filled up with silence."""
QUIETEST = 1e-9
"""Below it a compressor's gain is not read from what it made of the level."""
_HIGHEST_SHARE = 0.49
"""Of the sample rate: a filter whose frequency is higher can't be made, and would do nothing that is heard."""


def fits(processor: Processor, rate_hz: int, channels: int) -> bool:
    """Whether the processor has something to work on: a mono song has no side, a low sample rate no high band."""
    frequency_hz = getattr(processor, "cutoff_frequency_hz", 0.0)
    return frequency_hz < _HIGHEST_SHARE * rate_hz and (channels == 2 or processor.on != "side")


def plugin(processor: Processor) -> pedalboard.Plugin:
    """pedalboard's own object for the processor."""
    made: pedalboard.Plugin = getattr(pedalboard, processor.processor)(**numbers(processor))
    return made


def numbers(processor: Processor) -> dict[str, float]:
    """The processor's parameters by pedalboard's names."""
    return processor.model_dump(exclude={"processor", "on", "reason"})


class Board:
    """The processors, one after the other; those that don't fit (`fits`) are passed over.

    Feed blocks in order; only the last may be shorter than 16 frames.
    """

    def __init__(self, processors: Sequence[Processor], rate_hz: int, channels: int) -> None:
        fitting = [each for each in processors if fits(each, rate_hz, channels)]
        self._stages = [_Stage(*group, rate_hz, channels) for group in stages(fitting)]

    def feed(self, block: Samples) -> Samples:
        """(channels, frames) → the same shape."""
        frames = block.shape[1]
        if frames < _LEAST_FRAMES:
            block = np.pad(block, ((0, 0), (0, _LEAST_FRAMES - frames)))
        for stage in self._stages:
            block = stage.feed(block)
        return block[:, :frames]


def through(blocks: Blocks, processors: Sequence[Processor], rate_hz: int, channels: int) -> Blocks:
    """The blocks through a board."""
    board = Board(processors, rate_hz, channels)
    for block in blocks:
        yield board.feed(block)


def stages(processors: Sequence[Processor]) -> list[tuple[Side, bool, list[Processor]]]:
    """Runs of processors that work on the same: (what on, whether by one linked gain, the processors)."""
    keyed = groupby(processors, lambda each: (each.on, each.on == "both" and isinstance(each, Compressor)))
    return [(on, linked, list(group)) for (on, linked), group in keyed]


class _Stage:
    """A run of processors on the same channels, as one pedalboard."""

    def __init__(self, on: Side, linked: bool, processors: Sequence[Processor], rate_hz: int, channels: int) -> None:
        self._board = Pedalboard([plugin(each) for each in processors])
        self._rate_hz = rate_hz
        change = {"both": self._linked if linked else self._run, "mid": self._mid, "side": self._side}
        self.feed: Callable[[Samples], Samples] = self._run if channels == 1 else change[on]

    def _run(self, samples: Samples) -> Samples:
        done: Samples = self._board.process(
            np.ascontiguousarray(samples), self._rate_hz, buffer_size=_BUFFER_FRAMES, reset=False
        )
        return done

    def _mid(self, block: Samples) -> Samples:
        mid, side = _mid_side(block)
        return _left_right(self._run(mid), side)

    def _side(self, block: Samples) -> Samples:
        mid, side = _mid_side(block)
        return _left_right(mid, self._run(side))

    def _linked(self, block: Samples) -> Samples:
        level = np.maximum(np.abs(block).max(axis=0, keepdims=True), np.float32(QUIETEST))
        gained: Samples = block * (self._run(level) / level)
        return gained


def _mid_side(block: Samples) -> tuple[Samples, Samples]:
    half = np.float32(0.5)
    return (block[:1] + block[1:]) * half, (block[:1] - block[1:]) * half


def _left_right(mid: Samples, side: Samples) -> Samples:
    return np.concatenate([mid + side, mid - side])


def gains(processors: Sequence[Processor], rate_hz: int, hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear gains (2, frequencies) of the board for the mid and the side; what depends on the level counts as none."""
    found = np.ones((2, hz.size))
    for each in processors:
        rows = {"both": [0, 1], "mid": [0], "side": [1]}[each.on]
        found[rows] *= np.abs(_response(each, rate_hz, hz))
    return found


def _response(processor: Processor, rate_hz: int, hz: NDArray[np.float64]) -> NDArray[np.complex128]:
    """The frequency response of one processor: those of JUCE's filters, by the bilinear transform.

    First order: 1 / (1 + s) and s / (1 + s). Shelves and bell: R. Bristow-Johnson, "Cookbook formulae for audio EQ
    biquad filter coefficients". s = j tan(π f / rate) / tan(π f₀ / rate).
    """
    if isinstance(processor, Gain):
        return np.full(hz.size, 10 ** (processor.gain_db / 20), np.complex128)
    if not isinstance(processor, HighpassFilter | LowpassFilter | LowShelfFilter | PeakFilter | HighShelfFilter):
        return np.ones(hz.size, np.complex128)
    warped = np.tan(np.pi * np.minimum(hz, 0.499999 * rate_hz) / rate_hz)
    s: NDArray[np.complex128] = 1j * warped / np.tan(np.pi * processor.cutoff_frequency_hz / rate_hz)
    above, below = _transfer(processor, s)
    found: NDArray[np.complex128] = above / below
    return found


def _transfer(
    processor: HighpassFilter | LowpassFilter | LowShelfFilter | PeakFilter | HighShelfFilter, s: Any
) -> tuple[Any, Any]:
    """Numerator and denominator of a filter's transfer function at `s`."""
    if isinstance(processor, HighpassFilter):
        return s, 1 + s
    if isinstance(processor, LowpassFilter):
        return 1.0, 1 + s
    a, q = 10 ** (processor.gain_db / 40), processor.q
    if isinstance(processor, PeakFilter):
        return s * s + s * (a / q) + 1, s * s + s / (a * q) + 1
    slope = a**0.5 / q * s
    low, high = s * s + slope + a, a * s * s + slope + 1
    return (a * low, high) if isinstance(processor, LowShelfFilter) else (a * high, low)
