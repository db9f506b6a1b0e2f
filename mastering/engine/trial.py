"""The real chain on a recording, by one plan or another, and how far what comes out lies from what was asked for.

A fit is judged by this and not by its model: plans are compared by the weighted distance of their masters' features
(`dsp.features`), and by each measure alone, so that no gain in one is paid for with another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mastering.contract import Plan
from mastering.dsp import loudness
from mastering.dsp.contour import ContourMeter
from mastering.dsp.features import Layout, MeasuredRecording, Vector
from mastering.dsp.spectrum import NEAR_SILENCE_DB, SpectrumMeter
from mastering.dsp.stream import BLOCK_FRAMES, Audio, Blocks, collected, stored
from mastering.engine import render

MOST_FURTHER = 0.03
"""By how much of itself a measure may grow. No more than 5 % is promised, and other meters weigh bands otherwise."""
NOTHING_DB = 0.1
"""A measure that stays below this is met: 5 % of next to nothing is nothing."""

_NAMES = {
    "mid": "mid spectrum",
    "side": "side spectrum",
    "levels": "levels",
    "crest": "crest",
    "width": "width",
}
"""The parts of a feature vector as people read of them. The loudness is met by every master that is delivered."""
_HEARD_HZ = (25.0, 16_000.0)
"""Bands of the spectra's measures. Unlike in the distance, those count too that the source leaves next to silent."""
_SILENCE_LUFS = -70.0
"""What a stretch without a loudness counts as: the absolute gate of BS.1770."""
_STRETCH_BLOCKS = 4
"""Of a long recording, stretches of so many blocks are tried, some ten seconds each."""


@dataclass(frozen=True)
class Trial:
    """A recording, and what was asked for of its master."""

    audio: Audio
    source: MeasuredRecording
    aim_lufs: float
    goal: Vector

    def features(self, candidate: Plan, tick: Callable[[int], None] = lambda frames: None) -> Vector:
        """Of the recording as the real chain masters it by `candidate`. `tick` is given the frames read, twice over."""
        peak_floor = 10 ** ((candidate.ceiling_dbtp - (self.aim_lufs - self.source.lufs) - 6) / 20)
        own = stored(collected(self.audio.read(), self.audio.channels, self.audio.frames), self.audio.rate_hz)
        song = render.shape(own, candidate, tick=tick, peak_floor=peak_floor)
        found = render.solve_with_release(song, candidate.ceiling_dbtp, self.aim_lufs)
        curve = found.limiter.curve(song.peaks, 10 ** (found.gain_db / 20), song.audio.rate_hz)
        return read_recording(render.limited(song.audio, curve), tick).features(self.aim_lufs)


def read_recording(audio: Audio, tick: Callable[[int], None] = lambda frames: None) -> MeasuredRecording:
    """A recording by the meters that a trial uses."""
    energies = loudness.BlockEnergyMeter(audio.rate_hz, np.ones(audio.channels))
    contour, spectrum = ContourMeter(audio.rate_hz), SpectrumMeter(audio.rate_hz)
    for block in audio.read():
        energies.feed(block)
        contour.feed(block)
        spectrum.feed(block)
        tick(block.shape[1])
    lufs = loudness.integrated(energies.block_energies()) or _SILENCE_LUFS
    return MeasuredRecording(contour.contour(), spectrum.power(), lufs)


def thinned(audio: Audio, most_s: float) -> Audio:
    """The recording, or of a longer one evenly spread stretches that last `most_s` in all, decoded at each reading."""
    stretches = -(-audio.frames // (_STRETCH_BLOCKS * BLOCK_FRAMES))
    kept = max(1, int(most_s * audio.rate_hz / (_STRETCH_BLOCKS * BLOCK_FRAMES)))
    if audio.frames <= most_s * audio.rate_hz or stretches <= kept:
        return Audio(audio.rate_hz, audio.channels, audio.frames, audio.read)
    chosen = {number * (stretches - 1) // kept for number in range(kept)}  # never the last, which may be short

    def read() -> Blocks:
        for number, block in enumerate(audio.read()):
            if number // _STRETCH_BLOCKS in chosen:
                yield block

    return Audio(audio.rate_hz, audio.channels, len(chosen) * _STRETCH_BLOCKS * BLOCK_FRAMES, read)


@dataclass(frozen=True)
class Measures:
    """What masters are compared by, each the mean of a part of the features' differences from what was asked for."""

    names: tuple[str, ...]
    goal: Vector
    rows: NDArray[np.float64]
    """What each feature counts in each measure (measures, features)."""
    floor_db: float
    """Bands of the spectrum below this count as this."""
    most_db: Vector
    """How far a master may lie away by each measure: as far as the first one, or next to nothing."""

    @classmethod
    def of(cls, layout: Layout, goal: Vector, before: Vector) -> Measures:
        """Those that the goal knows; `before` are the features of the first master."""
        bands = layout.parts["side"].stop
        floor_db = float(np.nanmax(goal[:bands])) + NEAR_SILENCE_DB
        heard = (layout.centres_hz >= _HEARD_HZ[0]) & (layout.centres_hz <= _HEARD_HZ[1])
        counted = np.isfinite(goal)
        counted[:bands] &= np.tile(heard, 2) & (np.fmax(goal, before)[:bands] > floor_db)
        asked = goal.copy()
        asked[:bands] = np.maximum(goal[:bands], floor_db)
        rows = {name: np.zeros(goal.size) for name in _NAMES if counted[layout.parts[name]].any()}
        for name, row in rows.items():
            row[layout.parts[name]] = counted[layout.parts[name]] / counted[layout.parts[name]].sum()
        made = cls(tuple(_NAMES[name] for name in rows), asked, np.stack(list(rows.values())), floor_db, asked)
        return replace(made, most_db=np.maximum(made.misses_db(before), NOTHING_DB))

    def misses_db(self, features: Vector) -> Vector:
        """How far the features lie from what was asked for by each measure."""
        away = np.nan_to_num(np.abs(np.maximum(features, self.floor_db) - self.goal))
        found: Vector = self.rows @ away
        return found

    def grown(self, features: Vector) -> str:
        """The measure by which the features lie too far away, and by how much further than at first; "" if none."""
        misses_db = self.misses_db(features)
        growth = misses_db / self.most_db
        worst = int(np.argmax(growth))
        if growth[worst] <= 1 + MOST_FURTHER:
            return ""
        further_db = misses_db[worst] - self.most_db[worst]
        return f"its {self.names[worst]} {further_db:.2f} dB ({100 * growth[worst] - 100:.0f} %) further away"
