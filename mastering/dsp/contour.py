"""A recording at block rate ("contour"): its band powers and its highest sample, every 12 ms or so.

A contour is the power of mid and side in third octaves, and the highest sample, of each block: 2.5 MB for four minutes,
on which a fit can try a plan in milliseconds. Powers are those of `dsp.spectrum` (a full-scale sine is 1), Hann windows
of four blocks. What is compared of recordings is worked out from it in `dsp.features`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

from mastering.dsp.spectrum import band_shares
from mastering.dsp.stream import Blocks, Samples

_OVERLAP = 4
"""Blocks in a window."""


def hop_frames(rate_hz: int) -> int:
    """Frames in a block: a power of two of about 12 ms."""
    return int(1 << round(math.log2(rate_hz * 0.0116)))


@dataclass(frozen=True)
class Contour:
    """A recording at block rate."""

    rate_hz: int
    power: NDArray[np.float32]
    """(blocks, 2, bands), mid and side."""
    peaks: NDArray[np.float32]
    """Highest sample of each block."""

    @property
    def blocks_per_s(self) -> float:
        return self.rate_hz / hop_frames(self.rate_hz)

    def thinned(self, most_s: float, stretch_s: float = 10.0) -> Contour:
        """At most `most_s` of it, in evenly spread stretches of `stretch_s`: a fit need not read the whole hour."""
        width, blocks = round(stretch_s * self.blocks_per_s), len(self.peaks)
        count, kept = blocks // width, int(most_s / stretch_s)
        if count <= kept:
            return self
        starts = (np.arange(kept) * count // kept) * width
        chosen = (starts[:, None] + np.arange(width)).reshape(-1)
        return replace(self, power=self.power[chosen], peaks=self.peaks[chosen])


class ContourMeter:
    """Collects the contour from blocks of any length."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._hop = hop_frames(rate_hz)
        length = self._hop * _OVERLAP
        window = np.hanning(length + 1)[:-1]
        self._window = (window * math.sqrt(4 / (window @ window) / length)).astype(np.float32)
        self._shares = band_shares(rate_hz, length).T.astype(np.float32)
        self._held: Samples | None = None
        self._powers: list[NDArray[np.float32]] = []
        self._peaks: list[NDArray[np.float32]] = []

    def feed(self, block: Samples) -> None:
        if self._held is None:  # so that a window's middle is its block's
            block = np.pad(block, ((0, 0), ((_OVERLAP - 1) * self._hop // 2, 0)))
            self._held = block[:, :0]
        self._held = np.concatenate([self._held, block], axis=1)
        count = self._held.shape[1] // self._hop - (_OVERLAP - 1)
        if count > 0:
            self._measure(self._held, count)
            self._held = self._held[:, count * self._hop :].copy()

    def passing(self, blocks: Iterable[Samples]) -> Blocks:
        """The same blocks, each fed to this meter when it is taken."""
        for block in blocks:
            self.feed(block)
            yield block

    def contour(self) -> Contour:
        """Ends the recording. At least one block; a last one that is not whole is left out."""
        if self._held is not None:
            left = np.pad(self._held, ((0, 0), (0, (_OVERLAP - 1) * self._hop // 2)))
            short = _OVERLAP * self._hop - left.shape[1]
            left = np.pad(left, ((0, 0), (0, short))) if short > 0 and not self._powers else left
            self._measure(left, left.shape[1] // self._hop - (_OVERLAP - 1))
            self._held = None
        return Contour(self._rate_hz, np.concatenate(self._powers), np.concatenate(self._peaks))

    def _measure(self, held: Samples, count: int) -> None:
        if count <= 0:
            return
        sides = held if len(held) == 1 else np.stack([held[0] + held[1], held[0] - held[1]]) * np.float32(0.5)
        frames = sliding_window_view(sides, _OVERLAP * self._hop, axis=1)[:, :: self._hop][:, :count]
        bins = fft.rfft(frames * self._window)
        power = (np.square(bins.real) + np.square(bins.imag)) @ self._shares
        if len(power) == 1:
            power = np.concatenate([power, np.zeros_like(power)])
        self._powers.append(np.ascontiguousarray(power.transpose(1, 0, 2)))
        start = (_OVERLAP - 1) * self._hop // 2
        middle = held[:, start : start + count * self._hop]
        self._peaks.append(np.abs(middle).max(axis=0).reshape(count, self._hop).max(axis=1))
