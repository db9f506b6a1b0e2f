"""A second opinion on a master, by meters that share no code with ours: pyloudnorm's loudness, soxr's true peak.

The only door to pyloudnorm. De Man's filter class: pyloudnorm's default reads 0.04 LU low. A fresh meter for each call:
a shared one misreads under threads. It gets a song in pieces of some seconds, because it holds what it gets three times
in float64: its blocks read the same once its filters have settled, and are gated here as BS.1770-5 says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from threading import Lock
from typing import Self

import numpy as np
import pyloudnorm
import soxr
from numpy.typing import NDArray

from mastering.dsp.stream import Blocks, Samples
from mastering.dsp.threads import cores

FACTOR = 16
_PIECE_FRAMES = 1 << 20
"""Of a piece for pyloudnorm, about: in whole seconds."""
_SETTLING_S = 1
"""Before each piece: a sixth of it, and what the filters at 38 Hz still know of earlier is below float64's last bit."""
_STEPS_PER_S = 10
"""Gating blocks begin every 100 ms."""
_BLOCK_STEPS = 4
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = -10.0
_OFFSET_LUFS = -0.691

_COARSE_FACTOR = 4
_UNDER_READ = 10 ** (-0.7 / 20)
"""How much lower than the peak a reading at 4 x can be (BS.1770-5 annex 2: 0.688 dB)."""
_WINDOW_FRAMES = 512
"""Read at 16 x together, where the reading at 4 x comes near to the highest peak."""
_CONTEXT_FRAMES = 256
"""On either side of what is read: more than soxr's filters reach."""

_WINDOWS_AT_ONCE = 64

_MOST_WAITING = 2
"""Blocks that wait for a meter, so that memory stays bounded."""
_pyloudnorm = Lock()
"""pyloudnorm silences the whole process's warnings while it measures, and restores what it found: one at a time."""

Frames = NDArray[np.float32]
"""(…, frames, channels), C-contiguous."""


class SecondMeter:
    """Takes a recording block by block. Each of its meters has a thread of its own, if there is more than one core."""

    def __init__(self, rate_hz: int, channels: int) -> None:
        self._loudness = _Loudness(rate_hz, channels)
        self._true_peak = _TruePeak(rate_hz, channels)
        self._threads = ExitStack()
        self._readers: tuple[Callable[[Samples], None], ...] = (self._loudness.feed, self._true_peak.feed)
        if cores() > 1:
            self._readers = tuple(_Beside(self._threads, reader).feed for reader in self._readers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.close()

    def feed(self, block: Samples) -> None:
        """Takes the next block, which must not change any more."""
        for reader in self._readers:
            reader(block)

    def readings(self) -> tuple[float | None, float]:
        """Ends the recording: integrated loudness in LUFS (None for silence), true peak (linear)."""
        self._threads.close()
        return self._loudness.integrated_lufs(), self._true_peak.highest()


def as_heard(blocks: Blocks, rate_hz: int, channels: int) -> Blocks:
    """A recording at its own rate without what soxr leaves out when it interpolates: the highest twentieth of its band.

    The peaks of what reaches up there, as noise and clicks do, are others with it than without.
    """
    stream = soxr.ResampleStream(rate_hz, rate_hz * FACTOR, channels, dtype="float32", quality="VHQ")
    left_out = 0
    for block in chain(blocks, (np.zeros((channels, 0), np.float32),)):
        finer = stream.resample_chunk(np.ascontiguousarray(block.T), last=not block.size)
        if len(finer) > left_out:
            yield np.ascontiguousarray(finer[left_out::FACTOR].T)
        left_out = (left_out - len(finer)) % FACTOR


class _Beside:
    """Calls a reader in a thread of its own, block by block; what it raises, the next call or the end raises."""

    def __init__(self, threads: ExitStack, reader: Callable[[Samples], None]) -> None:
        self._reader = reader
        self._waiting: deque[Future[None]] = deque()
        self._pool = threads.enter_context(ThreadPoolExecutor(1))
        threads.push(self._end)

    def feed(self, block: Samples) -> None:
        while len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._reader, block))

    def _end(self, *error: object) -> None:
        while self._waiting:
            self._waiting.popleft().result()


