"""The meters of the faults group: each reads what was put into a signal."""

import numpy as np
import pytest

from ops.bench import _fault_songs as songs
from ops.bench import _independent_meters as meters
from ops.bench import faults
from ops.bench.songs import RATE_HZ


def _tone(hz: float, peak: float = 0.5) -> np.ndarray:
    wave = peak * np.sin(2 * np.pi * hz * np.arange(2 * RATE_HZ) / RATE_HZ)
    return np.stack([wave, wave])


def test_a_reduction_is_read_where_it_is() -> None:
    song = _tone(1000)
    gain = np.ones(song.shape[1])
    gain[RATE_HZ : RATE_HZ + RATE_HZ // 10] = 10 ** (-12 / 20)
    reduction = meters.reduction_db(song, song * gain * 3)
    assert reduction.max() == pytest.approx(12, abs=0.1)
    assert np.median(reduction) == pytest.approx(0, abs=0.1)


def test_a_band_that_is_lost_and_one_that_moved_are_read() -> None:
    song = _tone(40) + _tone(500) + _tone(4000)
    changed = 2 * (_tone(40, 0.05) + _tone(500) + _tone(4000))
    assert meters.band_lost_db(song, changed, 25, 60) == pytest.approx(20, abs=0.2)
    moved = meters.moved_db(song, changed)
    assert np.nanmax(moved) - np.nanmin(moved) == pytest.approx(20, abs=0.3)


def test_what_comes_before_a_click_is_read_against_the_noise() -> None:
    song = songs.clicks(4.0, 1)
    assert faults._before_clicks_db(song, 10 * song) == pytest.approx(0, abs=1e-3)
    rung = song.copy()
    for click in songs.click_frames(song.shape[1]):
        rung[:, click - 441 : click - 100] *= 10
    assert faults._before_clicks_db(song, rung) > 15


def test_the_growth_of_the_worst_measure_is_that_of_its_distance() -> None:
    reference = songs.plucked(4.0)
    near, far = (songs.tilted(reference, tilt) for tilt in (-1.0, -2.0))
    assert faults._worst_growth_percent(near, near, reference) == 0
    assert 80 < faults._worst_growth_percent(near, far, reference) < 120
    assert faults._worst_growth_percent(far, near, reference) <= 0
