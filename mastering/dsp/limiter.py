"""A look-ahead true-peak limiter whose gain is worked out from block peaks alone.

The gain is known at the block borders ("nodes") and straight between them, one curve for all channels. From the peaks
each block's need follows (ceiling / peak); it is held over the look-ahead, falls back at a fixed pace in dB, and is
smoothed by two moving averages that together are no longer than the hold, so that the smooth curve never lies above
any block's need. The release has two stages: of a reduction that lasts no longer than `event_ms`, a click's, all but
the last `event_rest_db` is given back at a much faster pace. Because audio is not touched, the curve for another gain
costs milliseconds: the loudness solver tries as many gains as it likes.

All arithmetic is float64 and in one order: only +, −, ×, ÷, maxima and scipy's own exponentials, which do not change
with the CPU's features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from mastering.dsp.stream import Samples
from mastering.dsp.true_peak import Peaks, block_length

_DB_PER_NEPER = 8.685889638065037
_BRIDGED_MS = 25.0
"""Gaps of a need that are shorter lie between two crests of one bass tone (from 20 Hz on): it lasts all the while."""

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Limiter:
    """Ceiling in dBTP, times in ms, pace of the release in dB per second."""

    ceiling_dbtp: float
    lookahead_ms: float = 1.0
    release_db_per_s: float = 120.0
    hold_ms: float = 12.0
    """How long the gain stays down before it recovers: longer than half a period, and a bass tone keeps its shape."""
    event_ms: float = 60.0
    """A reduction that is over sooner than this is a single event's: longer than a stroke, shorter than a note."""
    event_release_db_per_s: float = 2000.0
    event_rest_db: float = 6.0
    """What an event leaves to the slow release: as deep as a healthy master is limited."""

    def curve(self, peaks: Peaks, gain: float, rate_hz: int) -> Curve:
        """Linear gain at the nodes, `gain` included. Shape (blocks + 1,). `peaks` are those before the gain."""
        need = _need_db(peaks * (gain / 10 ** (self.ceiling_dbtp / 20)))
        length = block_length(rate_hz)
        reach = max(1, round(self.lookahead_ms * 1e-3 * rate_hz / length))
        half_hold = round(self.hold_ms * 0.5e-3 * rate_hz / length)
        pace_db = self.release_db_per_s * length / rate_hz
        bridged, event = (round(ms * 1e-3 * rate_hz / length) for ms in (_BRIDGED_MS, self.event_ms))
        fall = max(bridged, math.ceil(float(need.max(initial=0.0)) / pace_db))
        touched = _around(need > 0, 3 * reach + half_hold + 1, 3 * reach + 2 * half_hold + fall + 1)
        curve = np.full(need.size + 1, gain)
        if touched.size:
            held = _stay(_hold(need[touched], reach), half_hold)
            nodes = np.append(touched, touched[-1] + 1)
            falling = _release(np.minimum(held, _lasting(held, bridged, event) + self.event_rest_db), nodes * pace_db)
            np.maximum(falling, _release(held, nodes * (self.event_release_db_per_s * length / rate_hz)), out=falling)
            lowered = gain * special.exp10(_smooth(_smooth(falling, reach), reach) * (-1 / 20))
            curve[touched], curve[touched + 1] = lowered[:-1], lowered[1:]
        return curve


def _around(marked: NDArray[np.bool_], before: int, after: int) -> NDArray[np.intp]:
    """Numbers of the blocks that are marked or have a marked one so many blocks after or before them.

    Beyond them a curve is level: it is worked out for these alone, one stretch after the other as if nothing lay
    between.
    """
    near = np.zeros(marked.size + before + after + 1, np.int32)
    first = np.flatnonzero(marked)
    near[first] = 1
    near[first + before + after + 1] -= 1
    return np.flatnonzero(np.cumsum(near)[before : before + marked.size])


