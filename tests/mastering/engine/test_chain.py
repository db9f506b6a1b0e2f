"""What each link of the chain does, as physics: this tone is cut, that one kept; a reference is met; crest is kept."""

import io

import numpy as np
import pytest
from scipy import signal

from mastering.contract import Fault, FaultCode, Measurements, OutputFormat, Settings
from mastering.contract.presets import presets
from mastering.dsp.dynamics import BandCompressor, Compressor, reduction_db
from mastering.dsp.limiter import Limiter, apply
from mastering.dsp.saturation import saturated
from mastering.dsp.stream import BLOCK_FRAMES, reblock, split
from mastering.dsp.tone import (
    ToneCurve,
    crossovers,
    filtered_sides,
    left_right,
    response,
    splits,
    transform_length,
)
from mastering.dsp.true_peak import PeakMeter, block_length
from mastering.engine import inputs, pipeline, replay
from tests.mastering.sound import loud_mix, master, music, wav

RATE_HZ = 44_100


def _sine(hz: float, seconds: float = 3.0, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def _filtered(samples: np.ndarray, curve: ToneCurve) -> np.ndarray:
    gains = response(curve, RATE_HZ)[None]
    return np.concatenate([left_right(sides) for (sides,) in filtered_sides(split(samples), gains)], axis=1)


def _level_db(samples: np.ndarray) -> float:
    middle = samples[..., RATE_HZ : 2 * RATE_HZ]
    return float(10 * np.log10(np.mean(np.square(middle, dtype=np.float64)) + 1e-20))


_FLAT = ToneCurve((20.0, 20_000.0), (0.0, 0.0), (0.0, 0.0))


def test_a_flat_curve_gives_the_samples_back_in_place() -> None:
    # Without what lies below 30 Hz: the filter takes the offset out, and a little beside it.
    rumble = signal.butter(4, 30, "highpass", fs=RATE_HZ, output="sos")
    samples = signal.sosfiltfilt(rumble, music(seconds=4)).astype(np.float32)
    # The top is faded out above 20.3 kHz, where this music has next to nothing.
    done = _filtered(samples, _FLAT)
    assert done.shape == samples.shape
    # Not at the very start, where this cut-out begins with a jump.
    assert np.abs(done - samples)[:, RATE_HZ:].max() < 2e-3


@pytest.mark.parametrize(("hz", "gain_db"), [(100.0, -6.0), (1000.0, 0.0), (8000.0, 4.0)])
def test_a_curve_moves_each_tone_by_its_own_gain(hz: float, gain_db: float) -> None:
    curve = ToneCurve((50.0, 100.0, 1000.0, 8000.0, 16_000.0), (-6.0, -6.0, 0.0, 4.0, 4.0), (0.0,) * 5)
    tone = np.tile(_sine(hz), (2, 1))
    assert _level_db(_filtered(tone, curve)) - _level_db(tone) == pytest.approx(gain_db, abs=0.15)


def test_offset_is_taken_out() -> None:
    samples = music(seconds=3) + np.float32(0.05)
    assert abs(float(_filtered(samples, _FLAT)[:, RATE_HZ : 2 * RATE_HZ].mean())) < 1e-4


@pytest.mark.parametrize("rate_hz", [8_000, RATE_HZ, 96_000])
def test_the_three_bands_add_up_to_the_whole_and_none_has_a_forerunner(rate_hz: int) -> None:
    parts = crossovers(160.0, 2800.0, rate_hz)
    assert np.abs(np.abs(parts.sum(axis=0)) - 1).max() < 1e-6
    half = transform_length(rate_hz) // 2
    before = np.fft.irfft(parts.astype(np.complex128))[:, half:]
    assert 20 * np.log10(np.abs(before).max()) < -140


def test_gains_of_the_bands_are_those_of_their_filters() -> None:
    hz = np.fft.rfftfreq(transform_length(RATE_HZ), 1 / RATE_HZ)
    parts = np.abs(crossovers(160.0, 2800.0, RATE_HZ))
    assert np.abs(parts - splits(hz, 160.0, 2800.0, RATE_HZ)).max() < 1e-6
    # 6 dB down at each crossover, 24 dB more an octave away.
    for band, at, beyond in ((0, 160.0, 320.0), (1, 160.0, 80.0), (1, 2800.0, 5600.0), (2, 2800.0, 1400.0)):
        found = splits(np.array([at, beyond]), 160.0, 2800.0, RATE_HZ)[band]
        assert 20 * np.log10(found) == pytest.approx([-6.0, -24.6], abs=1.5)


def test_the_compressor_holds_a_tone_down_by_its_ratio() -> None:
    settings = Compressor(0.0, -20.0, 0.0, 1.0, 2.0, 1.0, knee_db=6.0)
    tone = _sine(600.0, amplitude=10 ** (-8 / 20) * np.sqrt(2))
    bands = np.zeros((3, 1, tone.size), np.float32)
    bands[1, 0] = tone
    done = BandCompressor(settings, RATE_HZ).feed(bands)
    # 12 dB over the threshold at 2:1 leaves 6.
    assert _level_db(tone[None]) - _level_db(done) == pytest.approx(6.0, abs=0.3)


def test_each_band_has_its_own_ratio_and_gain() -> None:
    settings = Compressor(-200.0, -200.0, -200.0, 1.0, 1.0, 1.0, low_gain_db=3.0, high_gain_db=-6.0)
    bands = np.tile(_sine(600.0, amplitude=0.1), (3, 1, 1))
    parts = []
    for band in range(3):
        alone = bands * np.eye(3, dtype=np.float32)[band][:, None, None]
        parts.append(_level_db(BandCompressor(settings, RATE_HZ).feed(alone)) - _level_db(bands[0]))
    assert parts == pytest.approx([3.0, 0.0, -6.0], abs=0.01)


def test_the_soft_knee_is_smooth_and_leaves_quiet_sounds_alone() -> None:
    settings = Compressor(-20.0, -20.0, -20.0, 3.0, 3.0, 3.0, knee_db=8.0)
    levels = np.tile(np.linspace(-60, 0, 6001), (3, 1))
    reduction = reduction_db(levels, settings)[0]
    assert reduction[0] == 0.0
    assert np.diff(reduction).min() >= 0
    assert np.abs(np.diff(reduction, 2)).max() < 1e-4


def test_saturation_adds_harmonics_and_folds_none_back() -> None:
    tone = np.tile(_sine(9000.0, amplitude=0.9), (2, 1))
    done = np.concatenate(list(saturated(split(tone), RATE_HZ, 2, tone.shape[1], drive=1.0, peak=0.9)), axis=1)
    assert done.shape == tone.shape
    spectrum = np.abs(np.fft.rfft(done[0, RATE_HZ : 2 * RATE_HZ] * np.hanning(RATE_HZ)))
    in_db = 20 * np.log10(spectrum / spectrum.max() + 1e-12)
    # The third harmonic, 27 kHz, would fold to 17.1 kHz.
    assert in_db[17_050:17_150].max() < -90


def test_no_gain_curve_lies_above_what_any_block_needs() -> None:
    peaks = np.abs(np.random.default_rng(2).standard_normal(4000)) * 0.8
    curve = Limiter(-1.0).curve(peaks, 2.0, RATE_HZ)
    highest = np.maximum(curve[:-1], curve[1:])
    assert (highest * peaks).max() <= 10 ** (-1 / 20) * (1 + 1e-12)
    assert curve.max() <= 2.0 + 1e-12


def test_the_limiter_leaves_a_quiet_song_alone() -> None:
    samples = music(seconds=2) * np.float32(0.2)
    meter = PeakMeter(RATE_HZ)
    for block in split(samples):
        meter.feed(block)
    curve = Limiter(-1.0).curve(meter.peaks(), 1.0, RATE_HZ)
    assert np.array_equal(apply(samples, curve, 0, block_length(RATE_HZ)), samples)


def _reference() -> np.ndarray:
    """A brighter, narrower, bass-shy and louder song."""
    curve = ToneCurve((40.0, 200.0, 2000.0, 12_000.0), (-6.0, -3.0, 1.0, 5.0), (-9.0, -6.0, -2.0, 2.0))
    return _filtered(loud_mix(seconds=10), curve)


def _distance_db(one: Measurements, other: Measurements) -> tuple[float, float]:
    # The music's kick and bass have no side that could be lifted.
    pairs = [(a, b) for a, b in zip(one.spectrum, other.spectrum, strict=True) if 250 <= a.centre_hz <= 12_000]
    mid = np.array([a.mid_db - b.mid_db for a, b in pairs])
    side = np.array([a.side_db - b.side_db for a, b in pairs])
    return float(np.abs(mid - mid.mean()).mean()), float(np.abs(side - mid.mean()).mean())


def test_a_reference_is_met_at_full_amount_and_half_met_at_half() -> None:
    source, reference = wav(music(seconds=10)), wav(_reference())
    measured_reference = inputs.measure(io.BytesIO(reference))
    before = _distance_db(inputs.measure(io.BytesIO(source)), measured_reference)
    distances = {}
    for amount in (50, 100):
        out = io.BytesIO()
        # Quiet enough for the limiter to stay out of it.
        settings = Settings(amount_percent=amount, loudness_lufs=-23)
        report = pipeline.master(
            io.BytesIO(source), settings, references=[io.BytesIO(reference)], open_output=lambda kind, out=out: out
        )
        distances[amount] = _distance_db(report.after, measured_reference)
    assert max(distances[100]) < 0.5
    assert distances[50][0] == pytest.approx(before[0] / 2, rel=0.3)


def test_a_references_measurements_do_as_well_as_its_audio_at_any_rate() -> None:
    source, reference = wav(music(48_000, seconds=5), 48_000), wav(_reference())
    readings = inputs.measure(io.BytesIO(reference)).model_dump_json().encode()

    def plan(like: bytes) -> object:
        return pipeline.make_plan(io.BytesIO(source), Settings(), references=[io.BytesIO(like)]).step("tone")

    assert plan(reference) == plan(readings)


def test_weights_pull_towards_the_heavier_reference() -> None:
    source, bright, own = wav(music(seconds=5)), wav(_reference()), wav(music(seconds=5))

    def strength(weights: tuple[float, ...]) -> float:
        settings = Settings(reference_weights=weights)
        tone = pipeline.make_plan(io.BytesIO(source), settings, references=[io.BytesIO(bright), io.BytesIO(own)]).tone
        assert tone is not None
        return float(np.abs(tone.parameters.mid_db).mean())

    assert strength((9, 1)) > 1.5 * strength((1, 1)) > 1.5 * strength((1, 9))


def test_weights_that_do_not_fit_the_references_are_refused() -> None:
    with pytest.raises(Fault) as caught:
        pipeline.make_plan(io.BytesIO(wav(music(seconds=2))), Settings(reference_weights=(1, 2)))
    assert caught.value.code is FaultCode.BAD_SETTINGS


@pytest.mark.parametrize("style", sorted(presets().styles))
def test_every_style_keeps_loudness_and_ceiling(style: str) -> None:
    report, _ = master(wav(music(seconds=5)), Settings(style=style, amount_percent=100))
    assert report.after.integrated_lufs == pytest.approx(-14, abs=0.1)
    assert report.after.true_peak_dbtp <= -1 + 0.01
    assert all(step.reason.endswith(".") for step in report.plan.steps)


def test_no_more_crest_is_lost_than_allowed_and_the_plan_says_why() -> None:
    song = wav(music(seconds=6))
    report, _ = master(song, Settings(target="cd", max_crest_loss_db=2.0, amount_percent=0))
    before, after = report.before.peak_to_loudness_lu, report.after.peak_to_loudness_lu
    assert before is not None
    assert after is not None
    assert after >= before - 2.0 - 0.15
    step = report.plan.step("loudness")
    assert step is not None
    assert "crest" in step.reason


def test_flags_name_what_the_source_brings_along() -> None:
    clipped = np.clip(music(seconds=4) * 6, -1, 1)
    inverted = np.stack([music(seconds=4)[0], -music(seconds=4)[0]])
    for samples, word in ((clipped, "Clipped"), (inverted, "Inverted phase"), (music(channels=1, seconds=4), "Mono")):
        report, _ = master(wav(samples), Settings())
        assert any(flag.startswith(word) for flag in report.flags)


def test_blocks_come_out_whole_whatever_pieces_go_in() -> None:
    samples = music(seconds=5)
    pieces = [samples[:, a : a + 7919] for a in range(0, samples.shape[1], 7919)]
    blocks = list(reblock(pieces))
    assert {block.shape[1] for block in blocks[:-1]} == {BLOCK_FRAMES}
    assert np.array_equal(np.concatenate(blocks, axis=1), samples)


@pytest.mark.parametrize("kind", list(OutputFormat))
def test_every_format_holds_loudness_ceiling_and_length(kind: OutputFormat) -> None:
    report, files = master(wav(loud_mix(96_000, seconds=4), 96_000), Settings(target="cd", outputs=(kind,)))
    assert set(files) == {kind}
    assert report.after.integrated_lufs == pytest.approx(-9, abs=0.1)
    assert report.after.true_peak_dbtp <= -2 + 0.01
    assert report.after.rate_hz == kind.rate_hz(96_000)
    assert 0 <= report.after.duration_s - 4 < 0.2


def test_lossless_formats_of_one_render_hold_the_same_samples() -> None:
    same = (OutputFormat.WAV24, OutputFormat.FLAC, OutputFormat.ALAC)
    _, files = master(wav(music(seconds=3)), Settings(outputs=same))
    for kind in same[1:]:
        pair = io.BytesIO(files[OutputFormat.WAV24]), io.BytesIO(files[kind])
        assert replay.difference_steps(*pair) == 0
