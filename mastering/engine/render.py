"""Samples + Plan → samples. Deterministic: the same decoded PCM, plan and engine version give the same master.

The steps are taken in the order of `contract.CHAIN`: `shape` takes those before the gain, `limited` the gain and the
limiter. Between them the gain is solved for, on cached block peaks and block energies, without touching audio again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mastering.contract import CompressorStep, Fault, FaultCode, Plan, ToneStep
from mastering.dsp import limiter, loudness
from mastering.dsp.board import through
from mastering.dsp.dynamics import BandCompressor
from mastering.dsp.limiter import Curve, Limiter
from mastering.dsp.saturation import saturated
from mastering.dsp.stream import Audio, Blocks, reblock
from mastering.dsp.threads import ahead, feed_all
from mastering.dsp.tone import crossovers, filtered_sides, left_right, response, transform_length
from mastering.dsp.true_peak import HALF_TAPS, PeakMeter, Peaks, block_length
from mastering.engine.bounds import BOUNDS, Bounds, Programme
from mastering.engine.progress import Tick
from mastering.engine.steps import compressor_settings, processors, tone_curve

_GUARD_DB = 1.2
"""Blocks whose peak by the 4 x reading comes this near to the ceiling are read again at 16 x."""
_GUARD_ROUNDS = 8
_GUARD_REACH = 4
"""Blocks on either side whose gain the reading of a block at 16 x depends on."""
_GUARD_FACTOR = 16
_HEADROOM = 10 ** (-0.004 / 20)
"""Kept free below the ceiling for dither, rounding and the meter's own grid."""
_HIGHEST_GAIN_DB = 60.0
_RELEASES = ((120.0, 12.0), (250.0, 6.0), (500.0, 3.0), (1000.0, 0.0))
"""Release in dB/s and hold in ms, from the gentlest on."""
_MOST_DRIVE_DB = 2.0
"""Gain that the limiter may take back on average before a faster release is the lesser evil."""
_LEAST_OFFSET = 0.0002
_RAMP_S = 0.1
_MISS_LU = 0.002
_SCAN_DB = 2.0
_BISECTIONS = 10


@dataclass(frozen=True)
class ShapedSong:
    """A song after every step before the gain, with what the loudness solver needs to know of it."""

    audio: Audio
    peaks: Peaks
    """True peak (linear) of each peak block; of those below `peak_floor` only the samples were read."""
    block_energies: loudness.BlockEnergies
    peak_floor: float = 0.0
    """`peaks` hold for gains that bring nothing lower than this near the ceiling."""
    block_sums: NDArray[np.float32] | None = None
    """Sums of the samples of each peak block (channels, blocks); None for a song that is not kept in memory."""
    source_peak_to_loudness_lu: float = -200.0
    """Of the song as it came in."""

    @cached_property
    def programme(self) -> Programme:
        """What the bounds concern."""
        return Programme.of(self.block_energies, self.peaks, self.audio.rate_hz)

    def peak_to_loudness_lu(self) -> float:
        found = loudness.integrated(self.block_energies)
        return 20 * math.log10(max(float(self.peaks.max()), 1e-10)) - (found if found is not None else -200.0)


def shape(
    source: Audio,
    plan: Plan,
    *,
    tick: Tick,
    block_energies: loudness.BlockEnergies | None = None,
    peak_floor: float = 0.0,
) -> ShapedSong:
    """Run every step before the gain, and read what the solver needs. A source that is kept in memory is overwritten.

    `block_energies` are the source's own, if they are known: they hold for a plan that shapes nothing. Peaks well below
    `peak_floor` are read from the samples alone.
    """
    shaped = source.map(lambda blocks: _shaped(blocks, source, plan))
    same = not plan.shapes_sound
    energies = loudness.BlockEnergyMeter(source.rate_hz, np.ones(source.channels))
    peaks = PeakMeter(source.rate_hz, above=peak_floor)
    filled, sums = 0, []
    length = block_length(source.rate_hz)
    known = block_energies if same else None
    meters = (energies, peaks) if known is None else (peaks,)
    blocks = source.read() if same else ahead(shaped.read())
    for block in feed_all(blocks, meters, beside=0 if same else 1):
        if source.samples is not None and not same:
            source.samples[:, filled : filled + block.shape[1]] = block
        if source.samples is not None:
            sums.append(_block_sums(block, length))
        filled += block.shape[1]
        tick(block.shape[1])
    return ShapedSong(
        audio=source if same or source.samples is not None else shaped,
        peaks=peaks.peaks(),
        block_energies=energies.block_energies() if known is None else known,
        peak_floor=peak_floor,
        block_sums=np.concatenate(sums, axis=1) if sums else None,
    )


