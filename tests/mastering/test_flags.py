"""Honest remarks: each has a signal that calls for it, and one that does not."""

import numpy as np
import pytest

from mastering.analyse import analyse, remarks
from tests.mastering.sound import music

_SONG = music(seconds=4)
_NOISE = np.random.default_rng(5).standard_normal(_SONG.shape).astype(np.float32) * 0.05


def _said(samples: np.ndarray, *, lossy: bool = False) -> str:
    heard = analyse(iter([np.ascontiguousarray(samples, np.float32)]), 44_100, samples.shape[0])
    return " ".join(remarks(heard.measurements, lossy=lossy))


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
    assert flag in _said(_CALLS[flag])
    assert flag not in _said(_SONG)


def test_a_lossy_source_is_named_and_a_lossless_one_is_not() -> None:
    assert "Lossy source" in _said(_SONG, lossy=True)
    assert "Lossy source" not in _said(_SONG)
