"""Previews: the loudest stretch, every style, one loudness."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from mastering.cli import app
from mastering.contract import Settings
from mastering.contract.presets import presets
from mastering.engine import inputs
from mastering.engine.preview import ORIGINAL, write_previews
from tests.mastering.sound import fine_true_peak_dbtp, music, wav

RATE_HZ = 44_100
LOUD_FROM_S, LOUD_S = 8, 6


@pytest.fixture(scope="module")
def song() -> bytes:
    """Quiet music with six loud seconds, which a 3 kHz tone marks."""
    samples = music(seconds=20) * np.float32(0.2)
    loud = slice(LOUD_FROM_S * RATE_HZ, (LOUD_FROM_S + LOUD_S) * RATE_HZ)
    samples[:, loud] *= 4
    samples[:, loud] += 0.02 * np.sin(2 * np.pi * 3000 * np.arange(LOUD_S * RATE_HZ) / RATE_HZ).astype(np.float32)
    return wav(samples)


@pytest.fixture(scope="module")
def previews(song: bytes) -> dict[str, np.ndarray]:
    files: dict[str, io.BytesIO] = {}
    write_previews(
        io.BytesIO(song), Settings(), open_output=lambda name: files.setdefault(name, io.BytesIO()), seconds=LOUD_S
    )
    return {name: soundfile.read(io.BytesIO(file.getvalue()), always_2d=True)[0].T for name, file in files.items()}


def _lufs(samples: np.ndarray) -> float:
    found = inputs.measure(io.BytesIO(wav(samples.astype(np.float32)))).integrated_lufs
    assert found is not None
    return found


def test_there_is_one_of_each_style_and_the_original(previews: dict[str, np.ndarray]) -> None:
    assert set(previews) == {ORIGINAL, *presets().styles}
    assert {samples.shape for samples in previews.values()} == {(2, LOUD_S * RATE_HZ)}


def test_all_are_equally_loud_and_none_passes_the_ceiling(previews: dict[str, np.ndarray]) -> None:
    loudness = [_lufs(samples) for samples in previews.values()]
    assert max(loudness) - min(loudness) < 0.1
    assert max(fine_true_peak_dbtp(samples) for samples in previews.values()) <= -1.0 + 0.01


def test_it_is_the_loudest_stretch_that_is_heard(previews: dict[str, np.ndarray]) -> None:
    time = np.arange(LOUD_S * RATE_HZ) / RATE_HZ
    marked = previews[ORIGINAL][0] * np.exp(-2j * np.pi * 3000 * time)
    begins, ends = abs(marked[:RATE_HZ].mean()), abs(marked[-RATE_HZ:].mean())
    assert begins == pytest.approx(ends, rel=0.3)
    assert begins > 0.005


def test_bright_is_brighter_than_warm(previews: dict[str, np.ndarray]) -> None:
    def top(samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples[0])) ** 2
        return float(10 * np.log10(power[power.size // 4 :].sum() / power.sum()))

    assert top(previews["bright"]) - top(previews["warm"]) > 1.5


def test_the_command_names_each_file_after_its_style(song: bytes, tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(song)
    done = CliRunner().invoke(
        app, ["preview", str(tmp_path / "song.wav"), "-o", str(tmp_path / "out"), "-f", "flac", "--seconds", "5"]
    )
    assert done.exit_code == 0, done.output
    expected = {f"song ({name}).flac" for name in (ORIGINAL, *presets().styles)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
