"""Samples + Plan → samples. Deterministic: the same decoded PCM, plan and engine version give the same master.

The order is told in `shape` and `limited`: what shapes the sound, then the gain and the limiter. Loudness is solved
on cached block peaks and cell energies, without touching audio again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mastering.contract import Fault, FaultCode, Plan, PlanStep
from mastering.dsp import limiter, loudness
from mastering.dsp.dynamics import BandCompressor
from mastering.dsp.limiter import Curve, Limiter
from mastering.dsp.saturation import saturated
from mastering.dsp.stream import Audio, Blocks, reblock
from mastering.dsp.threads import ahead, feed_all
from mastering.dsp.tone import crossovers, filtered_sides, left_right, response, transform_length
from mastering.dsp.true_peak import HALF_TAPS, PeakMeter, Peaks, block_length
from mastering.engine.plan import compressor_of, curve_of, number

Tick = Callable[[int], None]

_GUARD_DB = 1.2
_GUARD_ROUNDS = 8
_GUARD_FACTOR = 16
_HEADROOM = 10 ** (-0.004 / 20)
"""Kept free below the ceiling for dither, rounding and the meter's own grid."""
_HIGHEST_GAIN_DB = 60.0
_RELEASES = ((120.0, 12.0), (250.0, 6.0), (500.0, 3.0), (1000.0, 0.0))
"""Pace in dB/s and hold in ms, from the gentlest on."""
_MOST_DRIVE_DB = 2.0
"""Gain that the limiter may take back on average before a faster release is the lesser evil."""


@dataclass(frozen=True)
class ShapedSong:
    """A song shaped as planned, before its gain: with all that the solver needs to know of it.

    `peaks` hold for gains that bring none below `above` near the ceiling.
    """

    audio: Audio
    peaks: Peaks
    cells: loudness.Energies
    above: float = 0.0

    def peak_to_loudness_lu(self) -> float:
        found = loudness.integrated(self.cells)
        return 20 * math.log10(max(float(self.peaks.max()), 1e-10)) - (found if found is not None else -200.0)


def shape(
    source: Audio, plan: Plan, *, tick: Tick, cells: loudness.Energies | None = None, above: float = 0.0
) -> ShapedSong:
    """Run everything before the gain, and read what the solver needs. A source that is kept in memory is overwritten.

    `cells` are the source's own, if they are known: they hold for a plan that shapes nothing. Peaks well below `above`
    are read from the samples alone.
    """
    shaped = source.map(lambda blocks: _shaped(blocks, source, plan))
    same = not any(plan.step(name) for name in ("tone", "compressor", "saturation"))
    loud = loudness.BlockEnergyMeter(source.rate_hz, np.ones(source.channels))
    peaks = PeakMeter(source.rate_hz, above=above)
    filled = 0
    meters = (peaks,) if same and cells is not None else (loud, peaks)
    blocks = source.read() if same else ahead(shaped.read())
    for block in feed_all(blocks, meters, beside=0 if same else 1):
        if source.samples is not None and not same:
            source.samples[:, filled : filled + block.shape[1]] = block
        filled += block.shape[1]
        tick(block.shape[1])
    audio = source if same or source.samples is not None else shaped
    return ShapedSong(audio, peaks.peaks(), cells if same and cells is not None else loud.cells(), above)


def _shaped(blocks: Blocks, source: Audio, plan: Plan) -> Blocks:
    """Clean-up, tone and width, then dynamics, then saturation."""
    tone, compressor, saturation = (plan.step(name) for name in ("tone", "compressor", "saturation"))
    if tone or compressor:
        blocks = reblock(_toned_sides(blocks, source.rate_hz, tone, compressor))
    if saturation:
        drive, peak = number(saturation, "drive"), number(saturation, "peak")
        blocks = saturated(blocks, source.rate_hz, source.channels, source.frames, drive=drive, peak=peak)
    return blocks