def _need_db(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decibels over one; none for what is less."""
    decibels = np.zeros(ratio.size)
    over = np.flatnonzero(ratio > 1.0)
    decibels[over] = special.log1p(ratio[over] - 1.0) * _DB_PER_NEPER
    return decibels


def _hold(need: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Need at the nodes, kept up over `reach` blocks before and after."""
    held = np.zeros(need.size + 1)
    for shift in range(-reach, reach + 2):
        first, end = max(0, shift), min(held.size, need.size + shift)
        np.maximum(held[first:end], need[first - shift : end - shift], out=held[first:end])
    return held


def _stay(held: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    """The highest need of the last 2 x `half` nodes."""
    if not half or held.size <= half:
        return held
    centred: NDArray[np.float64] = ndimage.maximum_filter1d(held, 2 * half + 1, mode="nearest")
    stayed: NDArray[np.float64] = np.maximum(held, np.concatenate([held[:half], centred[:-half]]))
    return stayed


def _lasting(held: NDArray[np.float64], bridged: int, event: int) -> NDArray[np.float64]:
    """Of the held need what lasts longer than `event` nodes: closed over gaps of `bridged` nodes, then opened."""
    wide: NDArray[np.float64] = ndimage.maximum_filter1d(held, 2 * (bridged // 2) + 1, mode="nearest")
    closed: NDArray[np.float64] = ndimage.minimum_filter1d(wide, 2 * (bridged // 2) + 1, mode="nearest")
    narrow: NDArray[np.float64] = ndimage.minimum_filter1d(closed, 2 * (event // 2) + 1, mode="constant")
    opened: NDArray[np.float64] = ndimage.maximum_filter1d(narrow, 2 * (event // 2) + 1, mode="constant")
    return opened


def _release(held: NDArray[np.float64], slope_db: NDArray[np.float64]) -> NDArray[np.float64]:
    """The held curve, but never falling faster than `slope_db` rises: max over the past of held − pace × distance."""
    falling = held + slope_db
    np.maximum.accumulate(falling, out=falling)
    falling -= slope_db
    return falling


def _smooth(curve: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Mean over `reach` + 1 nodes (odd, centred); two of these stay inside what `_hold` covers."""
    width = reach + 1 - reach % 2
    smooth: NDArray[np.float64] = ndimage.correlate1d(curve, np.full(width, 1.0 / width), mode="nearest")
    return smooth


def apply(block: Samples, curve: Curve, first: int, length: int) -> Samples:
    """The block times the gain curve. `first` is the block's first node."""
    count = -(-block.shape[1] // length)
    nodes = curve[first : first + count + 1].astype(np.float32)
    if (nodes == nodes[0]).all():
        steady: Samples = block * nodes[0]
        return steady
    gain = np.repeat(nodes[1:] - nodes[:-1], length)
    gain *= _ramp(count, length)
    gain += np.repeat(nodes[:-1], length)
    gained: Samples = block * gain[: block.shape[1]]
    return gained


def gain_around(curve: Curve, blocks: NDArray[np.intp], length: int, reach: int) -> Samples:
    """The gain that `apply` gives each of these peak blocks and `reach` frames on either side of it, bit for bit.

    Shape (blocks, length + 2 reach).
    """
    beside = -(-reach // length)
    index = blocks[:, None] + np.arange(-beside, beside + 2)
    nodes = curve[np.clip(index, 0, curve.size - 1)].astype(np.float32)
    gain = (nodes[:, 1:] - nodes[:, :-1])[:, :, None] * _ramp(1, length)
    gain += nodes[:, :-1, None]
    first = beside * length - reach
    around: Samples = gain.reshape(len(blocks), -1)[:, first : first + length + 2 * reach]
    return around


@lru_cache(maxsize=4)
def _ramp(count: int, length: int) -> NDArray[np.float32]:
    """How far each frame lies between its two nodes."""
    ramp: NDArray[np.float32] = np.tile((np.arange(length) / length).astype(np.float32), count)
    return ramp


def mean_square(curve: Curve, edges: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    """Mean of the squared gain between two edges each; `edges` are frame numbers (spans + 1,)."""
    a, b = curve[:-1], curve[1:]
    mean = (a * a + a * b + b * b) / 3
    total = np.concatenate([[0.0], np.cumsum(mean)])
    block, frame = np.divmod(edges, length)
    at_edges = total[block] * length + mean[np.minimum(block, mean.size - 1)] * frame
    means: NDArray[np.float64] = np.diff(at_edges) / np.diff(edges)
    return means
