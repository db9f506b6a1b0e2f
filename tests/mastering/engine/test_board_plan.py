"""What the board is given to do: clean-up that is asked for, bass that may be folded, the style at its amount."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mastering.contract import Plan, Settings
from mastering.contract.board import Compressor, Gain, HighpassFilter
from mastering.contract.presets import Style, presets
from mastering.dsp.board import Board, gains
from mastering.engine import board_plan, pipeline, steps
from mastering.engine.board_script import as_pedalboard
from tests.mastering.sound import master, music, wav

RATE_HZ = 44_100


def _plan(samples: np.ndarray, **settings: object) -> Plan:
    return pipeline.make_plan(io.BytesIO(wav(samples)), Settings.model_validate(settings))


def _bass(hz: float = 50.0, seconds: float = 4.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def _band_db(samples: np.ndarray, low_hz: float = 25.0, high_hz: float = 110.0) -> np.ndarray:
    power = np.abs(np.fft.rfft(samples.astype(np.float64), axis=-1)) ** 2
    hz = np.fft.rfftfreq(samples.shape[-1], 1 / RATE_HZ)
    found: np.ndarray = 10 * np.log10(power[..., (hz >= low_hz) & (hz < high_hz)].sum(axis=-1) + 1e-12)
    return found


@pytest.mark.parametrize("style", sorted(presets().styles))
def test_every_styles_board_has_processors_with_reasons_and_bypassing_it_changes_samples(style: str) -> None:
    samples = music(seconds=3)
    board = _plan(samples, style=style).board
    assert board is not None
    assert all(each.reason for each in board.parameters.processors)
    shipped = presets().styles[style].board
    assert len(board.parameters.processors) >= 2 + len(shipped)
    done = Board(board.parameters.processors, RATE_HZ, 2).feed(samples)
    assert np.abs(done - samples).max() > 1e-4


def test_an_amount_of_none_leaves_clean_up_alone() -> None:
    board = _plan(music(seconds=3), style="open", amount_percent=0).board
    assert board is not None
    assert all(isinstance(each, HighpassFilter) and each.on == "both" for each in board.parameters.processors)


def test_half_an_amount_is_half_the_decibels() -> None:
    style, hz = presets().styles["bright"], np.array([60.0, 250.0, 8000.0])
    half, whole = (20 * np.log10(board_plan.style_gains(style, amount, RATE_HZ, hz)) for amount in (0.5, 1.0))
    np.testing.assert_allclose(half, whole / 2, atol=0.1)
    assert np.abs(whole).max() > 1.5


def test_an_offset_is_taken_out_and_deep_bass_is_kept() -> None:
    board = _plan(music(seconds=3) * np.float32(0.5) + np.float32(0.05)).board
    assert board is not None
    assert "offset" in board.reason
    in_db = 20 * np.log10(gains(board.parameters.processors, RATE_HZ, np.array([0.5, 41.0]))[0] + 1e-9)
    assert in_db[0] < -30
    assert in_db[1] > -2.0


def test_a_wide_bass_is_folded_to_the_centre() -> None:
    tone = _bass()
    samples = music(seconds=4) * np.float32(0.2) + np.stack([tone, tone * np.float32(0.25)])
    board = _plan(samples).board
    assert board is not None
    assert "folds the bass" in board.reason
    done = Board(board.parameters.processors, RATE_HZ, 2).feed(samples)
    assert _band_db(done[0] - done[1]) < _band_db(samples[0] - samples[1]) - 3
    # Mid and side by themselves, because the bass moves from the left to both.
    mid_db = _band_db(done.sum(axis=0)) - _band_db(samples.sum(axis=0))
    assert mid_db > -0.2


@pytest.mark.parametrize(
    ("left", "right"),
    [(1.0, -1.0), (1.0, 0.0), (0.0, 1.0), (1.0, -0.5)],
    ids=["side only", "left", "right", "turned"],
)
@pytest.mark.parametrize("style", ["neutral", "punchy"])
def test_a_bass_out_of_phase_or_on_one_side_stays_as_it_is_and_that_is_said(
    left: float, right: float, style: str
) -> None:
    samples = np.stack([left * _bass(), right * _bass()]) + music(seconds=4) * np.float32(0.05)
    report, _ = master(wav(samples), Settings(style=style))
    board = report.plan.board
    assert board is not None
    assert "folds" not in board.reason
    assert any(flag.startswith("The bass below 110 Hz stays") for flag in report.flags)
    done = Board(board.parameters.processors, RATE_HZ, 2).feed(samples.astype(np.float32))
    whole = _band_db(samples, 25, 20_000) - _band_db(done, 25, 20_000)
    assert np.all(_band_db(samples) - _band_db(done) - whole < 3)


def test_a_song_on_one_side_stays_there() -> None:
    samples = music(seconds=4)
    samples[1] = 0
    _, files = master(wav(samples), Settings(style="open"))
    done, _ = soundfile.read(io.BytesIO(next(iter(files.values()))))
    level = 20 * np.log10(done.std(axis=0) + 1e-12)
    # The style widens, which is all that the other side may get of it.
    assert level[1] < level[0] - 18
    _, files = master(wav(samples), Settings())
    done, _ = soundfile.read(io.BytesIO(next(iter(files.values()))))
    assert np.abs(done[:, 1]).max() < 2**-21


def test_level_dependent_processors_of_a_style_get_every_song_at_one_level() -> None:
    style = Style.model_validate(
        {"title": "A", "for": "B", "board": [{"processor": "Compressor", "threshold_db": -12, "ratio": 3}]}
    )
    quiet, loud = (board_plan.styled(style, 1.0, lufs) for lufs in (-30.0, -10.0))
    assert [each.gain_db for each in quiet if isinstance(each, Gain)] == [12.0, -12.0]
    assert [each.gain_db for each in loud if isinstance(each, Gain)] == [-8.0, 8.0]
    assert isinstance(quiet[1], Compressor)


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 192_000])
def test_every_style_has_a_board_at_every_rate(rate_hz: int) -> None:
    source = wav(music(rate_hz, seconds=2), rate_hz)
    for style in ("warm", "open"):
        plan = pipeline.make_plan(io.BytesIO(source), Settings(style=style))
        assert plan.board is not None


def test_octave_bells_come_near_a_smooth_curve() -> None:
    from mastering.dsp.spectrum import band_centres_hz

    centres = np.array(band_centres_hz(RATE_HZ))
    wanted = np.stack([3 * np.sin(np.log(centres)), -2 * np.cos(np.log(centres))])
    bells = board_plan.octave_bells(wanted, RATE_HZ, "Because.")
    got = 20 * np.log10(gains(bells, RATE_HZ, centres))
    inside = (centres > 60) & (centres < 12_000)
    assert np.abs(got - wanted)[:, inside].mean() < 0.25
    assert {each.on for each in bells} == {"mid", "side"}
    assert {each.on for each in board_plan.octave_bells(wanted[[0, 0]], RATE_HZ, "")} == {"both"}


@pytest.mark.parametrize(("style", "channels"), [("warm", 2), ("open", 2), ("loud", 1)])
def test_the_script_of_a_plan_gives_the_boards_samples(style: str, channels: int, tmp_path: Path) -> None:
    samples = music(channels=channels, seconds=3)
    source, script, target = tmp_path / "song.wav", tmp_path / "board.py", tmp_path / "shaped.wav"
    source.write_bytes(wav(samples))
    plan = _plan(samples, style=style)
    script.write_text(as_pedalboard(plan, channels), "utf-8")
    subprocess.run([sys.executable, "-I", script, source, target], check=True, timeout=120)
    done, _ = soundfile.read(target, dtype="float32", always_2d=True)
    assert np.array_equal(done.T, Board(steps.processors(plan.board), RATE_HZ, channels).feed(samples))