def _block_sums(block: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    padded = np.pad(block, ((0, 0), (0, -block.shape[1] % length)))
    sums: NDArray[np.float32] = padded.reshape(len(block), -1, length) @ np.ones(length, np.float32)
    return sums


def _shaped(blocks: Blocks, source: Audio, plan: Plan) -> Blocks:
    """The board, then the tone, then dynamics, then saturation; tone and the compressor's bands are one filter."""
    if plan.board:
        blocks = through(blocks, processors(plan.board), source.rate_hz, source.channels)
    if plan.tone or plan.compressor:
        blocks = reblock(_tone_and_compression(blocks, source.rate_hz, plan.tone, plan.compressor))
    if plan.saturation:
        drive, peak = plan.saturation.parameters.drive, plan.saturation.parameters.peak
        blocks = saturated(blocks, source.rate_hz, source.channels, source.frames, drive=drive, peak=peak)
    return blocks


def _tone_and_compression(
    blocks: Blocks, rate_hz: int, tone: ToneStep | None, compressor: CompressorStep | None
) -> Blocks:
    """Through the tone curve, and through the compressor where the plan has one."""
    curve = tone_curve(tone)
    gains = response(curve, rate_hz) if curve else np.ones((2, transform_length(rate_hz) // 2 + 1), np.float32)
    if compressor is None:
        for (sides,) in filtered_sides(blocks, gains[None]):
            yield left_right(sides)
        return
    settings = compressor_settings(compressor)
    band_compressor = BandCompressor(settings, rate_hz)
    splits = crossovers(settings.low_hz, settings.high_hz, rate_hz)
    for bands in filtered_sides(blocks, splits[:, None, :] * gains):
        yield left_right(band_compressor.feed(bands))


@dataclass(frozen=True)
class Solved:
    """What the loudness solver found."""

    limiter: Limiter
    gain_db: float
    """Before the limiter."""
    reached_lufs: float
    reduction_db: float
    """What the limiter takes of the programme but its highest twentieth: here, or where the bound on it forbade more
    gain, what it would have taken for the loudness asked for."""
    held_by: Literal["", "reduction", "noise"] = ""
    """The bound that the loudness asked for would break."""


def solve(song: ShapedSong, settings: Limiter, aim_lufs: float, bounds: Bounds) -> Solved:
    """The gain so that the song meets `aim_lufs` after the limiter, or comes nearest within the bounds."""
    edges = loudness.block_edges(song.audio.frames, song.audio.rate_hz)
    length = block_length(song.audio.rate_hz)

    def curve(gain_db: float) -> Curve:
        return settings.curve(song.peaks, 10 ** (gain_db / 20), song.audio.rate_hz)

    def reached(gain_db: float) -> float:
        found = loudness.integrated(song.block_energies * limiter.mean_square(curve(gain_db), edges, length))
        return -200.0 if found is None else found

    def reduction_db(gain_db: float) -> float:
        return song.programme.reduction_db(curve(gain_db), gain_db)

    start = loudness.integrated(song.block_energies)
    if start is None:
        raise Fault(FaultCode.SILENT, "The audio is too quiet to have a loudness (nothing above −70 LUFS).")
    gain_db, got = _root(reached, aim_lufs, aim_lufs - start)
    reduced_db = reduction_db(gain_db)
    highest_db = song.programme.highest_gain_db(bounds, settings.ceiling_dbtp)
    held_by: Literal["", "reduction", "noise"] = ""
    if gain_db > highest_db:
        gain_db, held_by = round(highest_db, 4), "noise"
    if min(reduced_db, reduction_db(gain_db)) > bounds.most_reduction_db:
        gain_db, held_by = _highest(reduction_db, bounds.most_reduction_db, gain_db), "reduction"
    return Solved(settings, gain_db, reached(gain_db) if held_by else got, reduced_db, held_by)


def with_finer_peaks(song: ShapedSong, peak_floor: float, tick: Tick) -> ShapedSong:
    """The same song, its peaks read between the samples down to `peak_floor`."""
    peaks = PeakMeter(song.audio.rate_hz, above=peak_floor)
    for block in song.audio.read():
        peaks.feed(block)
        tick(block.shape[1])
    return replace(song, peaks=peaks.peaks(), peak_floor=peak_floor)


def solve_with_release(song: ShapedSong, ceiling_dbtp: float, aim_lufs: float, bounds: Bounds = BOUNDS) -> Solved:
    """The solution with the slowest release that reaches the loudness.

    A slow release distorts the bass least; one that has to drive the limiter far for it is passed over.
    """
    start = loudness.integrated(song.block_energies) or 0.0
    for release, hold in _RELEASES:
        found = solve(song, Limiter(ceiling_dbtp, release_db_per_s=release, hold_ms=hold), aim_lufs, bounds)
        is_enough = found.held_by == "noise" or aim_lufs - found.reached_lufs < 0.01
        is_enough = is_enough and found.gain_db - (found.reached_lufs - start) < _MOST_DRIVE_DB
        if is_enough or (release, hold) == _RELEASES[-1]:
            return found
    raise AssertionError("there is no release to try")


def _highest(reduction_db: Callable[[float], float], most_db: float, gain_db: float) -> float:
    """The highest gain, to a hundredth of a dB, whose reduction is no more than `most_db`; `gain_db` is too much."""
    low, high = gain_db - reduction_db(gain_db), gain_db
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if reduction_db(middle) > most_db else (middle, high)
    return round(low, 4)


def _root(reached: Callable[[float], float], aim: float, low: float) -> tuple[float, float]:
    """The gain at which `reached` comes to `aim`, and what it comes to; where it never does, the nearest.

    Loudness rises with gain, ever more slowly: the secant method from `low` up. Where a single loud event is held down,
    it doesn't rise for a while: then the first gain that is enough, sought in steps, and the root below it.
    """
    gain, got = _secant(reached, aim, low)
    if aim - got < _MISS_LU:
        return gain, got
    for trial in np.arange(low, _HIGHEST_GAIN_DB, _SCAN_DB)[1:]:
        if reached(float(trial)) >= aim:
            return _secant(reached, aim, float(trial))
    return gain, got


def _secant(reached: Callable[[float], float], aim: float, low: float) -> tuple[float, float]:
    gain, got = low, reached(low)
    step = 1.0
    for _ in range(40):
        miss = aim - got
        if abs(miss) < _MISS_LU or (miss > 0 and gain >= _HIGHEST_GAIN_DB):
            break
        trial = min(gain + miss * step, gain + 12.0, _HIGHEST_GAIN_DB)
        now = reached(trial)
        slope = (now - got) / (trial - gain) if trial != gain else 1.0
        if slope < 0.01:
            break
        step = min(1 / slope, 12.0)
        gain, got = trial, now
    return round(gain, 4), got


def guarded_curve(song: ShapedSong, settings: Limiter, gain_db: float, *, tick: Tick) -> Curve:
    """The limiter's curve, tightened until the wave read at 16 x stays below the ceiling.

    Only blocks near the ceiling by the 4 x reading are read again: 4 x can miss 0.7 dB, and more at the band's top.
    """
    ceiling = 10 ** (settings.ceiling_dbtp / 20) * _HEADROOM
    rate_hz, gain = song.audio.rate_hz, 10 ** (gain_db / 20)
    peaks = song.peaks.copy()
    inner = replace(settings, ceiling_dbtp=settings.ceiling_dbtp - 0.004)
    curve = inner.curve(peaks, gain, rate_hz)
    near = _higher_node(curve) * peaks > ceiling * 10 ** (-_GUARD_DB / 20)
    for number in range(2 * _GUARD_ROUNDS):
        found = _read_again(song.audio, curve, near, tick)
        over = np.flatnonzero(found > ceiling)
        if not over.size:
            return curve
        if number >= _GUARD_ROUNDS:
            # What single blocks do not settle, a lower ceiling for all does.
            inner = replace(
                inner, ceiling_dbtp=inner.ceiling_dbtp - 20 * math.log10(float(found.max()) / ceiling) - 0.01
            )
        peaks[over] = np.maximum(peaks[over], ceiling / _lower_node(curve)[over]) * (found[over] / ceiling) * 1.0002
        before, curve = curve, inner.curve(peaks, gain, rate_hz)
        changed = np.flatnonzero(np.abs(curve - before) > 0)
        near = np.zeros_like(near)
        for shift in range(-_GUARD_REACH, _GUARD_REACH + 1):
            near[np.clip(changed + shift, 0, near.size - 1)] = True
        near &= _higher_node(curve) * peaks > ceiling * 10 ** (-_GUARD_DB / 20)
    raise Fault(FaultCode.BAD_MASTER, "The limiter could not hold the ceiling. Choose a lower loudness.")


def _higher_node(curve: Curve) -> Curve:
    return np.maximum(curve[:-1], curve[1:])


def _lower_node(curve: Curve) -> Curve:
    return np.minimum(curve[:-1], curve[1:])


def _read_again(audio: Audio, curve: Curve, near: NDArray[np.bool_], tick: Tick) -> Peaks:
    length = block_length(audio.rate_hz)
    gain = partial(limiter.gain_around, curve, length=length, reach=HALF_TAPS[_GUARD_FACTOR])
    meter = PeakMeter(audio.rate_hz, factor=_GUARD_FACTOR, only=near, gain=gain)
    for block in audio.read():
        meter.feed(block)
        tick(block.shape[1])
    return meter.peaks()


def limited(audio: Audio, curve: Curve, offsets: Sequence[float] = ()) -> Audio:
    """The song times the limiter's gain, less `offsets`, one for each channel, which come and go softly."""
    length = block_length(audio.rate_hz)
    taken, ramp = np.array(offsets, np.float32)[:, None], _offset_ramp(audio)

    def change(blocks: Blocks) -> Blocks:
        at = 0
        for block in blocks:
            gained = limiter.apply(block, curve, at // length, length)
            if offsets:
                frame = np.arange(at, at + block.shape[1])
                from_edge = np.minimum(frame, audio.frames - 1 - frame)
                gained = gained - taken * np.minimum(from_edge / ramp, 1.0).astype(np.float32)
            yield gained
            at += block.shape[1]

    return audio.map(change)


def _offset_ramp(audio: Audio) -> int:
    """Frames in which an offset's correction comes and goes."""
    return max(1, min(round(_RAMP_S * audio.rate_hz), audio.frames // 4))


def offsets(song: ShapedSong, curve: Curve) -> tuple[float, ...]:
    """What `limited` has to take out for the song to have no offset after the limiter; empty where it has none.

    A gain that varies makes an offset of an asymmetric wave: it holds the higher half down. Reckoned from the sums
    of the peak blocks and the gain in their middle; a song that is not kept in memory is read.
    """
    audio, total = song.audio, np.zeros(song.audio.channels)
    if song.block_sums is not None:
        total = song.block_sums.astype(np.float64) @ ((curve[:-1] + curve[1:]) / 2)
    else:
        for block in limited(audio, curve).read():
            total += block.sum(axis=1, dtype=np.float64)
    found = total / (audio.frames - _offset_ramp(audio))
    return tuple(round(float(each), 5) for each in found) if np.abs(found).max() > _LEAST_OFFSET else ()
