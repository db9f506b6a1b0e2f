"""A differentiable model of the mastering chain: knobs → features, at block rate.

It takes a song's contour (`dsp.contour`) through the chain's steps in their order (`contract.CHAIN`: tone, compressor,
saturation, gain, limiter) and computes the features (`dsp.features`) of what comes out. It need not be exact: the
caller corrects the goal by how much it was off at the start, and tries the result on the real chain. The tone's effect
on the mean spectrum is exact (on the FFT bins of the analysis); gains over time act on third octaves; the limiter has
no release, which at this rate hardly shows.

No tensor's shape depends on the knobs, and no value is read back from the device: so a GPU can record an iteration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mastering.dsp.contour import Contour
from mastering.dsp.dynamics import Compressor
from mastering.dsp.features import (
    FLOOR_DB,
    PAUSE_SHARE,
    QUANTILES,
    QUIET_SHARE,
    Layout,
    Vector,
    crest_blocks,
    level_windows,
)
from mastering.dsp.spectrum import band_shares, bin_frequencies_hz, frame_length
from mastering.fit.device import default_device, guarded

_DB = 10 / math.log(10)
"""Decibels of power in one neper."""
_NOTHING = 1e-15
"""Added to powers, so that silence has a logarithm."""
_FORGOTTEN = 1e-3
"""A share of the past that a low-pass leaves out."""
_K_WEIGHTED, _UNWEIGHTED = 3, 4
"""Columns of the readings of a block, after those of its low, middle and high band: all of it, with and without the
K-weighting."""
_LOUD_SHARE = 0.1
"""Blocks whose power is below this share of the mean do not count in the loudness: its gate, 10 LU."""
_GAIN_ROUNDS = 3
"""Corrections of the gain, each by what the limiter took of the loudness."""


@dataclass(frozen=True)
class Knobs:
    """The numbers that are moved: corrections of the tone in dB, (bands,) of mid and side and (3,) of the compressor's
    bands' width; the compressor by band (3,), slope = 1 − 1 / ratio; the saturation's drive (1,)."""

    mid_db: NDArray[np.float64]
    side_db: NDArray[np.float64]
    width_db: NDArray[np.float64]
    thresholds_db: NDArray[np.float64]
    slopes: NDArray[np.float64]
    gains_db: NDArray[np.float64]
    drive: NDArray[np.float64]

    def by_name(self) -> dict[str, NDArray[np.float64]]:
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def towards(self, other: Knobs, share: float) -> Knobs:
        """These numbers moved by a share of the way to the other's."""
        return Knobs(**{name: at + share * (other.by_name()[name] - at) for name, at in self.by_name().items()})


@dataclass(frozen=True)
class PlannedSong:
    """A song at block rate with what its plan keeps fixed during a fit."""

    contour: Contour
    power: NDArray[np.float64]
    """Mean power (2, bins) of the source."""
    lufs: float
    features: Vector
    """The source's own."""
    tone_db: NDArray[np.float64]
    """The plan's tone curve on the same bins (2, bins)."""
    compressor: Compressor
    saturated_peak: float
    loudness_lufs: float
    ceiling_dbtp: float


