"""Contours of signals whose powers and peaks are known."""

import numpy as np
import pytest

from mastering.dsp.contour import Contour, ContourMeter
from mastering.dsp.features import Layout
from tests.mastering.sound import music

RATE_HZ = 44_100


def _sine(hz: float, amplitude: float, seconds: float = 4.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.tile((amplitude * np.sin(2 * np.pi * hz * time)).astype(np.float32), (2, 1))


def _contour(samples: np.ndarray, size: int = 1 << 16) -> Contour:
    meter = ContourMeter(RATE_HZ)
    for start in range(0, samples.shape[1], size):
        meter.feed(samples[:, start : start + size])
    return meter.contour()


def test_a_full_scale_sine_has_the_power_one_in_its_band_and_nothing_at_the_sides() -> None:
    power = _contour(_sine(1000.0, 1.0)).power[20:-20]
    middle = int(np.argmin(np.abs(Layout(RATE_HZ).centres_hz - 1000)))
    assert power[:, 0].sum(axis=1) == pytest.approx(1.0, abs=0.01)
    assert power[:, 0, middle] == pytest.approx(1.0, abs=0.01)
    assert power[:, 1].max() < 1e-10


def test_the_contour_does_not_depend_on_how_the_blocks_were_cut() -> None:
    song = music(seconds=5)
    whole, pieces = _contour(song), _contour(song, 1000)
    assert whole.power.shape == pieces.power.shape
    assert np.allclose(whole.power, pieces.power, rtol=1e-4, atol=1e-9)
    assert (whole.peaks == pieces.peaks).all()
    assert whole.peaks.max() == np.abs(song).max()


def test_a_burst_lies_in_its_own_blocks() -> None:
    samples = np.zeros((2, 2 * RATE_HZ), np.float32)
    samples[:, RATE_HZ : RATE_HZ + 512] = 0.5
    contour = _contour(samples)
    at = RATE_HZ / RATE_HZ * contour.blocks_per_s
    assert contour.peaks.argmax() == pytest.approx(at, abs=1)
    assert contour.power[:, 0].sum(axis=1).argmax() == pytest.approx(at, abs=1)


def test_a_thinned_contour_keeps_whole_stretches_from_all_over_the_song() -> None:
    contour = _contour(np.concatenate([_sine(1000.0, 0.1 * step, 10.0) for step in range(1, 7)], axis=1))
    thin = contour.thinned(20.0)
    assert len(thin.peaks) == pytest.approx(20 * contour.blocks_per_s, abs=2)
    assert {round(float(peak), 1) for peak in np.quantile(thin.peaks, [0.2, 0.8])} == {0.1, 0.4}
    assert contour.thinned(60.0) is contour
