"""An excerpt of a song, where it is nearest to its ceiling: it shows a lossy coder's overshoot in a part of the time.

The excerpt is a song itself: limited, encoded and decoded as the whole will be.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mastering.audio import decode, encode
from mastering.contract import OutputFormat
from mastering.dsp.limiter import Curve
from mastering.dsp.stream import Audio, Samples, reblock, stored
from mastering.dsp.true_peak import HighestPeakMeter, block_length
from mastering.engine.analyse import decibels
from mastering.engine.progress import Tick
from mastering.engine.render import ShapedSong

_NEAR_DB = 1.0
"""Below the ceiling: what a coder changes there may pass it."""
_WINDOW_S = 0.5
_SHARE = 1 / 12
"""Of the song, at most; a shorter excerpt misses too much of what the whole has."""
_LEAST_S, _MOST_S = 5.0, 12.0
_CONTEXT_S = 0.1
"""Around each stretch, for the coder: more than two of its packets."""
_FADE_S = 0.01
"""At both ends of each stretch, so that none begins with a click."""


def excerpt(song: ShapedSong, curve: Curve, ceiling_dbtp: float) -> ShapedSong | None:
    """The windows with most blocks near the ceiling, one after the other. None where it would not be worth while.

    `curve` is the limiter's over the whole song.
    """
    rate_hz = song.audio.rate_hz
    length = block_length(rate_hz)
    near = np.maximum(curve[:-1], curve[1:]) * song.peaks > 10 ** ((ceiling_dbtp - _NEAR_DB) / 20)
    window = round(_WINDOW_S * rate_hz / length)
    counts = np.add.reduceat(near, np.arange(0, near.size, window), dtype=np.intp)
    most = round(min(_MOST_S, max(_LEAST_S, _SHARE * song.audio.frames / rate_hz)) / _WINDOW_S)
    if 2 * most > counts.size:
        return None
    fullest = np.argsort(-counts, kind="stable")[:most]
    context = math.ceil(_CONTEXT_S * rate_hz / length)
    wanted = np.zeros(near.size, bool)
    for start in fullest[counts[fullest] > 0] * window:
        wanted[max(0, start - context) : start + window + context] = True
    if not wanted.any():
        return None
    edges = np.flatnonzero(np.diff(wanted, prepend=False, append=False)).reshape(-1, 2)
    samples = _cut(song.audio, [(int(start) * length, int(end) * length) for start, end in edges])
    return replace(song, audio=stored(samples, rate_hz), peaks=song.peaks[wanted])


def _cut(audio: Audio, stretches: Sequence[tuple[int, int]]) -> Samples:
    """Those stretches, (first frame, frame after the last), joined, each with a fade at both ends."""
    parts: list[list[Samples]] = [[] for _ in stretches]
    at = 0
    for block in audio.read():
        for part, (start, end) in zip(parts, stretches, strict=True):
            if start < at + block.shape[1] and end > at:
                part.append(block[:, max(0, start - at) : end - at].copy())
        at += block.shape[1]
    return np.concatenate([_faded(np.concatenate(part, axis=1), audio.rate_hz) for part in parts], axis=1)


def _faded(samples: Samples, rate_hz: int) -> Samples:
    ramp = np.linspace(0, 1, min(round(_FADE_S * rate_hz), samples.shape[1]), dtype=np.float32)
    samples[:, : ramp.size] *= ramp
    samples[:, samples.shape[1] - ramp.size :] *= ramp[::-1]
    return samples


def highest_dbtp(audio: Audio, kind: OutputFormat, seed: int, tick: Tick) -> float:
    """The true peak at 16 x of what the format's coder makes of it."""
    target = io.BytesIO()
    encode.encode(audio, kind, target, seed=seed, tick=tick)
    recording = decode.open_recording(target)
    meter = HighestPeakMeter(recording.rate_hz, 16)
    for block in reblock(recording.decode()):
        meter.feed(block)
        tick(block.shape[1])
    return decibels(meter.highest())
