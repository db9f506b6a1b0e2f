"""Recordings that a loudness would ruin: driven so far and no further, with the bound in the plan and in the report."""

from __future__ import annotations

import numpy as np
import pytest

from mastering.contract import OutputFormat, Report, Settings
from mastering.contract.presets import presets
from mastering.engine import bounds
from tests.mastering.sound import decoded, master, music, wav

RATE_HZ = 44_100


def _noise(level_dbfs: float, seconds: float, rate_hz: int = RATE_HZ, channels: int = 2) -> np.ndarray:
    """Pink noise, from 20 Hz on."""
    bins = np.fft.rfft(np.random.default_rng(7).standard_normal((channels, round(seconds * rate_hz))))
    bins[:, 1:] /= np.sqrt(np.maximum(np.fft.rfftfreq(round(seconds * rate_hz), 1 / rate_hz)[1:], 20.0))
    bins[:, 0] = 0.0
    noise = np.fft.irfft(bins, round(seconds * rate_hz))
    return noise * (10 ** (level_dbfs / 20) / np.sqrt(np.mean(noise**2)))


def _solo(rate_hz: int, channels: int) -> np.ndarray:
    """Three plucked notes with long pauses, over hiss at −93 dBFS."""
    time = np.arange(9 * rate_hz) / rate_hz
    song = _noise(-93.0, 9.0, rate_hz, channels)
    for start_s, hz in ((0, 349.2), (3, 440.0), (6, 523.3)):
        since = np.maximum(time - start_s, 0.0)
        song += 0.8 * np.where(time >= start_s, np.exp(-15 * since), 0.0) * np.sin(2 * np.pi * hz * since)
    return song


def _clicks(seconds: float = 6.0) -> np.ndarray:
    """Clicks of 0 dBFS, one a second, over pink noise at −80 dBFS."""
    song = _noise(-80.0, seconds)
    song[:, RATE_HZ // 2 :: RATE_HZ] = 0.999
    return song.astype(np.float32)


def _is_said(report: Report, *words: str) -> bool:
    return any(all(word in flag for word in words) for flag in report.flags)


@pytest.mark.parametrize(("rate_hz", "channels"), [(44_100, 2), (44_100, 1), (96_000, 2)])
def test_a_sparse_solo_stops_short_of_a_club_and_says_so(rate_hz: int, channels: int) -> None:
    report, _ = master(wav(_solo(rate_hz, channels), rate_hz), Settings(target="club", amount_percent=0))
    assert report.plan.loudness is not None
    assert report.plan.loudness_lufs < -9
    assert report.after.integrated_lufs == pytest.approx(report.plan.loudness_lufs, abs=0.1)
    assert report.plan.loudness.parameters.most_reduction_db == bounds.BOUNDS.most_reduction_db
    assert report.plan.loudness.parameters.most_noise_lufs == bounds.BOUNDS.most_noise_lufs
    assert report.plan.loudness.parameters.gain_db < 20
    assert _is_said(report, "Stopped short", f"{report.plan.loudness_lufs:.1f} LUFS", "-8.0", "noise")


@pytest.mark.parametrize("style", sorted(presets().styles))
def test_clicks_over_noise_are_mastered_in_every_style_and_no_noise_comes_before_a_click(style: str) -> None:
    source = _clicks()
    report, files = master(wav(source), Settings(style=style))
    assert report.after.integrated_lufs == pytest.approx(report.plan.loudness_lufs, abs=0.1)
    assert _is_said(report, "Stopped short", "limiter would take", "noise in the quiet passages comes up from")
    done = decoded(files[OutputFormat.WAV24])
    before = [slice(at - RATE_HZ // 50, at - RATE_HZ // 1000) for at in range(RATE_HZ // 2, done.shape[1], RATE_HZ)]
    quiet = [slice(at - RATE_HZ // 5, at - RATE_HZ // 20) for at in range(RATE_HZ // 2, done.shape[1], RATE_HZ)]
    level = {
        name: np.sqrt(np.mean([np.mean(done[:, at] ** 2) for at in spans]))
        for name, spans in (("before", before), ("quiet", quiet))
    }
    assert 20 * np.log10(level["quiet"] / 1e-4) < 20
    assert 20 * np.log10(level["before"] / level["quiet"]) < 3


def test_a_pop_costs_a_quiet_song_neither_loudness_nor_more_than_a_moment() -> None:
    quiet = music(seconds=6) * np.float32(10 ** (-30 / 20))
    popping = quiet.copy()
    popping[:, 3 * RATE_HZ] = 0.9
    (_, clean), (report, files) = (master(wav(song), Settings()) for song in (quiet, popping))
    assert report.after.integrated_lufs == pytest.approx(-14, abs=0.1)
    assert not _is_said(report, "Stopped short")
    levels = [
        np.sqrt(
            np.mean(decoded(found[OutputFormat.WAV24])[:, : 6 * RATE_HZ].reshape(2, -1, RATE_HZ // 50) ** 2, (0, 2))
        )
        for found in (clean, files)
    ]
    changed_db = np.abs(20 * np.log10(levels[1] / levels[0]) - np.median(20 * np.log10(levels[1] / levels[0])))
    # In slices of 20 ms: the pop's own, and those in which the gain comes back.
    assert (changed_db > 1.0).sum() <= 5


@pytest.mark.parametrize("level", [1.0, 17_500.0])
def test_one_click_in_silence_is_mastered_without_lifting_silence(level: float) -> None:
    song = _noise(-110.0, 4.0)
    song[:, 2 * RATE_HZ] = level
    report, _ = master(wav(song), Settings())
    assert -1.2 < report.after.true_peak_dbtp <= -0.99
    assert report.after.integrated_lufs == pytest.approx(report.plan.loudness_lufs, abs=0.1)
    assert _is_said(report, "Stopped short")


@pytest.mark.parametrize("target", ["streaming", "club"])
def test_samples_on_the_scale_of_16_bits_come_down_to_it(target: str) -> None:
    report, _ = master(wav(music(seconds=4) * np.float32(17_500)), Settings(target=target))
    assert report.after.integrated_lufs == pytest.approx(report.plan.loudness_lufs, abs=0.1)
    assert _is_said(report, "far beyond full scale")


def test_a_sample_that_flew_off_does_not_silence_a_song() -> None:
    song = music(seconds=6)
    song[:, 3 * RATE_HZ] = 17_500.0
    report, _ = master(wav(song), Settings())
    assert report.after.integrated_lufs == pytest.approx(-14, abs=0.1)


@pytest.mark.parametrize("target", ["streaming", "broadcast", "cd"])
def test_a_healthy_song_is_as_loud_as_asked(target: str) -> None:
    report, _ = master(wav(music(seconds=6)), Settings(target=target))
    assert report.plan.loudness_lufs == presets().targets[target].loudness_lufs
    assert not _is_said(report, "Stopped short")
