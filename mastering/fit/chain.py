"""The chain as a stand-in that can be differentiated: knobs → features, at block rate.

It takes a song's contour (`dsp.contour`) through tone, compressor, saturation and limiter and reads the features
off the other end. It need not be exact: whoever calls says by how much it was off at the start, and tries the result on
the real chain. The tone's effect on the mean spectrum is exact (on the FFT bins of the analysis); gains over time act
on third octaves; the limiter has no release, which at this rate hardly shows.

No shape between knobs and features depends on the knobs, and nothing there is read back: a GPU can record it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mastering.dsp.contour import FLOOR_DB, GATE, QUANTILES, QUIET, Contour, Layout, Vector, level_windows
from mastering.dsp.contour import crest_blocks as _crest_blocks
from mastering.dsp.dynamics import Compressor
from mastering.dsp.spectrum import band_shares, bin_frequencies_hz, frame_length
from mastering.fit.device import default_device, guarded

_DB = 10 / math.log(10)
_NOTHING = 1e-15
_FORGOTTEN = 1e-3
_WHOLE, _TOTAL = 3, 4
"""Columns of the readings of a block: low, middle, high, the K-weighted whole, and all of it unweighted."""
_LOUD = 0.1
"""Blocks whose power is below this share of the mean do not count in the loudness: its gate, 10 LU."""
_GAIN_ROUNDS = 3


@dataclass(frozen=True)
class Knobs:
    """What is moved: corrections of the tone in dB, the compressor by band (slope = 1 − 1 / ratio), the drive."""

    mid_db: NDArray[np.float64]
    side_db: NDArray[np.float64]
    width_db: NDArray[np.float64]
    thresholds_db: NDArray[np.float64]
    slopes: NDArray[np.float64]
    gains_db: NDArray[np.float64]
    drive: NDArray[np.float64]

    def by_name(self) -> dict[str, NDArray[np.float64]]:
        return {part.name: getattr(self, part.name) for part in fields(self)}


@dataclass(frozen=True)
class Scene:
    """A song and what its plan keeps fixed."""

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


class Chain:
    """The stand-in: knobs → features. Big are only the powers (blocks, 2 x bands) and the gains over them."""

    @guarded()
    def __init__(self, scene: Scene, device: torch.device | None = None) -> None:
        self.device = default_device() if device is None else device
        self.scene = scene
        layout, contour = Layout(scene.contour.rate_hz), scene.contour
        self._power = self.tensor(contour.power.reshape(len(contour.power), -1))
        self._peaks = self.tensor(contour.peaks)
        self._bands = self.tensor(np.tile(layout.band_gains(), 2))
        self._readings = self.tensor(np.tile(np.vstack([layout.rows(), np.ones(layout.centres_hz.size)]), 2).T)
        self._weigh = self.tensor(layout.k_weights())
        self._through_points = self.tensor(_interpolation(layout))
        shares = band_shares(contour.rate_hz, frame_length(contour.rate_hz))
        self._shares = self.tensor(shares[None] * scene.power[:, None, :])
        self._levels = self._shares.sum(dim=2) + _NOTHING
        self._tone_db = self.tensor(scene.tone_db)
        self._poles = [
            math.exp(-1 / (contour.blocks_per_s * ms * 1e-3))
            for ms in (scene.compressor.attack_ms, scene.compressor.release_ms)
        ]
        self._width, self._step = level_windows(contour)
        self._crest = _crest_blocks(contour)
        self._quantiles = self.tensor(np.array(QUANTILES))
        self._hear_source()

    def _hear_source(self) -> None:
        """What is loud enough to count: a pause of the source stays one, whatever the knobs do to it."""
        blocks = self._power @ self._readings
        loud = self._windows(blocks)[:, _WHOLE]
        self._loud_windows = _where(loud > loud.mean() * GATE)
        weighed = blocks[:, _WHOLE]
        self._loud_blocks = _where(weighed > weighed.mean() * _LOUD)
        self._loud_power = weighed[self._loud_blocks].mean() + _NOTHING
        self._total = blocks[:, _TOTAL] + _NOTHING
        stretches = self._stretches(blocks)
        self._loud_stretches = _where(stretches > stretches.amax() * QUIET)
        lufs = torch.tensor(self.scene.lufs, device=self.device)
        sides = self._power.mean(dim=0).reshape(2, -1)
        self._anchor = self.tensor(self.scene.features) - self._read(self._levels, sides, blocks, self._peaks, lufs)

    def features(self, knobs: dict[str, Tensor]) -> Tensor:
        """The features after the chain; the mean reduction of the compressor's bands is kept in `reduced_db`."""
        levels = self._toned(knobs)
        tone = (levels / self._levels).reshape(-1)
        gains = self._gains(tone, knobs)
        power = self._power * (gains @ self._bands).square()
        blocks = power @ (self._readings * tone[:, None])
        change = self._bent(blocks[:, _TOTAL], knobs["drive"])
        height = torch.sqrt((blocks[:, _TOTAL] + _NOTHING) / self._total)
        peaks = self._peaks * height * (1 - knobs["drive"] * self._reach(self._peaks * height) / 3)
        change, peaks, lufs = self._limited(blocks[:, _WHOLE], change, peaks)
        sides = ((change @ power) * tone / len(power)).reshape(2, -1)
        levels = levels * (sides + _NOTHING) / ((self._power.mean(dim=0) * tone).reshape(2, -1) + _NOTHING)
        return self._anchor + self._read(levels, sides, blocks * change[:, None], peaks, lufs)

    def _toned(self, knobs: dict[str, Tensor]) -> Tensor:
        """Mean power of each band (2, bands) after the tone."""
        bands = self._bands[:, : self._weigh.numel()].square()
        wide = knobs["side_db"] + knobs["width_db"] @ bands
        correction = torch.stack([knobs["mid_db"], wide]) @ self._through_points.T
        gain = torch.exp((self._tone_db + correction) / _DB)
        return (self._shares * gain[:, None, :]).sum(dim=2) + _NOTHING

    def _gains(self, tone: Tensor, knobs: dict[str, Tensor]) -> Tensor:
        """The compressor's gains (blocks, 3)."""
        levels = self._power @ (self._bands.square() * tone / 2).T
        heard = torch.maximum(*(_low_pass(levels, pole) for pole in self._poles))
        over = _DB * torch.log(heard + _NOTHING) - knobs["thresholds_db"]
        knee = self.scene.compressor.knee_db
        bent = (over + knee / 2).clamp(0.0, knee).square() / (2 * knee) + (over - knee / 2).clamp(min=0.0)
        reduction = bent * knobs["slopes"]
        self.reduced_db = reduction.mean()
        return torch.exp((knobs["gains_db"] - reduction) / (2 * _DB))

    def _bent(self, power: Tensor, drive: Tensor) -> Tensor:
        """What the cubic does to the power of noise of the block's level."""
        share = (power / 2 / self.scene.saturated_peak**2).clamp(max=1 / 3)
        return 1 - 2 * drive * share + 5 / 3 * (drive * share).square()

    def _reach(self, peaks: Tensor) -> Tensor:
        return (peaks / self.scene.saturated_peak).square().clamp(max=1.0)

    def _limited(self, weighed: Tensor, change: Tensor, peaks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(power gain, peaks, loudness) once the loudness is met after a limiter that holds for a block either side."""
        in_db = 2 * _DB * torch.log(peaks + _NOTHING) - self.scene.ceiling_dbtp
        taken = torch.zeros_like(in_db)
        gain = self.scene.loudness_lufs - self._lufs(weighed * change)
        for _ in range(_GAIN_ROUNDS):
            over = (in_db + gain).clamp(min=0.0)
            taken = functional.max_pool1d(over[None, None], 3, 1, 1)[0, 0]
            lufs = self._lufs(weighed * change * torch.exp((gain - taken) / _DB))
            gain = gain + (self.scene.loudness_lufs - lufs)
        held = torch.exp((gain - taken) / _DB)
        return change * held, peaks * torch.sqrt(held), self._lufs(weighed * change * held)

    def _lufs(self, weighed: Tensor) -> Tensor:
        return self.scene.lufs + _DB * torch.log(
            weighed.index_select(0, self._loud_blocks).mean() / self._loud_power + _NOTHING
        )

    def _read(self, levels: Tensor, sides: Tensor, blocks: Tensor, peaks: Tensor, lufs: Tensor) -> Tensor:
        """What `contour.features` reads, but for a constant: the meter's gates and filters stand in the anchor."""
        spectrum = _DB * torch.log(levels) - _DB * torch.log((levels * self._weigh).sum())
        windows = self._windows(blocks[:, :_TOTAL]).index_select(0, self._loud_windows)
        loud_db = (_DB * torch.log(windows + _NOTHING) - lufs).clamp(min=FLOOR_DB)
        quantiles = torch.quantile(loud_db, self._quantiles, dim=0).T
        wide = sides @ self._bands[:, : self._weigh.numel()].square().T + _NOTHING
        width = (_DB * torch.log(wide[1] / wide[0])).clamp(min=FLOOR_DB)
        crest, miss = self._crest_db(blocks, peaks)[None], (lufs - self.scene.loudness_lufs)[None]
        return torch.cat([spectrum.reshape(-1), quantiles.reshape(-1), crest, width, miss])

    def _crest_db(self, blocks: Tensor, peaks: Tensor) -> Tensor:
        whole = len(peaks) // self._crest * self._crest
        highest = peaks[:whole].reshape(-1, self._crest).amax(dim=1).index_select(0, self._loud_stretches)
        powers = self._stretches(blocks).index_select(0, self._loud_stretches)
        return (2 * _DB * torch.log(highest + _NOTHING) - _DB * torch.log(powers + _NOTHING)).mean()

    def _stretches(self, blocks: Tensor) -> Tensor:
        """Mean square of each 3 s."""
        whole = len(blocks) // self._crest * self._crest
        return blocks[:whole, _TOTAL].reshape(-1, self._crest).mean(dim=1) / 2

    def _windows(self, blocks: Tensor) -> Tensor:
        """Means over tenths of a second (windows, readings) of (blocks, readings)."""
        width = min(self._width, len(blocks))
        return functional.avg_pool1d(blocks.T[None], width, self._step)[0].T

    def tensor(self, values: NDArray[np.floating]) -> Tensor:
        return torch.tensor(np.ascontiguousarray(values), dtype=torch.float32, device=self.device)

    def knobs(self, knobs: Knobs) -> dict[str, Tensor]:
        return {name: self.tensor(values) for name, values in knobs.by_name().items()}

    @guarded()
    def read(self, knobs: Knobs) -> Vector:
        """The features for those knobs, as numbers."""
        with torch.no_grad():
            return self.features(self.knobs(knobs)).cpu().numpy().astype(np.float64)


def _low_pass(levels: Tensor, pole: float) -> Tensor:
    """A one-pole low-pass over the first axis, by doubling: each step adds a past twice as long."""
    passed, reach = levels * (1 - pole), 1
    while pole**reach > _FORGOTTEN and reach < len(levels):
        passed = passed + pole**reach * functional.pad(passed, (0, 0, reach, 0))[:-reach]
        reach *= 2
    return passed


def _where(mask: Tensor) -> Tensor:
    return mask.nonzero()[:, 0]


def _interpolation(layout: Layout) -> NDArray[np.float64]:
    """What turns gains at the band centres into gains at the FFT bins (bins, bands), straight over log frequency."""
    centres = np.log2(layout.centres_hz)
    octaves = np.log2(np.maximum(bin_frequencies_hz(layout.rate_hz), 1.0))
    return np.stack([np.interp(octaves, centres, row) for row in np.eye(centres.size)], axis=1)
