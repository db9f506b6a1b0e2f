"""Loudness by ITU-R BS.1770-5 and EBU Tech 3341/3342, from the energies of 10 ms blocks.

The K-weighting is the analogue prototype of BS.1770's two filters, found by De Man ("Evaluation of implementations
of the EBU R128 loudness measurement", AES 145, 2018), put through the bilinear transform at any sample rate.
A block's energy is the mean square of the K-weighted samples summed over channels (weights 1 for mono and stereo,
BS.1770-5 equation 2). Momentary and short-term loudness are read every 10 ms, the gating blocks every 100 ms.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mastering.dsp.recursive import RecursiveFilter
from mastering.dsp.stream import Samples

BlockEnergies = NDArray[np.float64]
"""K-weighted energies of 10 ms blocks, one after the other (blocks,); the last is whole."""

BLOCKS_PER_S = 100
_MOMENTARY = 40
"""Blocks in 400 ms, the window of momentary loudness and of the gating blocks."""
_SHORT_TERM = 300
"""Blocks in 3 s."""
_HOP = 10
"""Blocks between two gating blocks: 100 ms."""
_ROW_FRAMES = 64
"""Frames of the filter's rows where energies are read frame by frame."""
_ABSOLUTE_GATE_LUFS = -70.0
_OFFSET_LUFS = -0.691


def k_weighting(rate_hz: int) -> NDArray[np.float64]:
    """Second-order sections of the K-weighting at `rate_hz`: the shelf, then the high-pass."""
    return np.array([_shelf(rate_hz), _high_pass(rate_hz)])


def _shelf(rate_hz: int) -> list[float]:
    gain = 10 ** (3.999843853973347 / 20)
    k, q = math.tan(math.pi * 1681.974450955533 / rate_hz), 0.7071752369554196
    middle = gain**0.4996667741545416 * k / q
    a0 = 1 + k / q + k * k
    feed = [(gain + middle + k * k) / a0, 2 * (k * k - gain) / a0, (gain - middle + k * k) / a0]
    return [*feed, 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]


def _high_pass(rate_hz: int) -> list[float]:
    k, q = math.tan(math.pi * 38.13547087602444 / rate_hz), 0.5003270373238773
    a0 = 1 + k / q + k * k
    return [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]


def k_power_gain(hz: NDArray[np.float64], rate_hz: int) -> NDArray[np.float64]:
    """Power gain of the K-weighting at each of the frequencies `hz`."""
    delays = np.exp(-2j * np.pi * hz / rate_hz)[:, None] ** np.arange(3)
    sections = k_weighting(rate_hz)
    response = np.prod((delays @ sections[:, :3].T) / (delays @ sections[:, 3:].T), axis=1)
    gains: NDArray[np.float64] = np.square(np.abs(response))
    return gains


def block_edges(frames: int, rate_hz: int) -> NDArray[np.int64]:
    """First frame of each 10 ms block, and the end of the last whole one. Shape (blocks + 1,)."""
    count = frames * BLOCKS_PER_S // rate_hz
    return np.round(np.arange(count + 1) * (rate_hz / BLOCKS_PER_S)).astype(np.int64)


