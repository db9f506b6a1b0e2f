"""Features of signals whose levels, crest and distance are known."""

import numpy as np
import pytest

from mastering.dsp.contour import Contour, ContourMeter
from mastering.dsp.features import Layout, MeasuredRecording, character_of, distance_db, weights
from mastering.dsp.loudness import BlockEnergyMeter, integrated
from mastering.dsp.spectrum import SpectrumMeter
from tests.mastering.sound import music

RATE_HZ = 44_100


def _sine(hz: float, amplitude: float, seconds: float = 4.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.tile((amplitude * np.sin(2 * np.pi * hz * time)).astype(np.float32), (2, 1))


def _contour(samples: np.ndarray) -> Contour:
    meter = ContourMeter(RATE_HZ)
    meter.feed(samples)
    return meter.contour()


def _lufs(samples: np.ndarray) -> float:
    meter = BlockEnergyMeter(RATE_HZ, np.ones(2))
    meter.feed(samples)
    found = integrated(meter.block_energies())
    assert found is not None
    return found


def _features(samples: np.ndarray) -> np.ndarray:
    meter = SpectrumMeter(RATE_HZ)
    meter.feed(samples)
    return MeasuredRecording(_contour(samples), meter.power(), _lufs(samples)).features(_lufs(samples))


def test_levels_of_a_tone_in_two_steps_are_those_steps() -> None:
    song = np.concatenate([_sine(1000.0, 0.5), _sine(1000.0, 0.125)], axis=1)
    low, middle, high, whole = character_of(_contour(song), _lufs(song)).level_quantiles_db
    assert whole[-1] - whole[0] == pytest.approx(12.04, abs=0.1)
    assert middle[-1] - middle[0] == pytest.approx(12.04, abs=0.1)
    assert max(low) < middle[0]
    assert max(high) < middle[0]


def test_the_crest_of_a_sine_is_three_decibels() -> None:
    assert character_of(_contour(_sine(1000.0, 0.5, 9.0)), -10.0).crest_db == pytest.approx(3.01, abs=0.05)


def test_louder_is_no_distance_and_another_tone_is() -> None:
    song = music(seconds=8)
    plain, louder = _features(song), _features(song * np.float32(0.25))
    layout = Layout(RATE_HZ)
    counts = weights(layout, plain, plain)
    assert distance_db(louder, plain, counts) == pytest.approx(0.0, abs=0.02)
    darker = np.concatenate([song[:, :1], (song[:, 1:] + song[:, :-1]) / 2], axis=1)
    assert distance_db(_features(darker.astype(np.float32)), plain, counts) > 0.2
