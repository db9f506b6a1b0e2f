"""The whole trip: loudness and true peak by meters that are not ours, length, format, progress and cancel."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal

from mastering.contract import OutputFormat, Settings, Stage
from mastering.engine import inputs
from tests.mastering.sound import SONGS, ebur128, fine_true_peak_dbtp, loud_mix, master, music, real_song, wav


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
@pytest.mark.parametrize("target", ["streaming", "cd"])
def test_master_meets_loudness_and_ceiling_by_ffmpegs_meter(
    target: str, rate_hz: int, channels: int, tmp_path: Path
) -> None:
    song = (music if target == "streaming" else loud_mix)(rate_hz, channels, 8.0)
    report, files = master(wav(song, rate_hz), Settings(target=target))
    loudness, peak = ebur128(files[OutputFormat.WAV24], "wav", tmp_path)
    wished, ceiling = {"streaming": (-14.0, -1.0), "cd": (-9.0, -2.0)}[target]
    goal = report.plan.loudness_lufs
    # One channel at −9 LUFS is as dense as two at −6: a bound may lower the goal, and says so.
    assert goal == wished or (channels == 1 and any(flag.startswith("Stopped short") for flag in report.flags))
    # ffmpeg prints one decimal: 0.1 of error may read as 0.1 more of rounding at most.
    assert loudness == pytest.approx(goal, abs=0.1001)
    assert report.after.integrated_lufs == pytest.approx(goal, abs=0.1)
    assert peak <= ceiling + 0.05


@pytest.mark.songs
@pytest.mark.parametrize("target", ["streaming", "cd"])
@pytest.mark.parametrize("name", SONGS)
def test_real_song_meets_loudness_and_ceiling_at_48_khz_too(name: str, target: str, tmp_path: Path) -> None:
    source = real_song(name).read_bytes()
    wished, ceiling = {"streaming": (-14.0, -1.0), "cd": (-9.0, -2.0)}[target]
    # One song at each rate: the other pairs are the synthesised songs' above.
    rate_hz = 48_000 if (target == "cd") == (name == SONGS[0]) else None
    report, files = master(source, Settings(target=target, rate_hz=rate_hz))
    loudness, peak = ebur128(files[OutputFormat.WAV24], "wav", tmp_path)
    assert loudness == pytest.approx(wished, abs=0.1001)
    assert peak <= ceiling + 0.05
    assert report.after.rate_hz == (rate_hz or 44_100)


@pytest.mark.parametrize("target", ["streaming", "club"])
def test_no_point_of_the_wave_passes_the_ceiling(target: str) -> None:
    # Noise up to the top of the band that ears and converters use makes the highest peaks between samples.
    noise = np.random.default_rng(5).standard_normal((2, 6 * 44_100)) * 0.1
    audible = signal.butter(16, 20_000, fs=44_100, output="sos")
    song = signal.sosfiltfilt(audible, music(seconds=6) + noise).astype(np.float32)
    report, files = master(wav(song), Settings(target=target))
    samples, _ = soundfile.read(io.BytesIO(files[OutputFormat.WAV24]), always_2d=True)
    assert fine_true_peak_dbtp(samples.T) <= report.plan.ceiling_dbtp + 0.01


def test_master_has_the_frames_rate_and_channels_of_its_source() -> None:
    song = music(48_000, 2, 5.0)
    _, files = master(wav(song, 48_000), Settings(outputs=(OutputFormat.WAV24, OutputFormat.WAV16, OutputFormat.FLAC)))
    subtypes = {OutputFormat.WAV24: "PCM_24", OutputFormat.WAV16: "PCM_16", OutputFormat.FLAC: "PCM_24"}
    for kind, subtype in subtypes.items():
        info = soundfile.info(io.BytesIO(files[kind]))
        assert (info.frames, info.samplerate, info.channels, info.subtype) == (song.shape[1], 48_000, 2, subtype)


def test_mp3_holds_loudness_and_ceiling_after_its_own_decoding(tmp_path: Path) -> None:
    _, files = master(wav(loud_mix(seconds=6)), Settings(target="cd", outputs=(OutputFormat.MP3,)))
    loudness, peak = ebur128(files[OutputFormat.MP3], "mp3", tmp_path)
    assert loudness == pytest.approx(-9.0, abs=0.1001)
    assert peak <= -2.0 + 0.05


def test_progress_is_monotonic_frequent_and_ends_at_one() -> None:
    seen: list[tuple[Stage, float]] = []
    master(wav(music(seconds=20)), Settings(), progress=lambda stage, fraction: seen.append((stage, fraction)))
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) > 50
    assert {stage for stage, _ in seen} >= {Stage.DECODE, Stage.ANALYSE, Stage.RENDER, Stage.ENCODE, Stage.VERIFY}


@pytest.mark.parametrize("stage", [Stage.DECODE, Stage.ANALYSE, Stage.RENDER, Stage.ENCODE, Stage.VERIFY])
def test_what_progress_raises_ends_the_render_at_once(stage: Stage) -> None:
    class Stop(Exception):
        pass

    calls_after = 0

    def progress(now: Stage, fraction: float) -> None:
        nonlocal calls_after
        if now is stage:
            calls_after += 1
            raise Stop

    with pytest.raises(Stop):
        master(wav(music(seconds=5)), Settings(), progress=progress)
    assert calls_after == 1


def test_a_song_too_long_to_keep_is_mastered_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    source = wav(music(seconds=8))
    kept = master(source, Settings())[1]
    monkeypatch.setattr(inputs, "KEEP_SAMPLES", 0)
    assert master(source, Settings())[1] == kept


def test_a_loudness_out_of_reach_is_said_and_not_forced() -> None:
    quiet = Settings(loudness_lufs=-5.0, ceiling_dbtp=-9.0)
    report, _ = master(wav(music(seconds=5)), quiet)
    assert report.after.integrated_lufs is not None
    assert report.after.integrated_lufs < -6
    assert report.after.true_peak_dbtp <= -9.0 + 0.01
    step = report.plan.step("loudness")
    assert step is not None
    assert "the limiter would take" in step.reason
    assert report.plan.loudness_lufs == pytest.approx(report.after.integrated_lufs, abs=0.1)
    assert any(flag.startswith("Stopped short of the loudness asked for") for flag in report.flags)
