"""The board as physics: each filter's gain is its formula's, nothing sounds before a click, no sound moves aside."""

import numpy as np
import pytest

from mastering.contract.board import (
    Clipping,
    Compressor,
    Distortion,
    Gain,
    HighpassFilter,
    HighShelfFilter,
    LowpassFilter,
    LowShelfFilter,
    PeakFilter,
    Processor,
)
from mastering.contract.presets import presets
from mastering.dsp import board
from mastering.dsp.board import Board, gains
from tests.mastering.sound import music

RATE_HZ = 44_100
EVERYTHING: tuple[Processor, ...] = (
    HighpassFilter(cutoff_frequency_hz=20),
    LowpassFilter(cutoff_frequency_hz=15_000),
    PeakFilter(on="mid", cutoff_frequency_hz=1000, gain_db=-5, q=2),
    HighShelfFilter(on="side", cutoff_frequency_hz=9000, gain_db=3),
    Gain(gain_db=6),
    Compressor(threshold_db=-20, ratio=3),
    Distortion(drive_db=3),
    Clipping(threshold_db=-3),
)


def _impulse(frames: int = 1 << 16) -> np.ndarray:
    samples = np.zeros((2, frames), np.float32)
    samples[:, 0] = 0.5
    return samples


@pytest.mark.parametrize(
    "processor",
    [
        HighpassFilter(cutoff_frequency_hz=100),
        LowpassFilter(cutoff_frequency_hz=3000),
        LowShelfFilter(cutoff_frequency_hz=200, gain_db=4, q=0.7),
        PeakFilter(cutoff_frequency_hz=1000, gain_db=-5, q=2),
        HighShelfFilter(cutoff_frequency_hz=9000, gain_db=3, q=0.6),
        Gain(gain_db=-2),
    ],
    ids=lambda processor: processor.processor,
)
@pytest.mark.parametrize("rate_hz", [44_100, 96_000])
def test_what_a_filter_does_is_what_its_formula_says(processor: Processor, rate_hz: int) -> None:
    hz = np.fft.rfftfreq(1 << 16, 1 / rate_hz)
    done = np.abs(np.fft.rfft(Board([processor], rate_hz, 2).feed(_impulse())[0].astype(np.float64))) / 0.5
    heard = (hz > 20) & (hz < 20_000)
    expected = gains([processor], rate_hz, hz)[0]
    assert np.abs(20 * np.log10(done[heard] / expected[heard])).max() < 0.01


def test_mid_and_side_are_apart() -> None:
    lift = {"cutoff_frequency_hz": 1000.0, "gain_db": 6.0, "q": 1.0}
    found = gains([PeakFilter(on="mid", **lift), PeakFilter(on="side", **lift)], RATE_HZ, np.array([1000.0]))
    assert found[:, 0] == pytest.approx(10 ** (6 / 20), rel=1e-9)
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32) * 0.1
    centred, wide = np.stack([tone, tone]), np.stack([tone, -tone])
    mid_only = Board([PeakFilter(on="mid", **lift)], RATE_HZ, 2)
    lifted = mid_only.feed(centred)[0, 10_000:]
    assert lifted.std() / tone[10_000:].std() == pytest.approx(10 ** (6 / 20), rel=1e-3)
    np.testing.assert_allclose(Board([PeakFilter(on="mid", **lift)], RATE_HZ, 2).feed(wide), wide, atol=1e-7)


@pytest.mark.parametrize("pieces", [131_072, 8192, 1000])
def test_pieces_give_the_same_bits_as_the_whole(pieces: int) -> None:
    samples = music(seconds=4)
    whole = Board(EVERYTHING, RATE_HZ, 2).feed(samples)
    streamed = Board(EVERYTHING, RATE_HZ, 2)
    parts = [streamed.feed(samples[:, at : at + pieces]) for at in range(0, samples.shape[1], pieces)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_the_buffer_makes_no_difference_to_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = music(seconds=2)
    expected = Board(EVERYTHING, RATE_HZ, 2).feed(samples)
    monkeypatch.setattr(board, "_BUFFER_FRAMES", 509)
    assert np.array_equal(Board(EVERYTHING, RATE_HZ, 2).feed(samples), expected)


@pytest.mark.parametrize("frames", [1, 2, 15])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_last_piece_of_a_few_frames_is_no_other_shape(frames: int, channels: int) -> None:
    samples = music(channels=channels, seconds=1)[:, : 4096 + frames]
    whole = Board(EVERYTHING, RATE_HZ, channels).feed(samples)
    streamed = Board(EVERYTHING, RATE_HZ, channels)
    parts = [streamed.feed(samples[:, :4096]), streamed.feed(samples[:, 4096:])]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("style", sorted(presets().styles))
def test_nothing_sounds_before_a_click(style: str) -> None:
    samples = np.zeros((2, RATE_HZ), np.float32)
    samples[:, 20_000] = 1.0
    done = Board(presets().styles[style].board, RATE_HZ, 2).feed(samples)
    assert np.abs(done[:, :20_000]).max() == 0.0
    assert np.abs(done[:, 20_000]).max() > 0.1


def test_a_compressor_on_both_channels_moves_no_sound_aside() -> None:
    seconds = np.arange(3 * RATE_HZ) / RATE_HZ
    tone = 0.1 * np.sin(2 * np.pi * 440 * seconds)
    loud_left = np.where((seconds > 1) & (seconds < 2), 0.8 * np.sin(2 * np.pi * 90 * seconds), 0.0)
    samples = np.stack([tone + loud_left, tone]).astype(np.float32)
    done = Board([Compressor(threshold_db=-20, ratio=4)], RATE_HZ, 2).feed(samples)
    change = done[:, samples.min(axis=0) > 0.01] / samples[:, samples.min(axis=0) > 0.01]
    assert np.abs(20 * np.log10(change[0] / change[1])).max() < 0.001
    assert 20 * np.log10(change.min()) < -6


def test_what_has_nothing_to_work_on_is_passed_over() -> None:
    mono = music(channels=1, seconds=1)
    wide = Gain(on="side", gain_db=6)
    assert np.array_equal(Board([wide], RATE_HZ, 1).feed(mono), mono)
    above = HighShelfFilter(cutoff_frequency_hz=9000, gain_db=6)
    assert not board.fits(above, 16_000, 2)
    assert np.array_equal(Board([above], 16_000, 2).feed(music(16_000, seconds=1)), music(16_000, seconds=1))
