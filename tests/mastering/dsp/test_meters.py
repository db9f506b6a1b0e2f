"""The meters' inner workings, each beside the slow and plain way to the same reading."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from mastering.dsp import limiter
from mastering.dsp.loudness import BlockEnergyMeter, block_edges, k_weighting
from mastering.dsp.recursive import RecursiveFilter
from mastering.dsp.spectrum import SpectrumMeter, band_levels_db
from mastering.dsp.true_peak import PeakMeter, block_length
from tests.mastering.sound import music

RATE_HZ = 44_100
ONES = np.ones(2, np.float32)


def _noise(frames: int, channels: int = 2) -> np.ndarray:
    return (np.random.default_rng(frames).standard_normal((channels, frames)) * 0.1).astype(np.float32)


def _pieces(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return [piece for piece in np.split(samples, np.cumsum(sizes)[:-1], axis=1) if piece.size]


@given(st.lists(st.integers(1, 700), min_size=1, max_size=12), st.sampled_from([16, 49, 64]))
def test_rows_of_pieces_hold_the_energy_of_the_filtered_whole(sizes: list[int], row: int) -> None:
    samples = _noise(sum(sizes))
    fast = RecursiveFilter(k_weighting(RATE_HZ), 2, row)
    found = np.concatenate([fast.energies(piece, ONES) for piece in _pieces(samples, sizes)])
    rows = sum(sizes) // row
    assert found.size == rows
    assert fast.held_frames == sum(sizes) % row
    filtered = signal.sosfilt(k_weighting(RATE_HZ), samples.astype(float), axis=1)[:, : rows * row]
    expected = np.square(filtered).reshape(2, rows, row).sum(axis=(0, 2))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-9)


def test_the_state_of_a_long_recording_is_that_of_the_recursion() -> None:
    """Groups of groups of groups of rows; a low tone, which the high-pass remembers for long."""
    seconds = np.arange(40 * RATE_HZ) / RATE_HZ
    samples = (0.5 + 0.4 * np.sin(2 * np.pi * 25 * seconds)).astype(np.float32)[None]
    found = RecursiveFilter(k_weighting(RATE_HZ), 1, 49).energies(samples, ONES[:1])
    filtered = signal.sosfilt(k_weighting(RATE_HZ), samples.astype(float), axis=1)
    expected = np.square(filtered).reshape(-1, 49).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * expected.max())


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 37_800, 44_056, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("size", [777, 65_536])
def test_block_energies_are_the_same_at_every_rate_and_block_size(rate_hz: int, size: int) -> None:
    samples = _noise(3 * rate_hz + 5)
    meter = BlockEnergyMeter(rate_hz, np.ones(2))
    for start in range(0, samples.shape[1], size):
        meter.feed(samples[:, start : start + size])
    edges = block_edges(samples.shape[1], rate_hz)
    power = np.square(signal.sosfilt(k_weighting(rate_hz), samples.astype(float), axis=1)).sum(axis=0)
    expected = np.add.reduceat(power[: edges[-1]], edges[:-1]) / np.diff(edges)
    np.testing.assert_allclose(meter.block_energies(), expected, rtol=1e-4)


@pytest.mark.parametrize("factor", [4, 16])
@given(sizes=st.lists(st.integers(1, 900), min_size=1, max_size=10))
def test_peaks_are_the_same_whatever_the_blocks(factor: int, sizes: list[int]) -> None:
    samples = _noise(sum(sizes))
    whole, parts = PeakMeter(RATE_HZ, factor=factor), PeakMeter(RATE_HZ, factor=factor)
    whole.feed(samples)
    for piece in _pieces(samples, sizes):
        parts.feed(piece)
    assert np.array_equal(whole.peaks(), parts.peaks())


def test_peaks_above_what_matters_do_not_depend_on_it() -> None:
    samples = music(seconds=4.0).astype(np.float32)
    exact, hasty = PeakMeter(RATE_HZ), PeakMeter(RATE_HZ, above=0.2)
    exact.feed(samples)
    hasty.feed(samples)
    every, some = exact.peaks(), hasty.peaks()
    counted = every >= 0.2
    assert 10 < counted.sum() < counted.size - 10
    assert np.array_equal(every[counted], some[counted])
    assert (some[~counted] < 0.2).all()


@pytest.mark.parametrize("reach", [12, 80])
def test_the_gain_around_a_block_is_the_gain_that_is_applied(reach: int) -> None:
    length = block_length(RATE_HZ)
    curve = np.random.default_rng(3).uniform(0.5, 2.0, 101)
    gain = limiter.apply(np.ones((1, 100 * length), np.float32), curve, 0, length)[0]
    blocks = np.array([5, 50, 94])
    found = limiter.gain_around(curve, blocks, length, reach)
    expected = [gain[block * length - reach : (block + 1) * length + reach] for block in blocks]
    assert np.array_equal(found, np.array(expected))


@pytest.mark.parametrize("only_some", [False, True])
def test_peaks_behind_a_gain_are_those_of_the_gained_song(only_some: bool) -> None:
    samples = music(seconds=4.0).astype(np.float32)
    length = block_length(RATE_HZ)
    curve = np.random.default_rng(4).uniform(0.5, 2.0, -(-samples.shape[1] // length) + 1)
    chosen = np.random.default_rng(5).random(curve.size - 1) < (0.1 if only_some else 2.0)
    behind = PeakMeter(
        RATE_HZ, factor=16, only=chosen, gain=lambda blocks: limiter.gain_around(curve, blocks, length, 80)
    )
    plain = PeakMeter(RATE_HZ, factor=16, only=chosen)
    behind.feed(samples)
    plain.feed(limiter.apply(samples, curve, 0, length))
    assert np.array_equal(behind.peaks(), plain.peaks())


def test_the_spectrum_of_a_long_song_is_that_of_all_its_frames() -> None:
    """Read from every third frame, it differs from the whole by less than anybody would equalise."""
    song = np.tile(music(seconds=20.0).astype(np.float32), (1, 18))
    every, some = SpectrumMeter(RATE_HZ), SpectrumMeter(RATE_HZ, song.shape[1])
    for start in range(0, song.shape[1], 50_000):
        every.feed(song[:, start : start + 50_000])
        some.feed(song[:, start : start + 50_000])
    difference = band_levels_db(every.power(), RATE_HZ) - band_levels_db(some.power(), RATE_HZ)
    assert np.abs(difference).max() < 0.5


def test_a_song_that_promises_more_than_it_has_still_has_a_spectrum() -> None:
    meter = SpectrumMeter(RATE_HZ, 10**9)
    meter.feed(_noise(RATE_HZ))
    assert meter.power().sum() > 0


@pytest.mark.parametrize("rate_hz", [8000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize(("release", "hold"), [(120.0, 12.0), (250.0, 6.0), (1000.0, 0.0)])
@pytest.mark.parametrize("peaks_over", [0, 1, 40, 4000])
def test_a_curve_worked_out_where_it_bends_is_the_whole_curve(
    rate_hz: int, release: float, hold: float, peaks_over: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(peaks_over)
    peaks = random.uniform(0.0, 0.5, 20_000)
    peaks[random.choice(peaks.size, peaks_over, replace=False)] = random.uniform(0.5, 4.0, peaks_over)
    if peaks_over:
        peaks[[0, -1]] = 2.0  # the ends bend too
    limits = limiter.Limiter(-1.0, release_db_per_s=release, hold_ms=hold)
    quick = limits.curve(peaks, 1.2, rate_hz)
    monkeypatch.setattr(limiter, "_around", lambda marked, before, after: np.arange(marked.size))
    assert np.array_equal(quick, limits.curve(peaks, 1.2, rate_hz))