class _Loudness:
    """pyloudnorm on one piece of whole seconds after the other."""

    def __init__(self, rate_hz: int, channels: int) -> None:
        self._rate_hz = rate_hz
        self._piece_s = max(1, _PIECE_FRAMES // rate_hz)
        self._settling_s = 0
        self._held = np.empty((self._frames(self._blocks_wanted(_SETTLING_S)), channels))
        self._filled = 0
        self._energies: list[NDArray[np.float64]] = []

    def feed(self, block: Samples) -> None:
        taken = 0
        while taken < block.shape[1]:
            wanted = self._frames(self._blocks_wanted(self._settling_s))
            part = block[:, taken : taken + wanted - self._filled]
            for number, channel in enumerate(part):
                self._held[self._filled : self._filled + channel.size, number] = channel
            self._filled += part.shape[1]
            taken += part.shape[1]
            if self._filled == wanted:
                self._measure(self._blocks_wanted(self._settling_s))
                self._keep((self._settling_s + self._piece_s - _SETTLING_S) * self._rate_hz)

    def integrated_lufs(self) -> float | None:
        """The gated loudness of all blocks; None where nothing passes the gates."""
        self._measure(self._filled * _STEPS_PER_S // self._rate_hz - _BLOCK_STEPS + 1)
        energies = np.concatenate([np.zeros(0), *self._energies])
        loud = energies[energies >= 10 ** ((_ABSOLUTE_GATE_LUFS - _OFFSET_LUFS) / 10)]
        if not loud.size:
            return None
        loud = loud[loud > loud.mean() * 10 ** (_RELATIVE_GATE_LU / 10)]
        return float(10 * np.log10(loud.mean()) + _OFFSET_LUFS)

    def _blocks_wanted(self, settling_s: int) -> int:
        return (settling_s + self._piece_s) * _STEPS_PER_S

    def _frames(self, blocks: int) -> int:
        """In which so many gating blocks fit."""
        return -(-(blocks + _BLOCK_STEPS - 1) * self._rate_hz // _STEPS_PER_S)

    def _measure(self, blocks: int) -> None:
        """Read the first blocks of what is held, but for those that the piece before has read."""
        known = self._settling_s * _STEPS_PER_S
        if blocks <= known:
            return
        meter = pyloudnorm.Meter(self._rate_hz, filter_class="DeMan")
        with _pyloudnorm:
            meter.integrated_loudness(self._held[: self._frames(blocks)])
        self._energies.append(10 ** ((np.array(meter.blockwise_loudness[known:blocks]) - _OFFSET_LUFS) / 10))

    def _keep(self, first: int) -> None:
        """Drop what is held before frame `first`, from which on the filters settle for the next piece."""
        self._filled -= first
        self._held[: self._filled] = self._held[first : first + self._filled]
        self._settling_s = _SETTLING_S


class _TruePeak:
    """soxr at 16 x, in the windows in which a reading at 4 x comes so near to the highest that it may be there."""

    def __init__(self, rate_hz: int, channels: int) -> None:
        self._rate_hz = rate_hz
        self._held: Frames = np.zeros((_CONTEXT_FRAMES, channels), np.float32)
        self._highest = 0.0

    def feed(self, block: Samples) -> None:
        held = len(self._held)
        piece = np.empty((held + block.shape[1], len(block)), np.float32)
        piece[:held] = self._held
        for number, channel in enumerate(block):
            piece[held:, number] = channel
        self._held = self._read(piece).copy()

    def highest(self) -> float:
        """The true peak, or the highest sample where that is higher: a resampler rounds a click's top off."""
        padding = -(len(self._held) - _CONTEXT_FRAMES) % _WINDOW_FRAMES + _CONTEXT_FRAMES
        self._held = self._read(np.pad(self._held, ((0, padding), (0, 0))))
        return self._highest

    def _read(self, piece: Frames) -> Frames:
        """Read the windows that have their context in `piece`, which begins with that of the first. What is left."""
        count = max(0, len(piece) - 2 * _CONTEXT_FRAMES) // _WINDOW_FRAMES
        if not count:
            return piece
        inner = count * _WINDOW_FRAMES
        self._highest = max(self._highest, _highest(piece[_CONTEXT_FRAMES : _CONTEXT_FRAMES + inner]))
        coarse = self._between(piece[None, : inner + 2 * _CONTEXT_FRAMES], _COARSE_FACTOR, "HQ").reshape(count, -1)
        peaks = np.maximum(coarse.max(axis=1), -coarse.min(axis=1))
        near = np.flatnonzero(peaks >= max(self._highest, float(peaks.max())) * _UNDER_READ)
        reach = _WINDOW_FRAMES + 2 * _CONTEXT_FRAMES
        for start in range(0, near.size, _WINDOWS_AT_ONCE):
            firsts = near[start : start + _WINDOWS_AT_ONCE] * _WINDOW_FRAMES
            windows = np.stack([piece[first : first + reach] for first in firsts])
            self._highest = max(self._highest, _highest(self._between(windows, FACTOR, "VHQ")))
        return piece[inner:]

    def _between(self, windows: Frames, factor: int, quality: str) -> Frames:
        """Windows (windows, frames, channels) at `factor` times the rate, without their contexts."""
        count, frames, channels = windows.shape
        finer = soxr.resample(windows.reshape(-1, channels), self._rate_hz, self._rate_hz * factor, quality)
        margin = _CONTEXT_FRAMES * factor
        between: Frames = finer.reshape(count, frames * factor, channels)[:, margin:-margin]
        return between


def _highest(samples: Frames) -> float:
    return max(float(samples.max()), -float(samples.min()))
