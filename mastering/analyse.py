"""Samples → Measurements: what the meters say of a recording, read in one pass over its blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mastering.contract import BandLevel, Measurements
from mastering.dsp import loudness
from mastering.dsp.spectrum import SpectrumMeter
from mastering.dsp.stream import Audio, Samples
from mastering.dsp.true_peak import PeakMeter

_CLIPPED_FROM = 0.99996


@dataclass(frozen=True)
class Analysis:
    """Measurements with the cached cells that the solver and the plots need."""

    measurements: Measurements
    cells: loudness.Energies
    """K-weighted energy of each 10 ms."""


def analyse(audio: Audio, *, tick: Callable[[int], None] = lambda frames: None) -> Analysis:
    """Measure `audio`; `tick` is called with the number of frames of every block."""
    cells = loudness.CellMeter(audio.rate_hz, np.ones(audio.channels))
    peaks = _HighestPeak(audio.rate_hz)
    spectrum = SpectrumMeter(audio.rate_hz)
    sums = _Sums(audio.channels)
    for block in audio.read():
        cells.feed(block)
        peaks.feed(block)
        spectrum.feed(block)
        sums.feed(block)
        tick(block.shape[1])
    return _analysis(audio, cells.cells(), peaks.highest(), spectrum.bands(), sums)


def _analysis(
    audio: Audio, cells: loudness.Energies, true_peak: float, bands: tuple[BandLevel, ...], sums: _Sums
) -> Analysis:
    integrated = loudness.integrated(cells)
    true_peak_dbtp = decibels(true_peak)
    measurements = Measurements(
        rate_hz=audio.rate_hz,
        channels=audio.channels,
        frames=audio.frames,
        duration_s=audio.frames / audio.rate_hz,
        integrated_lufs=integrated,
        max_momentary_lufs=_highest(loudness.momentary(cells)),
        max_short_term_lufs=_highest(loudness.short_term(cells)),
        loudness_range_lu=loudness.loudness_range(cells),
        true_peak_dbtp=true_peak_dbtp,
        sample_peak_dbfs=decibels(sums.peak),
        crest_db=true_peak_dbtp - sums.rms_db(),
        peak_to_loudness_lu=None if integrated is None else true_peak_dbtp - integrated,
        correlation=sums.correlation(),
        width_db=sums.width_db(),
        dc_offset=sums.dc_offset(),
        clipped_samples=sums.clipped,
        spectrum=bands,
    )
    return Analysis(measurements, cells)


def decibels(amplitude: float) -> float:
    """20 log10, with −200 dB for nothing at all."""
    return 20 * math.log10(max(amplitude, 1e-10))


def _highest(energies: NDArray[np.float64]) -> float | None:
    return loudness.to_lufs(float(energies.max())) if energies.size else None


class _HighestPeak:
    """The highest true peak; only blocks that could beat the highest sample so far are interpolated."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._meter = PeakMeter(rate_hz)

    def feed(self, block: Samples) -> None:
        self._meter.above = max(self._meter.above, float(np.abs(block).max()))
        self._meter.feed(block)

    def highest(self) -> float:
        return float(self._meter.peaks().max(initial=0.0))


class _Sums:
    """Running sums behind the level, stereo and offset readings."""

    def __init__(self, channels: int) -> None:
        self._frames = 0
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels))
        self.peak = 0.0
        self.clipped = 0

    def feed(self, block: Samples) -> None:
        self._frames += block.shape[1]
        self._sum += block.sum(axis=1, dtype=np.float64)
        self._products += block @ block.T
        peak = max(float(block.max()), -float(block.min()))
        self.peak = max(self.peak, peak)
        if peak >= _CLIPPED_FROM:
            self.clipped += int(np.count_nonzero(np.abs(block) >= _CLIPPED_FROM))

    def rms_db(self) -> float:
        return decibels(math.sqrt(float(np.trace(self._products)) / (self._frames * len(self._sum))))

    def correlation(self) -> float | None:
        if len(self._sum) != 2:
            return None
        energy = math.sqrt(self._products[0, 0] * self._products[1, 1])
        return max(-1.0, min(1.0, float(self._products[0, 1]) / energy)) if energy > 0 else 0.0

    def width_db(self) -> float | None:
        if len(self._sum) != 2:
            return None
        level, cross = float(np.trace(self._products)), 2 * float(self._products[0, 1])
        return 10 * math.log10(max(level - cross, 1e-12) / max(level + cross, 1e-12))

    def dc_offset(self) -> float:
        return float(np.abs(self._sum).max()) / self._frames


def remarks(measured: Measurements, *, lossy: bool) -> list[str]:
    """Honest sentences on what the source brings along that no mastering can undo."""
    found = []
    if lossy:
        found.append("The source was coded lossily before: what the coder took away cannot come back.")
    if measured.clipped_samples > 8:
        found.append(f"The source is clipped ({measured.clipped_samples} samples at full scale).")
    if measured.crest_db < 9:
        found.append(f"The source is already heavily limited (crest {measured.crest_db:.1f} dB).")
    if measured.channels == 1:
        found.append("The source is mono.")
    if measured.correlation is not None and measured.correlation < -0.3:
        found.append(f"Left and right are out of phase (correlation {measured.correlation:.2f}).")
    if measured.dc_offset > 0.001:
        found.append(f"The source has a DC offset of {measured.dc_offset:.4f}.")
    return found
