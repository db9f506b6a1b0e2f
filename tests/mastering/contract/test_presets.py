"""Presets of one's own: added or in place of those shipped, and refused with the line that is wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mastering.contract import Fault, FaultCode
from mastering.contract.board import Compressor, Gain, HighpassFilter, PeakFilter
from mastering.contract.presets import presets

_DARK = """
[styles.dark]
title = "Dark"
for = "Less top"
board = [
  { processor = "HighShelfFilter", cutoff_frequency_hz = 5400, gain_db = -6 },
  { processor = "Compressor", threshold_db = -20, ratio = 2 },
  { processor = "Distortion", drive_db = 3 },
]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "own.toml"
    monkeypatch.setenv("MASTERING_PRESETS", str(path))
    presets.cache_clear()
    yield path
    presets.cache_clear()


def test_a_style_of_ones_own_stands_beside_those_shipped(own: Path) -> None:
    own.write_text(_DARK)
    found = presets().styles
    assert [each.processor for each in found["dark"].board] == ["HighShelfFilter", "Compressor", "Distortion"]
    assert {"neutral", "warm"} < found.keys()


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("drive_db = 3", "drive_db = 300"), 8, "styles.dark.board.2.drive_db"),
        (("drive_db", "driv_db"), 8, "styles.dark.board.2.drive_db: Field required"),
        (('"Distortion"', '"Reverb"'), 8, "'Reverb'"),
        (("ratio = 2", "ratio = 0.5"), 7, "styles.dark.board.1.ratio"),
        (('for = "Less top"', ""), 2, "styles.dark.for: Field required"),
        (("board = [", "curve = ["), 2, "filters of a board"),
        (("board", "bord"), 5, "styles.dark.bord"),
        (("[styles.dark]", "[stiles.dark]"), 2, "stiles"),
        (("drive_db = 3", "drive_db ="), 8, "line 8"),
        ((_DARK, "[targets.mine]\ntitle = 'A'\nfor = 'B'\nloudness_lufs = 5\nceiling_dbtp = -1"), 4, "loudness_lufs"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(own: Path, change: tuple[str, str], line: int, said: str) -> None:
    own.write_text(_DARK.replace(*change))
    with pytest.raises(Fault) as caught:
        presets()
    assert caught.value.code is FaultCode.BAD_SETTINGS
    assert f"line {line}" in str(caught.value)
    assert said in str(caught.value)
    assert str(own) not in str(caught.value)


@pytest.mark.parametrize("text", ["styles = 3", "[styles]\ndark = 3", "targets = []", "a = " + "[" * 5000])
def test_a_table_that_is_none_is_refused_in_a_sentence(own: Path, text: str) -> None:
    own.write_text(text)
    with pytest.raises(Fault) as caught:
        presets()
    assert caught.value.code is FaultCode.BAD_SETTINGS


def test_an_amount_scales_what_can_be_done_in_part() -> None:
    assert PeakFilter(cutoff_frequency_hz=100, gain_db=4).scaled(0.5).gain_db == 2
    assert Gain(gain_db=-3).scaled(0.5).gain_db == -1.5
    assert Compressor(threshold_db=-20, ratio=3).scaled(0.5).ratio == 2
    assert HighpassFilter(cutoff_frequency_hz=30).scaled(0.5) == HighpassFilter(cutoff_frequency_hz=30)
