"""What the limiter must not leave behind: an offset made of asymmetric waves, a peak above the ceiling."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy import signal

from mastering.contract import OutputFormat, Settings
from mastering.engine import render, replay
from tests.mastering.sound import decoded, fine_true_peak_dbtp, loud_mix, master, wav


def _drum_and_bass(rate_hz: int = 44_100, channels: int = 2, seconds: float = 4.0) -> np.ndarray:
    """174 beats a minute: a kick and a bass that are higher than deep, snares, hats near the top of the band."""
    frames = round(seconds * rate_hz)
    noise = np.random.default_rng(1).standard_normal((channels, frames))
    noise = signal.sosfilt(signal.butter(8, 18_000, fs=rate_hz, output="sos"), noise)
    time = np.arange(frames) / rate_hz
    song = np.tile(0.4 * np.tanh(3 * np.sin(2 * np.pi * 50 * time + 2 * np.sin(2 * np.pi * 25 * time))), (channels, 1))
    step = 60 / 174 / 4
    for number in range(int(seconds / step)):
        first = round(number * step * rate_hz)
        since = np.arange(min(rate_hz // 5, frames - first)) / rate_hz
        part = song[:, first : first + since.size]
        if number % 16 in (0, 10):
            wave = np.sin(2 * np.pi * (50 * since + 8 * (1 - np.exp(-40 * since))))
            part += 0.9 * np.exp(-18 * since) * np.where(wave > 0, wave, 0.3 * wave)
        if number % 16 in (4, 12):
            part += 0.5 * np.exp(-22 * since) * noise[:, : since.size]
        part[:, 1:] += 0.2 * np.exp(-90 * since[1:]) * noise[:, 1 : since.size]
    return (0.9 * song / np.abs(song).max()).astype(np.float32)


@pytest.mark.parametrize(("rate_hz", "channels"), [(44_100, 2), (44_100, 1), (96_000, 2)])
def test_a_loud_master_has_no_offset_and_keeps_its_ceiling(rate_hz: int, channels: int) -> None:
    report, files = master(wav(_drum_and_bass(rate_hz, channels), rate_hz), Settings(target="club", amount_percent=0))
    done = decoded(files[OutputFormat.WAV24])
    assert np.abs(done.mean(axis=1)).max() <= 0.0005
    assert fine_true_peak_dbtp(done) <= -2.0 + 0.01
    assert report.plan.limiter is not None
    assert len(report.plan.limiter.parameters.offsets) == channels


def test_a_plan_with_an_offset_renders_to_the_same_samples() -> None:
    song = wav(_drum_and_bass())
    report, files = master(song, Settings(target="club"))
    assert report.plan.limiter is not None
    assert report.plan.limiter.parameters.offsets
    again = io.BytesIO()
    replay.render_plan(io.BytesIO(song), report.plan, open_output=lambda kind: again)
    assert again.getvalue() == files[OutputFormat.WAV24]


def test_silence_before_and_after_a_song_stays_near_silence_at_its_ends() -> None:
    song = np.pad(_drum_and_bass(seconds=3.0), ((0, 0), (22_050, 22_050)))
    _, files = master(wav(song), Settings(target="club", amount_percent=0))
    done = decoded(files[OutputFormat.WAV24])
    assert np.abs(done[:, [0, 1, -2, -1]]).max() < 1e-5
    assert np.abs(np.diff(done[:, :20_000])).max() < 1e-5


def test_the_guard_comes_to_an_end_by_a_lower_ceiling_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if no single block could be settled.
    monkeypatch.setattr(render, "_GUARD_ROUNDS", 2)
    report, files = master(wav(loud_mix(seconds=4)), Settings(target="club"))
    assert report.after.integrated_lufs == pytest.approx(report.plan.loudness_lufs, abs=0.1)
    assert fine_true_peak_dbtp(decoded(files[OutputFormat.WAV24])) <= -2.0 + 0.01
