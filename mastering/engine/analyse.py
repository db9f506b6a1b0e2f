"""Samples → Measurements: what the meters say of a recording, read in one pass over its blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mastering.contract import Measurements
from mastering.dsp import loudness
from mastering.dsp.spectrum import SpectrumMeter, bands
from mastering.dsp.stream import Samples
from mastering.dsp.threads import feed_all
from mastering.dsp.true_peak import HighestPeakMeter, Peaks
from mastering.engine.bounds import Programme

_CLIPPED_FROM = 0.99996
"""Linear: just below the highest number of 16 bits, 32767 / 32768."""
_FAR_BEYOND_DBFS = 24.0
"""No plug-in drives floats so far."""
_HEAVILY_LIMITED_LU = 8.5
"""Peak to loudness below which a source is called limited already."""


@dataclass(frozen=True)
class Analysis:
    """Measurements with what the plan, the loudness solver and the plots need beside them."""

    measurements: Measurements
    block_energies: loudness.BlockEnergies
    power: NDArray[np.float64]
    """Mean power of mid and side in each FFT bin (2, bins)."""
    usual_peak_dbtp: float
    """True peak of all but the highest twentieth of the programme: a single click is not in it."""


def analyse(
    blocks: Iterable[Samples],
    rate_hz: int,
    channels: int,
    *,
    frames: int | None = None,
    tick: Callable[[int], None] = lambda frames: None,
    finely: bool = False,
) -> Analysis:
    """Measure a recording; `tick` is called with the number of frames of every block.

    `frames`: how many there will be, where that is known. It saves time with a long one. `finely`: the true peak is
    read at 16 x instead of 4 x.
    """
    energies = loudness.BlockEnergyMeter(rate_hz, np.ones(channels))
    spectrum = SpectrumMeter(rate_hz, frames)
    levels = _Levels(rate_hz, channels, 16 if finely else 4)
    for block in feed_all(iter(blocks), (energies, spectrum, levels)):
        tick(block.shape[1])
    power, block_energies = spectrum.power(), energies.block_energies()
    measurements = _measurements(rate_hz, channels, block_energies, power, levels)
    usual_peak = Programme.of(block_energies, levels.peaks, rate_hz).peak
    return Analysis(measurements, block_energies, power, decibels(usual_peak))


def _measurements(
    rate_hz: int, channels: int, energies: loudness.BlockEnergies, power: NDArray[np.float64], levels: _Levels
) -> Measurements:
    integrated = loudness.integrated(energies)
    true_peak_dbtp = decibels(levels.true_peak())
    return Measurements(
        rate_hz=rate_hz,
        channels=channels,
        frames=levels.frames,
        duration_s=levels.frames / rate_hz,
        integrated_lufs=integrated,
        max_momentary_lufs=_highest_lufs(loudness.momentary(energies)),
        max_short_term_lufs=_highest_lufs(loudness.short_term(energies)),
        loudness_range_lu=loudness.loudness_range(energies),
        true_peak_dbtp=true_peak_dbtp,
        sample_peak_dbfs=decibels(levels.peak),
        crest_db=true_peak_dbtp - levels.rms_db(),
        peak_to_loudness_lu=None if integrated is None else true_peak_dbtp - integrated,
        correlation=levels.correlation(),
        width_db=levels.width_db(),
        dc_offset=levels.dc_offset(),
        clipped_samples=levels.clipped,
        spectrum=bands(power, rate_hz),
    )


def decibels(amplitude: float) -> float:
    """20 log10, with −200 dB for nothing at all."""
    return 20 * math.log10(max(amplitude, 1e-10))


def _highest_lufs(energies: NDArray[np.float64]) -> float | None:
    """The highest of those energies in LUFS."""
    return loudness.to_lufs(float(energies.max())) if energies.size else None


class _Levels:
    """Running sums and peaks behind the level, stereo and offset readings."""

    def __init__(self, rate_hz: int, channels: int, factor: int) -> None:
        self.frames = 0
        self.peak = 0.0
        self.clipped = 0
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels))
        self._true_peaks = HighestPeakMeter(rate_hz, factor)

    def feed(self, block: Samples) -> None:
        peak = max(float(block.max()), -float(block.min()))
        self.frames += block.shape[1]
        self.peak = max(self.peak, peak)
        if peak >= _CLIPPED_FROM:
            self.clipped += int(np.count_nonzero(np.abs(block) >= _CLIPPED_FROM))
        self._sum += block @ np.ones(block.shape[1], np.float32)
        for one in range(len(block)):
            for other in range(one + 1):
                self._products[one, other] += block[one] @ block[other]
        self._true_peaks.feed(block)

    @cached_property
    def peaks(self) -> Peaks:
        """Ends the recording. Of blocks far below the highest peak the samples alone were read."""
        return self._true_peaks.peaks

    def true_peak(self) -> float:
        return self._true_peaks.highest()

    def rms_db(self) -> float:
        return decibels(math.sqrt(float(np.trace(self._products)) / (self.frames * len(self._sum))))

    def correlation(self) -> float | None:
        if len(self._sum) != 2:
            return None
        energy = math.sqrt(self._products[0, 0] * self._products[1, 1])
        return max(-1.0, min(1.0, float(self._products[1, 0]) / energy)) if energy > 0 else 0.0

    def width_db(self) -> float | None:
        if len(self._sum) != 2:
            return None
        level, cross = float(np.trace(self._products)), 2 * float(self._products[1, 0])
        return 10 * math.log10(max(level - cross, 1e-12) / max(level + cross, 1e-12))

    def dc_offset(self) -> float:
        return float(np.abs(self._sum).max()) / self.frames


def remarks(measured: Measurements, *, lossy: bool) -> list[str]:
    """Sentences on flaws of the source that no mastering can undo."""
    found = []
    if lossy:
        found.append("Lossy source: what its coder took away cannot come back.")
    if measured.sample_peak_dbfs > _FAR_BEYOND_DBFS:
        found.append(
            f"Samples of the source lie far beyond full scale, up to {measured.sample_peak_dbfs:+.1f} dBFS, as in a "
            "float file on the scale of whole numbers: they are turned down to it."
        )
    elif measured.clipped_samples > 8:
        found.append(f"Clipped: {measured.clipped_samples} samples of the source lie at full scale.")
    if measured.peak_to_loudness_lu is not None and measured.peak_to_loudness_lu < _HEAVILY_LIMITED_LU:
        found.append(f"Already limited: the peaks stand only {measured.peak_to_loudness_lu:.1f} LU above the loudness.")
    if measured.channels == 1:
        found.append("Mono source.")
    if measured.correlation is not None and measured.correlation > 0.9999:
        found.append("Both channels of the source are the same: it is mono in a stereo file.")
    if measured.correlation is not None and measured.correlation < -0.3:
        found.append(f"Inverted phase: left and right cancel in mono (correlation {measured.correlation:.2f}).")
    if measured.dc_offset > 0.001:
        found.append(f"The source has a DC offset of {measured.dc_offset:.4f}; it is taken out.")
    return found
