"""A lossy coder's overshoot is found on an excerpt; the whole song is encoded once, and verified."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mastering.contract import OutputFormat, Settings
from mastering.dsp.limiter import Limiter
from mastering.dsp.stream import Audio, stored
from mastering.dsp.true_peak import PeakMeter
from mastering.engine import codec_trial, delivery, render
from tests.mastering.sound import loud_mix, master, music, wav

RATE_HZ = 8000


def _song(samples: np.ndarray, *, kept: bool = True) -> render.ShapedSong:
    audio = stored(samples, RATE_HZ)
    if not kept:
        audio = Audio(RATE_HZ, len(samples), samples.shape[1], audio.read)
    meter = PeakMeter(RATE_HZ)
    for block in audio.read():
        meter.feed(block)
    return render.ShapedSong(audio, meter.peaks(), np.zeros(1))


def _with_loud_seconds(seconds: int, loud: tuple[int, ...]) -> np.ndarray:
    at = np.arange(seconds * RATE_HZ)
    level = np.where(np.isin(at // RATE_HZ, loud), 0.9, 0.2)
    return np.tile(level * np.sin(2 * np.pi * 440 * at / RATE_HZ), (2, 1)).astype(np.float32)


def _curve(song: render.ShapedSong, ceiling_dbtp: float) -> np.ndarray:
    return Limiter(ceiling_dbtp).curve(song.peaks, 1.0, RATE_HZ)


@pytest.mark.parametrize("kept", [True, False])
def test_the_excerpt_is_where_the_song_is_near_its_ceiling(kept: bool) -> None:
    samples = _with_loud_seconds(40, loud=(7, 8, 30))
    song = _song(samples, kept=kept)
    found = codec_trial.excerpt(song, _curve(song, -1.0), -1.0)
    assert found is not None
    assert 3 * RATE_HZ <= found.audio.frames <= 4.5 * RATE_HZ
    assert found.peaks.size == -(-found.audio.frames // 4)
    loud = np.abs(found.audio.samples[0]) > 0.5
    assert loud.sum() == pytest.approx((np.abs(samples[0]) > 0.5).sum(), rel=0.01)
    assert np.abs(found.audio.samples[:, [0, -1]]).max() < 1e-3, "stretches begin and end in silence"


def test_there_is_no_excerpt_of_a_short_song_or_of_one_that_never_comes_near() -> None:
    for samples in (_with_loud_seconds(8, (3,)), _with_loud_seconds(40, ())):
        song = _song(samples)
        assert codec_trial.excerpt(song, _curve(song, -1.0), -1.0) is None


def test_the_whole_is_encoded_once_after_trials_on_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[float] = []

    def encode(audio: Audio, kind: OutputFormat, target: io.BytesIO, **how: object) -> None:
        lengths.append(audio.frames / audio.rate_hz)
        real(audio, kind, target, **how)  # type: ignore[arg-type]

    real = delivery.encode.encode
    monkeypatch.setattr(delivery.encode, "encode", encode)
    report, _ = master(wav(loud_mix(seconds=24)), Settings(target="cd", outputs=(OutputFormat.MP3,)))
    assert report.after.true_peak_dbtp <= -2.0 + 0.01
    assert [length for length in lengths if length > 12] == [24.0]
    assert lengths[-1] == 24.0
    assert len(lengths) > 1


def test_a_gain_is_settled_before_the_first_format_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hard-driven limiter takes is more than the solver reckons: each format found that out by itself."""
    written: list[OutputFormat] = []

    def encode(audio: Audio, kind: OutputFormat, target: io.BytesIO, **how: object) -> None:
        written.append(kind)
        real(audio, kind, target, **how)  # type: ignore[arg-type]

    real = delivery.encode.encode
    monkeypatch.setattr(delivery.encode, "encode", encode)
    settings = Settings(loudness_lufs=-7.5, ceiling_dbtp=-3.0, outputs=(OutputFormat.WAV24, OutputFormat.FLAC))
    report, _ = master(wav(music(seconds=6)), settings)
    assert report.after.integrated_lufs == pytest.approx(report.plan.loudness_lufs, abs=0.1)
    assert sorted(written) == [OutputFormat.FLAC, OutputFormat.WAV24]
