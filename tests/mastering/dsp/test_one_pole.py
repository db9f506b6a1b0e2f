"""The filter of one pole, against the slow exact form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from mastering.dsp.loudness import k_power_gain, k_weighting
from mastering.dsp.one_pole import one_pole


@pytest.mark.parametrize("pole", [0.0, 0.3, 0.97, 0.99999, 0.7 + 0.7j, -0.5j])
@pytest.mark.parametrize("frames", [1, 2, 63, 1024])
def test_it_gives_what_the_recursion_gives(pole: complex, frames: int) -> None:
    random = np.random.default_rng(frames)
    x = random.standard_normal((3, frames)) * (1 if isinstance(pole, float) else 1 + 1j)
    before = random.standard_normal((3, 1)) * (1 if isinstance(pole, float) else 1j)
    expected, _ = signal.lfilter([1.0], [1.0, -pole], x, axis=1, zi=pole * before)
    np.testing.assert_allclose(one_pole(x, pole, before), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.floats(0.0, 0.9999))
def test_pieces_give_what_the_whole_gives(sizes: list[int], pole: float) -> None:
    x = np.random.default_rng(0).standard_normal((2, sum(sizes)))
    before, pieces = np.zeros((2, 1)), []
    for piece in np.split(x, np.cumsum(sizes)[:-1], axis=1):
        pieces.append(one_pole(piece, pole, before))
        before = pieces[-1][:, -1:]
    whole = one_pole(x, pole, np.zeros((2, 1)))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=0, atol=1e-12 * np.abs(whole).max())


def test_the_input_stays_as_it_is() -> None:
    x = np.ones((1, 8))
    one_pole(x, 0.5, np.ones((1, 1)))
    assert (x == 1).all()


@pytest.mark.parametrize("rate_hz", [8000, 44_100, 192_000])
def test_the_gain_of_the_k_weighting_is_that_of_its_sections(rate_hz: int) -> None:
    hz = np.geomspace(20, rate_hz / 2.1, 40)
    _, response = signal.freqz_sos(k_weighting(rate_hz), worN=hz, fs=rate_hz)
    np.testing.assert_allclose(k_power_gain(hz, rate_hz), np.abs(response) ** 2, rtol=1e-9)
