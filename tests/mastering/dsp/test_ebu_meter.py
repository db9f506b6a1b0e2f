"""Our meter against EBU Tech 3341 (cases 1 to 6, 9 to 23), EBU Tech 3342 and two meters that are not ours."""

import io
import math
import re
from collections.abc import Sequence

import numpy as np
import pyloudnorm
import pytest
import soundfile
from scipy import signal

from mastering.dsp import loudness
from mastering.dsp.true_peak import PeakMeter
from tests.mastering.sound import SONGS, ffmpeg, fine_true_peak_dbtp, music, real_song, wav

RATE_HZ = 48_000


def _tone(level_db: float, seconds: float, hz: float = 1000.0) -> np.ndarray:
    return 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)


def _tones(parts: Sequence[tuple[float | None, float]]) -> np.ndarray:
    """(dBFS or None for silence, seconds) one after the other, the same in both channels."""
    pieces = [np.zeros(round(s * RATE_HZ)) if level is None else _tone(level, s) for level, s in parts]
    return np.tile(np.concatenate(pieces), (2, 1)).astype(np.float32)


def _energies(samples: np.ndarray, weights: Sequence[float] = (1.0, 1.0), rate_hz: int = RATE_HZ) -> np.ndarray:
    meter = loudness.BlockEnergyMeter(rate_hz, np.array(weights))
    # An odd block length: the reading must not depend on how the sound was cut.
    for start in range(0, samples.shape[1], 10_007):
        meter.feed(samples[:, start : start + 10_007])
    return meter.block_energies()


def _highest(energies: np.ndarray) -> float:
    found = loudness.to_lufs(float(energies.max()))
    assert found is not None
    return found


@pytest.mark.parametrize("level", [-23.0, -33.0], ids=["case 1", "case 2"])
def test_a_steady_tone_reads_alike_on_every_scale(level: float) -> None:
    energies = _energies(_tones([(level, 20)]))
    for reading in (
        loudness.integrated(energies),
        _highest(loudness.momentary(energies)),
        _highest(loudness.short_term(energies)),
    ):
        assert reading == pytest.approx(level, abs=0.1)


@pytest.mark.parametrize(
    "parts",
    [
        [(-36, 10), (-23, 60), (-36, 10)],
        [(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)],
        [(-26, 20), (-20, 20.1), (-26, 20)],
    ],
    ids=["case 3", "case 4", "case 5"],
)
def test_gates_leave_out_what_is_quiet(parts: list[tuple[float, float]]) -> None:
    assert loudness.integrated(_energies(_tones(parts))) == pytest.approx(-23, abs=0.1)


def test_case_6_weighs_surround_channels() -> None:
    levels = (-28, -28, -24, -30, -30)
    samples = np.stack([_tone(level, 20) for level in levels]).astype(np.float32)
    assert loudness.integrated(_energies(samples, (1, 1, 1, 1.41, 1.41))) == pytest.approx(-23, abs=0.1)


def test_case_9_short_term_is_constant_after_three_seconds() -> None:
    energies = loudness.short_term(_energies(_tones([(-20, 1.34), (-30, 1.66)] * 5)))
    levels = 10 * np.log10(energies) - 0.691
    assert np.abs(levels + 23).max() < 0.1


@pytest.mark.parametrize("step", range(20))
def test_cases_10_and_11_short_term_finds_three_seconds_wherever_they_start(step: int) -> None:
    late = _tones([(None, step * 0.15), (-23, 3), (None, 1)])
    assert _highest(loudness.short_term(_energies(late))) == pytest.approx(-23, abs=0.1)
    rising = _tones([(None, step * 0.15), (-38 + step, 3), (None, 3 - 0.15 * step)])
    assert _highest(loudness.short_term(_energies(rising))) == pytest.approx(-38 + step, abs=0.1)


def test_case_12_momentary_is_constant_after_a_second() -> None:
    energies = loudness.momentary(_energies(_tones([(-20, 0.18), (-30, 0.22)] * 25)))[60:]
    levels = 10 * np.log10(energies) - 0.691
    assert np.abs(levels + 23).max() < 0.1


@pytest.mark.parametrize("step", range(20))
def test_cases_13_and_14_momentary_finds_400_ms_wherever_they_start(step: int) -> None:
    late = _tones([(None, step * 0.02), (-23, 0.4), (None, 1)])
    assert _highest(loudness.momentary(_energies(late))) == pytest.approx(-23, abs=0.1)
    rising = _tones([(None, step * 0.02), (-38 + step, 0.4), (None, 0.4 - 0.02 * step)])
    assert _highest(loudness.momentary(_energies(rising))) == pytest.approx(-38 + step, abs=0.1)


def _true_peak_dbtp(samples: np.ndarray) -> float:
    meter = PeakMeter(RATE_HZ)
    meter.feed(samples)
    return float(20 * np.log10(meter.peaks().max()))


