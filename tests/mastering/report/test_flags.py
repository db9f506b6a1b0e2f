"""Remarks on a source's flaws: each has a signal that calls for it, and one that does not."""

import numpy as np
import pytest

from mastering.dsp.spectrum import band_centres_hz, band_levels_db, bin_frequencies_hz
from mastering.engine.analyse import analyse, remarks
from mastering.engine.match import match
from tests.mastering.sound import music

_SONG = music(seconds=4)
_NOISE = np.random.default_rng(5).standard_normal(_SONG.shape).astype(np.float32) * 0.05


def _remarks(samples: np.ndarray, *, lossy: bool = False) -> str:
    found = analyse(iter([np.ascontiguousarray(samples, np.float32)]), 44_100, samples.shape[0])
    return " ".join(remarks(found.measurements, lossy=lossy))


_CALLS = {
    "Clipped": np.clip(4 * _SONG, -1, 1),
    "Already limited": 0.9 * np.tanh(40 * _SONG),
    "Mono source": _SONG[:1],
    "Both channels of the source are the same": np.repeat(_SONG[:1], 2, axis=0),
    "Inverted phase": np.stack([_SONG[0], -_SONG[0]]) + _NOISE * 0.1,
    "DC offset": _SONG + np.float32(0.01),
}


@pytest.mark.parametrize("flag", _CALLS)
def test_a_flag_is_raised_for_its_signal_and_not_for_plain_music(flag: str) -> None:
    assert flag in _remarks(_CALLS[flag])
    assert flag not in _remarks(_SONG)


def test_a_lossy_source_is_named_and_a_lossless_one_is_not() -> None:
    assert "Lossy source" in _remarks(_SONG, lossy=True)
    assert "Lossy source" not in _remarks(_SONG)


_HZ = bin_frequencies_hz(44_100)
_EVEN = np.full((2, _HZ.size), 1e-6)
_LEVELS = band_levels_db(_EVEN, 44_100)
_BAND = np.arange(len(band_centres_hz(44_100)))
_FAR = np.zeros_like(_LEVELS)
_FAR[0, 10], _FAR[0, 14], _FAR[1, 20] = 40.0, 40.0, 30.0
_REFERENCES = {
    "3 bands lie further from the reference than the 24 dB": (_EVEN, _LEVELS + _FAR),
    "bands of the song are so quiet that lifting them": (np.where(_HZ > 8000, 1e-16, _EVEN), _LEVELS),
    "Reference mismatch": (_EVEN, _LEVELS + 9.0 * (-1.0) ** _BAND),
}


@pytest.mark.parametrize("flag", _REFERENCES)
def test_a_match_that_falls_short_says_why_and_one_that_does_not_says_nothing(flag: str) -> None:
    source, reference = _REFERENCES[flag]
    assert flag in " ".join(match(source, 44_100, reference, 1.0).remarks)
    assert match(_EVEN, 44_100, _LEVELS + np.where(_BAND < 8, 3.0, 0.0), 1.0).remarks == ()