class ChainModel:
    """The model of the chain for one song. Big are only the powers (blocks, 2 x bands) and the gains over them."""

    @guarded()
    def __init__(self, song: PlannedSong, device: torch.device | None = None) -> None:
        """Raises DeviceFailed."""
        self.device = default_device() if device is None else device
        self.song = song
        layout, contour = Layout(song.contour.rate_hz), song.contour
        self._power = self.tensor(contour.power.reshape(len(contour.power), -1))
        self._peaks = self.tensor(contour.peaks)
        self._bands = self.tensor(np.tile(layout.band_gains(), 2))
        self._readings = self.tensor(np.tile(np.vstack([layout.rows(), np.ones(layout.centres_hz.size)]), 2).T)
        self._k_weights = self.tensor(layout.k_weights())
        self._bins_from_bands = self.tensor(_interpolation_matrix(layout))
        shares = band_shares(contour.rate_hz, frame_length(contour.rate_hz))
        self._band_powers = self.tensor(shares[None] * song.power[:, None, :])
        self._levels = self._band_powers.sum(dim=2) + _NOTHING
        self._tone_db = self.tensor(song.tone_db)
        self._poles = [
            math.exp(-1 / (contour.blocks_per_s * ms * 1e-3))
            for ms in (song.compressor.attack_ms, song.compressor.release_ms)
        ]
        self._width, self._step = level_windows(contour)
        self._crest_width = crest_blocks(contour)
        self._quantiles = self.tensor(np.array(QUANTILES))
        self._set_source()

    def _set_source(self) -> None:
        """Fix which windows are loud enough to count, and how far the model's reading of the source is off.

        A pause of the source stays one, whatever the knobs do to it.
        """
        blocks = self._power @ self._readings
        loud = self._windows(blocks)[:, _K_WEIGHTED]
        self._loud_windows = _true_indices(loud > loud.mean() * PAUSE_SHARE)
        weighed = blocks[:, _K_WEIGHTED]
        self._loud_blocks = _true_indices(weighed > weighed.mean() * _LOUD_SHARE)
        self._loud_power = weighed[self._loud_blocks].mean() + _NOTHING
        self._total = blocks[:, _UNWEIGHTED] + _NOTHING
        spans = self._spans(blocks)
        self._loud_spans = _true_indices(spans > spans.amax() * QUIET_SHARE)
        lufs = torch.tensor(self.song.lufs, device=self.device)
        sides = self._power.mean(dim=0).reshape(2, -1)
        self._anchor = self.tensor(self.song.features) - self._read(self._levels, sides, blocks, self._peaks, lufs)

    def features(self, knobs: dict[str, Tensor]) -> Tensor:
        """The features after the chain; the mean reduction of the compressor's bands is kept in `reduced_db`."""
        levels = self._levels_after_tone(knobs)
        tone = (levels / self._levels).reshape(-1)
        gains = self._compressor_gains(tone, knobs)
        power = self._power * (gains @ self._bands).square()
        blocks = power @ (self._readings * tone[:, None])
        change = self._saturated_power(blocks[:, _UNWEIGHTED], knobs["drive"])
        height = torch.sqrt((blocks[:, _UNWEIGHTED] + _NOTHING) / self._total)
        peaks = self._peaks * height * (1 - knobs["drive"] * self._saturated_share(self._peaks * height) / 3)
        change, peaks, lufs = self._limited(blocks[:, _K_WEIGHTED], change, peaks)
        sides = ((change @ power) * tone / len(power)).reshape(2, -1)
        levels = levels * (sides + _NOTHING) / ((self._power.mean(dim=0) * tone).reshape(2, -1) + _NOTHING)
        return self._anchor + self._read(levels, sides, blocks * change[:, None], peaks, lufs)

    def _levels_after_tone(self, knobs: dict[str, Tensor]) -> Tensor:
        """Mean power of each band (2, bands) after the tone."""
        bands = self._bands[:, : self._k_weights.numel()].square()
        wide = knobs["side_db"] + knobs["width_db"] @ bands
        correction = torch.stack([knobs["mid_db"], wide]) @ self._bins_from_bands.T
        gain = torch.exp((self._tone_db + correction) / _DB)
        return (self._band_powers * gain[:, None, :]).sum(dim=2) + _NOTHING

    def _compressor_gains(self, tone: Tensor, knobs: dict[str, Tensor]) -> Tensor:
        """The compressor's gains (blocks, 3)."""
        levels = self._power @ (self._bands.square() * tone / 2).T
        detected = torch.maximum(*(_low_pass(levels, pole) for pole in self._poles))
        over = _DB * torch.log(detected + _NOTHING) - knobs["thresholds_db"]
        knee = self.song.compressor.knee_db
        bent = (over + knee / 2).clamp(0.0, knee).square() / (2 * knee) + (over - knee / 2).clamp(min=0.0)
        reduction = bent * knobs["slopes"]
        self.reduced_db = reduction.mean()
        return torch.exp((knobs["gains_db"] - reduction) / (2 * _DB))

    def _saturated_power(self, power: Tensor, drive: Tensor) -> Tensor:
        """Power gain of the saturation's cubic for noise of the block's level."""
        share = (power / 2 / self.song.saturated_peak**2).clamp(max=1 / 3)
        return 1 - 2 * drive * share + 5 / 3 * (drive * share).square()

    def _saturated_share(self, peaks: Tensor) -> Tensor:
        """How much of the cubic's full effect each peak meets, 0 … 1."""
        return (peaks / self.song.saturated_peak).square().clamp(max=1.0)

    def _limited(self, weighed: Tensor, change: Tensor, peaks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(power gain, peaks, loudness in LUFS) after the gain that meets the loudness and a limiter.

        The limiter holds its gain for a block on either side.
        """
        in_db = 2 * _DB * torch.log(peaks + _NOTHING) - self.song.ceiling_dbtp
        reduction = torch.zeros_like(in_db)
        gain = self.song.loudness_lufs - self._lufs(weighed * change)
        for _ in range(_GAIN_ROUNDS):
            over = (in_db + gain).clamp(min=0.0)
            reduction = functional.max_pool1d(over[None, None], 3, 1, 1)[0, 0]
            lufs = self._lufs(weighed * change * torch.exp((gain - reduction) / _DB))
            gain = gain + (self.song.loudness_lufs - lufs)
        held = torch.exp((gain - reduction) / _DB)
        return change * held, peaks * torch.sqrt(held), self._lufs(weighed * change * held)

    def _lufs(self, weighed: Tensor) -> Tensor:
        return self.song.lufs + _DB * torch.log(
            weighed.index_select(0, self._loud_blocks).mean() / self._loud_power + _NOTHING
        )

    def _read(self, levels: Tensor, sides: Tensor, blocks: Tensor, peaks: Tensor, lufs: Tensor) -> Tensor:
        """What `MeasuredRecording.features` computes, but for a constant, `_anchor`."""
        spectrum = _DB * torch.log(levels) - _DB * torch.log((levels * self._k_weights).sum())
        windows = self._windows(blocks[:, :_UNWEIGHTED]).index_select(0, self._loud_windows)
        loud_db = (_DB * torch.log(windows + _NOTHING) - lufs).clamp(min=FLOOR_DB)
        quantiles = torch.quantile(loud_db, self._quantiles, dim=0).T
        wide = sides @ self._bands[:, : self._k_weights.numel()].square().T + _NOTHING
        width = (_DB * torch.log(wide[1] / wide[0])).clamp(min=FLOOR_DB)
        crest, miss = self._crest_db(blocks, peaks)[None], (lufs - self.song.loudness_lufs)[None]
        return torch.cat([spectrum.reshape(-1), quantiles.reshape(-1), crest, width, miss])

    def _crest_db(self, blocks: Tensor, peaks: Tensor) -> Tensor:
        whole = len(peaks) // self._crest_width * self._crest_width
        highest = peaks[:whole].reshape(-1, self._crest_width).amax(dim=1).index_select(0, self._loud_spans)
        powers = self._spans(blocks).index_select(0, self._loud_spans)
        return (2 * _DB * torch.log(highest + _NOTHING) - _DB * torch.log(powers + _NOTHING)).mean()

    def _spans(self, blocks: Tensor) -> Tensor:
        """Mean square of each window of the crest (3 s)."""
        whole = len(blocks) // self._crest_width * self._crest_width
        return blocks[:whole, _UNWEIGHTED].reshape(-1, self._crest_width).mean(dim=1) / 2

    def _windows(self, blocks: Tensor) -> Tensor:
        """Means over tenths of a second (windows, readings) of (blocks, readings)."""
        width = min(self._width, len(blocks))
        return functional.avg_pool1d(blocks.T[None], width, self._step)[0].T

    def tensor(self, values: NDArray[np.floating]) -> Tensor:
        """The numbers as float32 on the model's device."""
        return torch.tensor(np.ascontiguousarray(values), dtype=torch.float32, device=self.device)

    def knob_tensors(self, knobs: Knobs) -> dict[str, Tensor]:
        """The knobs by name, on the model's device."""
        return {name: self.tensor(values) for name, values in knobs.by_name().items()}

    @guarded()
    def read(self, knobs: Knobs) -> Vector:
        """The features for those knobs, as numbers. Raises DeviceFailed."""
        with torch.no_grad():
            return self.features(self.knob_tensors(knobs)).cpu().numpy().astype(np.float64)


def _low_pass(levels: Tensor, pole: float) -> Tensor:
    """A one-pole low-pass over the first axis, by doubling (`dsp.one_pole`): each step adds a past twice as long."""
    passed, reach = levels * (1 - pole), 1
    while pole**reach > _FORGOTTEN and reach < len(levels):
        passed = passed + pole**reach * functional.pad(passed, (0, 0, reach, 0))[:-reach]
        reach *= 2
    return passed


def _true_indices(mask: Tensor) -> Tensor:
    """The numbers of the true elements."""
    return mask.nonzero()[:, 0]


def _interpolation_matrix(layout: Layout) -> NDArray[np.float64]:
    """The matrix (bins, bands) from gains at band centres to gains at FFT bins, straight over log frequency."""
    centres = np.log2(layout.centres_hz)
    octaves = np.log2(np.maximum(bin_frequencies_hz(layout.rate_hz), 1.0))
    return np.stack([np.interp(octaves, centres, row) for row in np.eye(centres.size)], axis=1)
