"""The limiter's gain over time: it holds still between the peaks of a steady tone, and is soon back after a click."""

import numpy as np
import pytest

from mastering.dsp.limiter import Limiter, apply
from mastering.dsp.true_peak import PeakMeter, Peaks, block_length

RATE_HZ = 44_100


@pytest.mark.parametrize("hz", [50.0, 100.0, 1000.0])
def test_a_limited_tone_has_next_to_no_harmonics(hz: float) -> None:
    tone = np.sin(2 * np.pi * hz * np.arange(3 * RATE_HZ) / RATE_HZ).astype(np.float32)[None]
    meter = PeakMeter(RATE_HZ)
    meter.feed(tone)
    limited = apply(tone, Limiter(-1.0).curve(meter.peaks(), 2.0, RATE_HZ), 0, block_length(RATE_HZ))
    middle = limited[0, RATE_HZ : 2 * RATE_HZ].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle * np.blackman(middle.size)))
    strongest = int(spectrum.argmax())
    assert strongest == round(hz)
    harmonics = spectrum[strongest + 10 :]
    assert 20 * np.log10(harmonics.max() / spectrum[strongest]) < -70


def _peaks(samples: np.ndarray) -> Peaks:
    meter = PeakMeter(RATE_HZ)
    meter.feed(samples)
    return meter.peaks()


def _taken_for_s(samples: np.ndarray, limits: Limiter, gain: float, more_than_db: float) -> float:
    """For how long the limiter takes so much."""
    taken_db = 20 * np.log10(gain / limits.curve(_peaks(samples), gain, RATE_HZ))
    return float((taken_db > more_than_db).sum() * block_length(RATE_HZ) / RATE_HZ)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_pop_in_a_quiet_song_is_a_short_dip(channels: int) -> None:
    quiet = np.tile(0.01 * np.sin(2 * np.pi * 220 * np.arange(3 * RATE_HZ) / RATE_HZ), (channels, 1))
    quiet[0, RATE_HZ] = 0.9
    # The slowest release alone would take 0.28 s for these 33 dB.
    assert _taken_for_s(quiet.astype(np.float32), Limiter(-1.0), 10 ** (34 / 20), 1.0) < 0.07


def test_a_blow_that_lasts_recovers_at_the_slow_pace() -> None:
    samples = np.full(2 * RATE_HZ, 0.01)
    samples[RATE_HZ // 2 :][: RATE_HZ // 5] = 0.9
    samples *= np.sin(2 * np.pi * 60 * np.arange(samples.size) / RATE_HZ)
    taken_s = _taken_for_s(samples[None].astype(np.float32), Limiter(-1.0), 10 ** (34 / 20), 1.0)
    assert 0.2 + 32 / 120 < taken_s < 0.2 + 32 / 120 + 0.05
