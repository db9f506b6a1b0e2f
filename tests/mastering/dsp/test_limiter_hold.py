"""A steady tone keeps its shape under the limiter: the gain holds still between its peaks."""

import numpy as np
import pytest

from mastering.dsp.limiter import Limiter, apply
from mastering.dsp.true_peak import PeakMeter, block_length

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