def _toned_sides(blocks: Blocks, rate_hz: int, tone: PlanStep | None, compressor: PlanStep | None) -> Blocks:
    gains = response(curve_of(tone), rate_hz) if tone else np.ones((2, transform_length(rate_hz) // 2 + 1), np.float32)
    if compressor is None:
        for (sides,) in filtered_sides(blocks, gains[None]):
            yield left_right(sides)
        return
    settings = compressor_of(compressor)
    squeeze = BandCompressor(settings, rate_hz)
    splits = crossovers(settings.low_hz, settings.high_hz, rate_hz)
    for bands in filtered_sides(blocks, splits[:, None, :] * gains):
        yield left_right(squeeze.feed(bands))


def solve(song: ShapedSong, limits: Limiter, wished_lufs: float) -> tuple[float, float]:
    """(gain in dB, loudness in LUFS) so that the song meets `wished_lufs` after the limiter, or comes nearest.

    Loudness rises with gain, ever more slowly: bisection between no help from the limiter and the highest gain.
    """
    edges = loudness.block_edges(song.audio.frames, song.audio.rate_hz)
    length = block_length(song.audio.rate_hz)

    def reached(gain_db: float) -> float:
        curve = limits.curve(song.peaks, 10 ** (gain_db / 20), song.audio.rate_hz)
        found = loudness.integrated(song.cells * limiter.mean_square(curve, edges, length))
        return -200.0 if found is None else found

    start = loudness.integrated(song.cells)
    if start is None:
        raise Fault(FaultCode.SILENT, "The audio is too quiet to have a loudness (nothing above −70 LUFS).")
    return _root(reached, wished_lufs, wished_lufs - start)


def with_finer_peaks(song: ShapedSong, above: float, tick: Tick) -> ShapedSong:
    """The same song, its peaks read between the samples down to `above`."""
    peaks = PeakMeter(song.audio.rate_hz, above=above)
    for block in song.audio.read():
        peaks.feed(block)
        tick(block.shape[1])
    return replace(song, peaks=peaks.peaks(), above=above)


def solve_with_release(song: ShapedSong, ceiling_dbtp: float, wished_lufs: float) -> tuple[Limiter, float, float]:
    """The slowest release that reaches the loudness without driving the limiter far: slow distorts the bass least."""
    start = loudness.integrated(song.cells) or 0.0
    for release, hold in _RELEASES:
        limits = Limiter(ceiling_dbtp, release_db_per_s=release, hold_ms=hold)
        gain_db, reached = solve(song, limits, wished_lufs)
        if wished_lufs - reached < 0.01 and gain_db - (wished_lufs - start) < _MOST_DRIVE_DB:
            break
    return limits, gain_db, reached


def _root(reached: Callable[[float], float], wished: float, low: float) -> tuple[float, float]:
    gain, got = low, reached(low)
    step = 1.0
    for _ in range(40):
        miss = wished - got
        if abs(miss) < 0.002 or (miss > 0 and gain >= _HIGHEST_GAIN_DB):
            break
        trial = min(gain + miss * step, gain + 12.0, _HIGHEST_GAIN_DB)
        now = reached(trial)
        slope = (now - got) / (trial - gain) if trial != gain else 1.0
        if slope < 0.01:
            break
        step = min(1 / slope, 12.0)
        gain, got = trial, now
    return round(gain, 4), got


def guarded_curve(song: ShapedSong, limits: Limiter, gain_db: float, *, tick: Tick) -> Curve:
    """The limiter's curve, tightened until the wave read at 16 x stays below the ceiling.

    Only blocks near the ceiling by the 4 x reading are read again: 4 x can miss 0.7 dB, and more at the band's top.
    """
    ceiling = 10 ** (limits.ceiling_dbtp / 20) * _HEADROOM
    rate_hz, gain = song.audio.rate_hz, 10 ** (gain_db / 20)
    peaks = song.peaks.copy()
    inner = replace(limits, ceiling_dbtp=limits.ceiling_dbtp - 0.004)
    curve = inner.curve(peaks, gain, rate_hz)
    near = _highest(curve) * peaks > ceiling * 10 ** (-_GUARD_DB / 20)
    for _ in range(_GUARD_ROUNDS):
        found = _read_again(song.audio, curve, near, tick)
        over = np.flatnonzero(found > ceiling)
        if not over.size:
            return curve
        peaks[over] = np.maximum(peaks[over], ceiling / _lowest(curve)[over]) * (found[over] / ceiling) * 1.0002
        before, curve = curve, inner.curve(peaks, gain, rate_hz)
        changed = np.flatnonzero(np.abs(curve - before) > 0)
        near = np.zeros_like(near)
        for shift in (-1, 0, 1):
            near[np.clip(changed + shift, 0, near.size - 1)] = True
        near &= _highest(curve) * peaks > ceiling * 10 ** (-_GUARD_DB / 20)
    raise Fault(FaultCode.BAD_MASTER, "The limiter could not hold the ceiling. Choose a lower loudness.")


def _highest(curve: Curve) -> Curve:
    return np.maximum(curve[:-1], curve[1:])


def _lowest(curve: Curve) -> Curve:
    return np.minimum(curve[:-1], curve[1:])


def _read_again(audio: Audio, curve: Curve, near: NDArray[np.bool_], tick: Tick) -> Peaks:
    length = block_length(audio.rate_hz)
    gain = partial(limiter.gain_around, curve, length=length, reach=HALF_TAPS[_GUARD_FACTOR])
    meter = PeakMeter(audio.rate_hz, factor=_GUARD_FACTOR, only=near, gain=gain)
    for block in audio.read():
        meter.feed(block)
        tick(block.shape[1])
    return meter.peaks()


def limited(audio: Audio, curve: Curve) -> Audio:
    """The song times the limiter's gain."""
    length = block_length(audio.rate_hz)

    def change(blocks: Blocks) -> Blocks:
        node = 0
        for block in blocks:
            yield limiter.apply(block, curve, node, length)
            node += block.shape[1] // length

    return audio.map(change)
