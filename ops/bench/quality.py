"""Reference mastering against Matchering: same songs, same references, equal loudness and ceiling.

Seven mixes made from the two real songs with fixed seeds: plain, dense, bass-heavy, sparse and heavily limited ones.
References are loud masters, as in use: songs driven into a soft clipper, about −10 LUFS. Ours is asked for the loudness
and the true peak that Matchering came out with. Distances are the mean over third octaves from 25 Hz to 16 kHz of the
absolute difference in dB between master and reference, mid and side each, once gain alone has made the loudness equal.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy import fft

from mastering.contract import Settings
from mastering.dsp.spectrum import SpectrumMeter, band_centres_hz, band_levels_db
from mastering.engine import pipeline
from ops.bench.line import BenchmarkLine
from ops.bench.songs import RATE_HZ, Samples, lasting, song

_SECONDS = 30
_MATCHERING = """
import sys, matchering
for name in sys.argv[2:]:
    path = f"{sys.argv[1]}/{name}"
    matchering.process(path + ".wav", path + "-reference.wav", [matchering.pcm24(path + "-peer.wav")])
"""


@dataclass(frozen=True)
class _Reading:
    mid_db: float
    side_db: float
    lufs: float
    true_peak_dbtp: float
    crest_db: float


def measure() -> list[BenchmarkLine]:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in prepared(Path(folder)):
            lines += _compared(name, Path(folder))
    return lines


def prepared(folder: Path) -> list[str]:
    """Names of the signals; the folder then holds NAME.wav, NAME-reference.wav and Matchering's NAME-peer.wav."""
    if find_spec("matchering") is None:
        raise SystemExit("The peer Matchering is missing: ops/install_locked.sh .venv/bin locks/bench.txt")
    pairs = _pairs()
    for name, (mix, reference) in pairs.items():
        _write(folder / f"{name}.wav", mix, 0.5)
        _write(folder / f"{name}-reference.wav", reference, 0.9)
    subprocess.run([sys.executable, "-c", _MATCHERING, str(folder), *pairs], check=True, capture_output=True)
    return list(pairs)


def _compared(name: str, folder: Path) -> list[BenchmarkLine]:
    reference = samples(folder / f"{name}-reference.wav")
    theirs = reading(samples(folder / f"{name}-peer.wav"), reference)
    ceiling_dbtp = min(0.0, theirs.true_peak_dbtp)
    out = io.BytesIO()
    settings = Settings(amount_percent=100, loudness_lufs=max(-36, min(-5, theirs.lufs)), ceiling_dbtp=ceiling_dbtp)
    with (folder / f"{name}.wav").open("rb") as source, (folder / f"{name}-reference.wav").open("rb") as reference_file:
        pipeline.master(source, settings, references=[reference_file], open_output=lambda kind: out)
    ours = reading(samples(io.BytesIO(out.getvalue())), reference)
    peer = "Matchering 2.0.6"
    miss = abs(ours.lufs - theirs.lufs)
    return [
        BenchmarkLine(f"{name}, mid spectrum distance", ours.mid_db, "dB", "lower", theirs.mid_db, peer, theirs.mid_db),
        BenchmarkLine(
            f"{name}, side spectrum distance", ours.side_db, "dB", "lower", theirs.side_db, peer, theirs.side_db
        ),
        BenchmarkLine(
            f"{name}, short-term crest", ours.crest_db, "dB", "higher", theirs.crest_db, peer, theirs.crest_db
        ),
        BenchmarkLine(f"{name}, loudness error", miss, "LU", "lower", 0.1),
        BenchmarkLine(f"{name}, true peak over the ceiling", ours.true_peak_dbtp - ceiling_dbtp, "dB", "lower", 0.01),
    ]


def _pairs() -> dict[str, tuple[Samples, Samples]]:
    """Mix and reference by name."""
    ace, fairy = _part("vibe_ace", 20), _part("sugar_plum_fairy", 20)
    later = _part("vibe_ace", 27)[::-1]
    dense = np.tanh((ace * 1.2 + fairy * 1.5 + later * 0.8) * 3)
    layered = np.tanh((_part("sugar_plum_fairy", 30) * 3 + ace * 2) * 2)
    time = np.arange(ace.shape[1]) / RATE_HZ
    pulse = 0.6 + 0.4 * np.sign(np.sin(4 * np.pi * time))
    gaps = np.repeat((np.arange(_SECONDS) % 3 == 0).astype(np.float32), RATE_HZ)
    loud_ace, loud_fairy = np.tanh(ace * 8), np.tanh(fairy * 9)
    return {
        "vibe ace": (ace, dense),
        "sugar plum fairy": (fairy, loud_ace),
        "dense mix": (dense, loud_fairy),
        "layered mix": (layered, loud_ace),
        "sparse": (fairy * (gaps + 1e-3), loud_ace),
        "bass-heavy": (ace + 0.25 * np.sin(2 * np.pi * 55 * time) * pulse, layered),
        "heavily limited": (np.tanh(ace * 14), loud_fairy),
    }


def _part(name: str, start_s: int) -> Samples:
    whole = lasting(song(name), start_s + _SECONDS)
    return whole[:, start_s * RATE_HZ :]


def _write(path: Path, samples: NDArray[np.floating], peak: float) -> None:
    soundfile.write(path, (samples * (peak / np.abs(samples).max())).T, RATE_HZ, subtype="PCM_24")


def samples(file: Path | io.BytesIO) -> Samples:
    samples, _ = soundfile.read(file, dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.T)


def reading(master: Samples, reference: Samples) -> _Reading:
    mid, side = _distances_db(master, reference)
    return _Reading(mid, side, _lufs(master), true_peak_dbtp(master), _crest_db(master))


def _distances_db(master: Samples, reference: Samples) -> tuple[float, float]:
    centres = np.array(band_centres_hz(RATE_HZ))
    heard = (centres >= 25) & (centres <= 16_000)
    difference = np.abs(_levels(master) - _lufs(master) - _levels(reference) + _lufs(reference))[:, heard]
    mid, side = difference.mean(axis=1)
    return float(mid), float(side)


def _levels(samples: Samples) -> NDArray[np.float64]:
    meter = SpectrumMeter(RATE_HZ)
    meter.feed(samples)
    return band_levels_db(meter.power(), RATE_HZ)


def _lufs(samples: Samples) -> float:
    import pyloudnorm

    return float(pyloudnorm.Meter(RATE_HZ, filter_class="DeMan").integrated_loudness(samples.T.astype(np.float64)))


def true_peak_dbtp(samples: Samples) -> float:
    """By a 16 x Fourier interpolation of the whole signal: nothing of the engine in it."""
    highest = 0.0
    for channel in samples.astype(np.float64):
        size = fft.next_fast_len(channel.size + 4096)
        bins = fft.rfft(channel, size)
        turn = np.exp(2j * np.pi * np.arange(bins.size) / size / 16)
        for _ in range(16):
            highest = max(highest, float(np.abs(fft.irfft(bins, size)).max()))
            bins = bins * turn
    return float(20 * np.log10(highest))


def _crest_db(samples: Samples) -> float:
    """Mean over windows of 3 s of peak over RMS, silent windows left out."""
    windows = samples[:, : samples.shape[1] // (3 * RATE_HZ) * 3 * RATE_HZ].reshape(2, -1, 3 * RATE_HZ)
    peaks = np.abs(windows).max(axis=(0, 2))
    levels = np.sqrt(np.square(windows, dtype=np.float64).mean(axis=(0, 2)))
    loud = levels > levels.max() * 1e-3
    return float((20 * np.log10(peaks[loud] / levels[loud])).mean())
