"""What a fit's plans are compared by: each measure alone, on a whole song or on stretches from all over it."""

import numpy as np
import pytest

from mastering.dsp.features import Layout
from mastering.dsp.stream import BLOCK_FRAMES, stored
from mastering.engine import trial

LAYOUT = Layout(44_100)


def _features(**parts: float) -> np.ndarray:
    """A feature vector of zeros but for these parts."""
    found = np.zeros(LAYOUT.size)
    for name, value in parts.items():
        found[LAYOUT.parts[name]] = value
    return found


def test_what_lies_further_away_than_at_first_is_named_with_its_growth() -> None:
    measures = trial.Measures.of(LAYOUT, _features(), _features(mid=4.0, side=-5.0, crest=1.0))
    assert measures.grown(_features(mid=4.0, side=5.0, crest=-1.0)) == ""
    assert measures.grown(_features(mid=4.1, side=5.1)) == ""
    assert measures.grown(_features(mid=4.4, side=-6.0)) == "its side spectrum 1.00 dB (20 %) further away"


def test_a_measure_that_stays_next_to_nothing_is_met() -> None:
    measures = trial.Measures.of(LAYOUT, _features(), _features(width=0.01))
    assert measures.grown(_features(width=0.09, levels=0.1)) == ""
    assert measures.grown(_features(width=0.2)) == "its width 0.10 dB (100 %) further away"


def test_what_was_not_asked_for_is_no_measure() -> None:
    goal = _features()
    goal[LAYOUT.parts["crest"]] = np.nan
    goal[LAYOUT.parts["side"]] = np.nan
    measures = trial.Measures.of(LAYOUT, goal, _features())
    assert set(measures.names) == {"mid spectrum", "levels", "width"}
    assert measures.grown(_features(crest=30.0, side=30.0)) == ""


def test_bands_that_are_next_to_silent_in_both_count_nowhere() -> None:
    goal = _features(side=-150.0)
    measures = trial.Measures.of(LAYOUT, goal, _features(side=-150.0))
    assert "side spectrum" not in measures.names
    heard = trial.Measures.of(LAYOUT, goal, _features(side=-60.0))
    assert heard.grown(_features(side=-50.0)) == "its side spectrum 10.00 dB (100 %) further away"


@pytest.mark.parametrize(("stretches", "kept"), [(2, 2), (9, 3), (23, 3)])
def test_of_a_long_song_evenly_spread_stretches_are_tried(stretches: int, kept: int) -> None:
    width = 4 * BLOCK_FRAMES
    song = stored(np.repeat(np.arange(stretches, dtype=np.float32), width)[None, : stretches * width - 5], 44_100)
    found = trial.thinned(song, 3 * width / 44_100)
    heard = np.concatenate(list(found.read()), axis=1)[0]
    assert heard.size == found.frames == (kept * width if stretches > 3 else song.frames)
    chosen = np.unique(heard)
    assert chosen.size == kept
    assert np.diff(chosen).max(initial=1) - np.diff(chosen).min(initial=1) <= stretches // 3
    assert found.samples is None