class BlockEnergyMeter:
    """Collects the K-weighted energies of 10 ms blocks from audio in pieces of any length."""

    def __init__(self, rate_hz: int, weights: NDArray[np.float64]) -> None:
        row = _row_frames(rate_hz)
        self._filter = RecursiveFilter(k_weighting(rate_hz), len(weights), row or _ROW_FRAMES)
        self._by_frame = row is None
        self._unit = row or 1
        self._width = rate_hz / BLOCKS_PER_S / self._unit
        """Of a 10 ms block, in what `_collect` gets: frames or rows."""
        self._weights = weights.astype(np.float32)
        self._rest = np.zeros(0)
        self._first = 0
        self._collected: list[BlockEnergies] = []

    def feed(self, block: Samples) -> None:
        read = self._filter.power if self._by_frame else self._filter.energies
        self._collect(read(block, self._weights))

    def _collect(self, energies: Samples) -> None:
        """`energies` of what a block is made of: frames, or rows that a block holds a whole number of."""
        joined = np.concatenate([self._rest, energies])
        first = round(self._first / self._width)
        index = np.arange(first, first + math.floor(joined.size / self._width) + 2)
        edges = np.round(index * self._width).astype(np.int64) - self._first
        edges = edges[: np.searchsorted(edges, joined.size, "right")]
        end = int(edges[-1])
        if end:
            self._collected.append(np.add.reduceat(joined[:end], edges[:-1]) / (np.diff(edges) * self._unit))
        self._rest = joined[end:].copy()
        self._first += end

    def block_energies(self) -> BlockEnergies:
        """Ends the recording. Shape (blocks,); a last, unfinished block is left out."""
        left = self._filter.held_frames
        if self._by_frame and left:
            padding = np.zeros((len(self._weights), self._filter.row - left), np.float32)
            self._collect(self._filter.power(padding, self._weights)[:left])
        return np.concatenate(self._collected) if self._collected else np.zeros(0)


def _row_frames(rate_hz: int) -> int | None:
    """Frames of the filter's rows so that a 10 ms block is a whole number of them; None where that makes poor rows."""
    frames, odd = divmod(rate_hz, BLOCKS_PER_S)
    whole = [row for row in range(16, 57) if frames % row == 0]
    return whole[-1] if whole and not odd else None


def _moving_mean(energies: BlockEnergies, width: int) -> BlockEnergies:
    if energies.size < width:
        return np.zeros(0)
    total = np.concatenate([[0.0], np.cumsum(energies)])
    means: BlockEnergies = np.maximum(total[width:] - total[:-width], 0.0) / width
    return means


def to_lufs(energy: float) -> float | None:
    """BS.1770-5 equation 2; None for no energy at all."""
    return _OFFSET_LUFS + 10 * math.log10(energy) if energy > 1e-14 else None


def to_energy(lufs: float) -> float:
    return float(10 ** ((lufs - _OFFSET_LUFS) / 10))


def integrated(energies: BlockEnergies) -> float | None:
    """Gated programme loudness in LUFS (BS.1770-5 equations 5-7); None if nothing passes the gate."""
    blocks = _moving_mean(energies, _MOMENTARY)[::_HOP]
    loud = blocks[blocks > to_energy(_ABSOLUTE_GATE_LUFS)]
    if not loud.size:
        return None
    return to_lufs(float(loud[loud > loud.mean() * 0.1].mean()))


def programme(energies: BlockEnergies) -> NDArray[np.bool_]:
    """Which tenths of a second pass both gates of the integrated loudness, each by its own energy. Shape (tenths,).

    The mean that the second gate follows leaves out the loudest twentieth: one click does not make all else a pause.
    """
    tenths = energies[: energies.size // _HOP * _HOP].reshape(-1, _HOP).mean(axis=1)
    loud = tenths > to_energy(_ABSOLUTE_GATE_LUFS)
    counted = np.sort(tenths[loud])[: loud.sum() - loud.sum() // 20]
    mean = counted.mean() if counted.size else 0.0
    passing: NDArray[np.bool_] = loud & (tenths > mean * 0.1)
    return passing


def momentary(energies: BlockEnergies) -> NDArray[np.float64]:
    """Momentary energies (400 ms), one every 10 ms; `to_lufs` makes them LUFS."""
    return _moving_mean(energies, _MOMENTARY)


def short_term(energies: BlockEnergies) -> NDArray[np.float64]:
    """Short-term energies (3 s), one every 10 ms."""
    return _moving_mean(energies, _SHORT_TERM)


def loudness_range(energies: BlockEnergies) -> float | None:
    """Loudness range in LU by EBU Tech 3342: 10th to 95th percentile of the gated short-term loudness."""
    windows = short_term(energies)[::_HOP]
    loud = windows[windows > to_energy(_ABSOLUTE_GATE_LUFS)]
    loud = loud[loud > loud.mean() * 0.01] if loud.size else loud
    if loud.size < 2:
        return None
    low, high = np.percentile(10 * np.log10(loud), [10, 95])
    return float(high - low)
