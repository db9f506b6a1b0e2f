"""The second meters: pyloudnorm reads of pieces what it reads of all, soxr of some windows what it reads of all."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest
import soxr

from mastering.dsp import second_meter
from mastering.dsp.second_meter import SecondMeter, as_heard
from mastering.dsp.stream import Samples, split
from tests.mastering.sound import music


def _noise(rate_hz: int, channels: int, seconds: float) -> Samples:
    random = np.random.default_rng(rate_hz)
    return random.normal(0, 0.1, (channels, round(rate_hz * seconds))).astype(np.float32)


def _read(samples: Samples, rate_hz: int, size: int = 1 << 17) -> tuple[float | None, float]:
    with SecondMeter(rate_hz, len(samples)) as meter:
        for start in range(0, samples.shape[1], size):
            meter.feed(samples[:, start : start + size])
        return meter.readings()


def _by_pyloudnorm(samples: Samples, rate_hz: int) -> float:
    whole = np.ascontiguousarray(samples.T, np.float64)
    return float(pyloudnorm.Meter(rate_hz, filter_class="DeMan").integrated_loudness(whole))


@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 1), (11_025, 2), (44_100, 2), (48_000, 1), (96_000, 2)])
@pytest.mark.parametrize("piece_s", [1, 3])
def test_pieces_have_the_loudness_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, rate_hz: int, channels: int, piece_s: int
) -> None:
    monkeypatch.setattr(second_meter, "_PIECE_FRAMES", piece_s * rate_hz)
    song = _noise(rate_hz, channels, 7.3)
    song[:, 2 * rate_hz : 4 * rate_hz] *= 0.01
    whole_steps = song[:, : song.shape[1] * 10 // rate_hz * rate_hz // 10]
    loudness, _ = _read(song, rate_hz, size=30_011)
    # A gating block may begin a frame earlier at rates that have no whole number of frames in 100 ms.
    assert loudness == pytest.approx(_by_pyloudnorm(whole_steps, rate_hz), abs=1e-9 if rate_hz % 10 == 0 else 1e-4)


@pytest.mark.parametrize("seconds", [1.0, 2.05, 2.35, 2.45, 3.0])
def test_an_end_anywhere_in_a_piece_is_read(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(second_meter, "_PIECE_FRAMES", 8000)
    song = _noise(8000, 2, seconds)
    whole_steps = song[:, : int(seconds * 10 + 1e-9) * 800]
    assert _read(song, 8000)[0] == pytest.approx(_by_pyloudnorm(whole_steps, 8000), abs=1e-9)


def test_silence_has_no_loudness() -> None:
    assert _read(np.zeros((2, 20_000), np.float32), 8000) == (None, 0.0)


@pytest.mark.parametrize("drive", [1, 6])
def test_the_true_peak_is_that_of_a_resampling_of_the_whole(drive: float) -> None:
    song = np.tanh(drive * music(44_100, 2, 2)).astype(np.float32)
    _, found = _read(song, 44_100, size=10_007)
    whole = soxr.resample(np.ascontiguousarray(song.T), 44_100, 16 * 44_100, "VHQ")
    assert 20 * np.log10(found / np.abs(whole).max()) == pytest.approx(0, abs=0.001)


def test_a_click_is_as_high_as_its_sample_wherever_it_is() -> None:
    for place in (0, 5000, 9999):
        song = np.zeros((1, 10_000), np.float32)
        song[0, place] = -0.8
        assert _read(song, 44_100)[1] == pytest.approx(0.8, rel=1e-6)


def test_what_soxr_hears_is_the_song_below_its_band_and_nothing_above() -> None:
    seconds = np.arange(30_000) / 44_100
    low, high = np.sin(2 * np.pi * 15_000 * seconds), np.sin(2 * np.pi * 21_900 * seconds)
    song = np.stack([low + high, low]).astype(np.float32) * np.float32(0.4)
    heard = np.concatenate(list(as_heard(split(song), 44_100, 2)), axis=1)
    assert heard.shape == song.shape
    inner = slice(2000, -2000)
    assert np.abs(heard[:, inner] - 0.4 * low[inner]).max() < 1e-4


def test_an_error_in_a_meters_thread_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(second_meter._TruePeak, "feed", fail)
    with pytest.raises(MemoryError):
        _read(_noise(8000, 2, 1), 8000)
