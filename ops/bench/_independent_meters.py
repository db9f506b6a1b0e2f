"""Meters with nothing of the engine in them: ffmpeg's ebur128, sox's stats, pyloudnorm, and plain NumPy and SciPy.

Levels are decibels of full scale. `source` and `master` are (channels, frames) of equal length.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from ops.bench.songs import RATE_HZ

Sound = NDArray[np.floating]

_NOTHING = 1e-20
_CENTRES_HZ = 1000 * 10 ** (np.arange(-16, 13) / 10)
"""Third octaves from 25 Hz to 16 kHz."""
_MUSIC_HZ = (150.0, 8000.0)
"""Where gain over time is read: what clean-up and tone take from the ends of the band is no limiting."""


def missing_programs() -> list[str]:
    return [name for name in ("ffmpeg", "sox") if shutil.which(name) is None]


def ebur128(path: Path) -> tuple[float, float]:
    """(LUFS, dBTP) by ffmpeg's meter, to one decimal."""
    command = ["ffmpeg", "-hide_banner", "-nostats", "-i", str(path), "-af", "ebur128=peak=true", "-f", "null", "-"]
    log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    summary = log[log.rindex("Summary:") :]
    lufs, peak = re.search(r"I:\s+(\S+) LUFS", summary), re.search(r"Peak:\s+(\S+) dBFS", summary)
    if lufs is None or peak is None:
        raise RuntimeError("ffmpeg's ebur128 gave no summary")
    return float(lufs[1]), float(peak[1])


def sox_offset(path: Path) -> float:
    """The mean of the worse channel by sox, a share of full scale."""
    log = subprocess.run(["sox", str(path), "-n", "stats"], check=True, capture_output=True, text=True).stderr
    row = next(line for line in log.splitlines() if line.startswith("DC offset"))
    return max(abs(float(number)) for number in row.split()[2:])


def lufs(sound: Sound) -> float:
    import pyloudnorm

    meter = pyloudnorm.Meter(RATE_HZ, filter_class="DeMan")
    return float(meter.integrated_loudness(np.ascontiguousarray(sound.T, np.float64)))


def level_db(sound: Sound) -> float:
    """RMS over all channels."""
    return float(10 * np.log10(np.mean(np.square(sound, dtype=np.float64)) + _NOTHING))


def levels_db(sound: Sound, window_s: float) -> NDArray[np.float64]:
    """RMS over all channels of each window."""
    width = round(window_s * RATE_HZ)
    whole = sound[:, : sound.shape[1] // width * width].astype(np.float64)
    return _decibels(np.square(whole).reshape(len(sound), -1, width).mean(axis=(0, 2)))


def gain_db(source: Sound, master: Sound, window_s: float = 0.02) -> NDArray[np.float64]:
    """Gain from source to master in each window, NaN where the source is 70 dB below its loudest window."""
    bandpass = signal.butter(2, _MUSIC_HZ, "band", fs=RATE_HZ, output="sos")
    before, after = (levels_db(signal.sosfiltfilt(bandpass, each), window_s) for each in (source, master))
    return np.where(before > before.max() - 70, after - before, np.nan)


def reduction_db(source: Sound, master: Sound) -> NDArray[np.float64]:
    """By how much each window is below the gain that the song's least reduced ones have (their 95th percentile)."""
    gains = gain_db(source, master)
    return np.nanpercentile(gains, 95) - gains[np.isfinite(gains)]


def quietest_db(sound: Sound, window_s: float = 0.3) -> float:
    """The level of the quietest stretch: the noise between notes."""
    return float(levels_db(sound, window_s).min())


def band_lost_db(source: Sound, master: Sound, low_hz: float, high_hz: float) -> float:
    """What a band has lost against 200 to 2000 Hz, of both channels' energy."""

    def relative(sound: Sound) -> float:
        hz, power = _spectrum(sound)
        in_band = power[(hz >= low_hz) & (hz <= high_hz)].sum()
        return float(10 * np.log10((in_band + _NOTHING) / (power[(hz >= 200) & (hz <= 2000)].sum() + _NOTHING)))

    return relative(source) - relative(master)


def moved_db(source: Sound, master: Sound) -> NDArray[np.float64]:
    """What each third octave has gained, the mean from 60 Hz to 12 kHz taken out; NaN where the source is silent."""
    before, after = (_third_octaves_db(sound.mean(axis=0, keepdims=True)) for sound in (source, master))
    change = np.where(before > before.max() - 60, after - before, np.nan)
    middle = (_CENTRES_HZ >= 60) & (_CENTRES_HZ <= 12_000)
    moved: NDArray[np.float64] = change - np.nanmean(change[middle])
    return moved


def character(sound: Sound) -> dict[str, NDArray[np.float64]]:
    """Spectra (third octaves), level quantiles, width and crest, relative to the loudness, all in dB."""
    loudness = lufs(sound)
    mid, side = (sound[0] + sound[1]) / 2, (sound[0] - sound[1]) / 2
    spectra = {name: _third_octaves_db(part[None]) - loudness for name, part in (("mid", mid), ("side", side))}
    levels = levels_db(sound, 0.1)
    heard = levels[levels > levels.max() - 30]
    spans = np.abs(sound[:, : sound.shape[1] // (3 * RATE_HZ) * 3 * RATE_HZ]).reshape(len(sound), -1, 3 * RATE_HZ)
    powers = levels_db(sound, 3.0)
    peaks = 20 * np.log10(spans.max(axis=(0, 2)) + _NOTHING)
    return {
        **spectra,
        "levels": np.quantile(heard - loudness, (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)),
        "width": np.array([level_db(side[None]) - level_db(mid[None])]),
        "crest": np.array([float((peaks - powers)[powers > powers.max() - 40].mean())]),
    }


def _third_octaves_db(sound: Sound) -> NDArray[np.float64]:
    hz, power = _spectrum(sound)
    bands = [power[(hz >= centre * 10**-0.05) & (hz < centre * 10**0.05)].sum() for centre in _CENTRES_HZ]
    return _decibels(np.array(bands))


def _decibels(powers: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 10 * np.log10(powers + _NOTHING)
    return found


def _spectrum(sound: Sound) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    hz, power = signal.welch(sound.astype(np.float64), RATE_HZ, nperseg=min(16_384, sound.shape[1]))
    return hz, power.sum(axis=0)