@pytest.mark.parametrize(
    ("divisor", "degrees", "amplitude", "expected"),
    [(4, 0, 0.5, -6.0), (4, 45, 0.5, -6.0), (6, 60, 0.5, -6.0), (8, 67.5, 0.5, -6.0), (4, 45, 1.41, 3.0)],
    ids=["case 15", "case 16", "case 17", "case 18", "case 19"],
)
def test_true_peak_of_tapered_tones(divisor: int, degrees: float, amplitude: float, expected: float) -> None:
    frames = np.arange(RATE_HZ // 2)
    taper = np.clip(np.minimum(frames, frames[::-1]) / (0.01 * RATE_HZ), 0, 1)
    tone = amplitude * np.sin(2 * np.pi * frames / divisor + math.radians(degrees)) * taper
    found = _true_peak_dbtp(np.tile(tone, (2, 1)).astype(np.float32))
    assert expected - 0.4 <= found <= expected + 0.2


@pytest.mark.parametrize("offset", range(4), ids=["case 20", "case 21", "case 22", "case 23"])
def test_true_peak_between_samples_is_found_at_every_offset(offset: int) -> None:
    # At 4 fs: fs/6 at 0.5, one period of fs/4 at 1.0 in its middle without a jump in phase.
    before, burst = 24 * 40, 16
    slow = 0.5 * np.sin(2 * np.pi * np.arange(before) / 24)
    fast = np.sin(2 * np.pi * np.arange(burst) / 16)
    high = np.concatenate([np.zeros(500), slow, fast, slow, np.zeros(500)])
    low_passed = signal.filtfilt(signal.firwin(255, 0.24), [1.0], high)
    found = _true_peak_dbtp(np.tile(low_passed[offset::4], (2, 1)).astype(np.float32))
    exact = 20 * math.log10(np.abs(low_passed).max())
    assert exact == pytest.approx(0.0, abs=0.3)
    assert -0.4 <= found <= 0.2


@pytest.mark.parametrize(
    ("levels", "expected"),
    [((-20, -30), 10), ((-20, -15), 5), ((-40, -20), 20), ((-50, -35, -20, -35, -50), 15)],
    ids=["3342 case 1", "3342 case 2", "3342 case 3", "3342 case 4"],
)
def test_loudness_range_of_ebu_3342(levels: tuple[float, ...], expected: float) -> None:
    assert loudness.loudness_range(_energies(_tones([(level, 20) for level in levels]))) == pytest.approx(
        expected, abs=1
    )


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 96_000, 192_000])
def test_integrated_loudness_agrees_with_pyloudnorm_at_any_rate(rate_hz: int) -> None:
    song = music(rate_hz, seconds=6)
    theirs = pyloudnorm.Meter(rate_hz, filter_class="DeMan").integrated_loudness(song.T.astype(np.float64))
    assert loudness.integrated(_energies(song, rate_hz=rate_hz)) == pytest.approx(theirs, abs=0.05)


def _by_ffmpeg(audio: bytes) -> tuple[float, float]:
    """Loudness to 0.1 LUFS and true peak to 0.1 dB, as ffmpeg prints them; sharpened through its metadata."""
    log = ffmpeg(
        "-i", "-", "-af", "ebur128=peak=true:metadata=1,ametadata=print:key=lavfi.r128.I:file=-", "-f", "null", "-",
        stdin=audio,
    )  # fmt: skip
    loudness_lufs = float(re.findall(rb"lavfi\.r128\.I=(\S+)", log.stdout)[-1])
    peak = float(re.findall(rb"Peak:\s+(\S+) dBFS", log.stderr)[-1])
    return loudness_lufs, peak


@pytest.mark.songs
@pytest.mark.parametrize("name", SONGS)
def test_real_music_agrees_with_ffmpeg(name: str) -> None:
    samples, rate_hz = soundfile.read(io.BytesIO(real_song(name).read_bytes()), dtype="float32", always_2d=True)
    song = np.ascontiguousarray(samples.T[:, : 60 * rate_hz])
    loudness_lufs, peak = _by_ffmpeg(wav(song, rate_hz))
    assert loudness.integrated(_energies(song, rate_hz=rate_hz)) == pytest.approx(loudness_lufs, abs=0.05)
    # Whose reading is right: the wave by Fourier's interpolation, exact but for its 16 points to a sample.
    exact = fine_true_peak_dbtp(song)
    meter = PeakMeter(rate_hz)
    meter.feed(song)
    assert float(20 * np.log10(meter.peaks().max())) == pytest.approx(exact, abs=0.1)
    # ffmpeg reads at 192 kHz, some 4 x here, and prints one decimal, half of which may be rounding.
    assert peak == pytest.approx(exact, abs=0.1 + 0.05)
