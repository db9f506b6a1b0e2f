"""Every master is read by two sets of meters before it is delivered, and neither is believed alone."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mastering.contract import Fault, FaultCode, OutputFormat, Readings, Settings
from mastering.dsp import second_meter
from mastering.engine import pipeline, replay, verify
from tests.mastering.sound import loud_mix, master, music, wav


def test_the_report_has_both_readings_of_every_format() -> None:
    formats = (OutputFormat.MP3, OutputFormat.WAV24, OutputFormat.WAV16)
    report, _ = master(wav(music(seconds=3)), Settings(outputs=formats))
    assert [check.output for check in report.checks] == ["wav24", "wav16", "mp3"]
    for check in report.checks:
        assert check.second is not None
        assert check.second.integrated_lufs == pytest.approx(-14.0, abs=0.1)
        assert check.ours.integrated_lufs == pytest.approx(check.second.integrated_lufs, abs=0.01)
        assert check.ours.true_peak_dbtp == pytest.approx(check.second.true_peak_dbtp, abs=0.02)


def test_without_the_second_meters_the_master_is_the_same() -> None:
    alone, both = io.BytesIO(), io.BytesIO()
    song = wav(music(seconds=3))
    report = pipeline.master(io.BytesIO(song), Settings(), open_output=lambda kind: alone, twice=False)
    pipeline.master(io.BytesIO(song), Settings(), open_output=lambda kind: both)
    assert alone.getvalue() == both.getvalue()
    assert [check.second for check in report.checks] == [None]


@pytest.mark.parametrize(
    ("meter", "method", "reading", "figures"),
    [
        (second_meter._Loudness, "integrated_lufs", -13.7, ("-13.70 LUFS", "-14.")),
        (second_meter._Loudness, "integrated_lufs", None, ("none", "-14.")),
        (second_meter._TruePeak, "highest", 0.5, ("-6.02 dBTP by soxr", "-6.9")),
    ],
)
def test_meters_that_disagree_fail_the_master_with_both_figures(
    monkeypatch: pytest.MonkeyPatch, meter: type, method: str, reading: float | None, figures: tuple[str, ...]
) -> None:
    song, finished = wav(loud_mix(seconds=3)), io.BytesIO()
    report = pipeline.master(io.BytesIO(song), Settings(), open_output=lambda kind: finished)
    monkeypatch.setattr(meter, method, lambda self: reading)
    with pytest.raises(Fault) as caught:
        master(song, Settings())
    assert caught.value.code is FaultCode.BAD_MASTER
    for figure in figures:
        assert figure in caught.value.message
    with pytest.raises(Fault, match="failed its check"):
        replay.render_plan(io.BytesIO(song), report.plan, open_output=lambda kind: io.BytesIO())


@pytest.mark.parametrize("apart", [0.09, 0.11])
def test_the_bounds_of_an_agreement(apart: float) -> None:
    ours = Readings(integrated_lufs=-14.0, true_peak_dbtp=-1.0)
    for second in (
        Readings(integrated_lufs=-14.0 - apart, true_peak_dbtp=-1.0),
        Readings(integrated_lufs=-14.0, true_peak_dbtp=-1.0 + apart),
    ):
        assert len(verify.disagreements(ours, second)) == (apart > 0.1)


def test_a_song_that_reaches_above_soxrs_band_has_a_master_within_the_ceiling_by_both() -> None:
    """White noise is a tenth of a dB or more higher or lower without its highest twentieth: no meter is wrong."""
    random = np.random.default_rng(5)
    noise = np.clip(random.normal(0, 0.1, (2, 44_100 * 2)), -0.15, 0.15).astype(np.float32)
    report, _ = master(wav(noise), Settings(target="cd", ceiling_dbtp=-1.0))
    second = report.checks[0].second
    assert second is not None
    assert abs(second.true_peak_dbtp - report.after.true_peak_dbtp) > 0.1, "else this shows nothing"
    assert second.true_peak_dbtp <= -1.0 + 0.1
    assert report.after.true_peak_dbtp <= -1.0 + 0.01
