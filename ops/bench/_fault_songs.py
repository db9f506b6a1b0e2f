"""What the faults group masters: synthesised material that went wrong once, and the real songs that did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from scipy import signal

from ops.bench.songs import FOLDER, RATE_HZ, Samples

CLICK_EVERY_S, FIRST_CLICK_S = 1.0, 0.5
"""Of `clicks`."""
POP_S = 3.0
"""Where the pop of `one_pop` is."""


def real_song(name: str) -> Samples | None:
    """A real song, mono in both channels; None where it can't be found."""
    path: Path = FOLDER / f"{name}.ogg"
    if not path.exists():
        return None
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    if rate_hz != RATE_HZ:
        samples = signal.resample_poly(samples, RATE_HZ, rate_hz).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(samples.T, (2, len(samples))))


def plucked(seconds: float, root_hz: float = 220.0) -> Samples:
    """Plucked chords, a bass and hits of noise: music with everything that the other signals leave out."""
    time, random = _time(seconds), np.random.default_rng(7)
    song = np.zeros((2, time.size))
    for beat in range(int(seconds * 2)):
        at = round(beat * RATE_HZ / 2)
        left, fading = time[: time.size - at], np.exp(-4 * time[: time.size - at])
        step = (1.0, 1.122, 0.891, 1.0)[beat // 4 % 4]
        for pan, interval in ((0.25, 1.0), (0.5, 1.26), (0.75, 1.498)):
            wave = 0.12 * fading * np.sin(2 * np.pi * root_hz * interval * step * left)
            song[:, at:] += np.array([[pan], [1 - pan]]) * wave
        song[:, at:] += 0.2 * fading * np.sin(2 * np.pi * root_hz / 4 * left)
        hit = random.standard_normal(min(2000, left.size)) * np.exp(-np.arange(min(2000, left.size)) / 300)
        song[:, at : at + hit.size] += 0.05 * hit
    return _to_peak(song, 0.8)


def sparse_solo(seconds: float = 8.0) -> Samples:
    """Three notes a second and a half apart that die away, over noise at −93 dBFS."""
    time, random = _time(seconds), np.random.default_rng(11)
    song = 10 ** (-93 / 20) * random.standard_normal((2, time.size))
    for start_s, hz in ((0.0, 349.2), (1.5, 440.0), (3.0, 523.3)):
        at = round(start_s * RATE_HZ)
        left = time[: time.size - at]
        song[:, at:] += 0.25 * np.exp(-2.5 * left) * np.sin(2 * np.pi * hz * left)
    return song.astype(np.float32)


def wide_in_range(seconds: float = 24.0) -> Samples:
    """Music that swells from very soft to loud and back, as an orchestra does."""
    song = plucked(seconds, 330.0)
    swell_db = -34 + 34 * np.sin(np.pi * _time(seconds) / 8.0) ** 2
    return (song * 10 ** (swell_db / 20)).astype(np.float32)


def drum_and_bass(seconds: float = 12.0) -> Samples:
    """174 beats a minute: a sine of 45 to 60 Hz, kicks, snares, and hats up to half the sample rate."""
    time, random = _time(seconds), np.random.default_rng(174)
    song = 0.35 * np.sin(2 * np.pi * (50 + 8 * np.sign(np.sin(2 * np.pi * time / 2.76))) * time)[None].repeat(2, 0)
    sixteenth = 60 / 174 / 4
    for step in range(int(seconds / sixteenth) - 2):
        at, left = round(step * sixteenth * RATE_HZ), np.arange(9000) / RATE_HZ
        part = song[:, at : at + 9000]
        left = left[: part.shape[1]]
        if step % 16 in (0, 10):
            part += 0.9 * np.exp(-28 * left) * np.sin(2 * np.pi * (48 * left + 6 * (1 - np.exp(-40 * left))))
        if step % 8 == 4:
            part += 0.6 * np.exp(-22 * left) * random.standard_normal((2, left.size))
        hat = np.diff(random.standard_normal((2, left.size + 2)), n=2) * np.exp(-160 * left)
        part += (0.25, 0.12, 0.2, 0.12)[step % 4] * hat
    return _to_peak(np.tanh(1.5 * song), 0.98)


def brass(seconds: float = 8.0) -> Samples:
    """Tones whose wave is much higher than it is deep, as a trumpet's is: limiting takes one side of it."""
    time = _time(seconds)
    hz = 233.1 * 2 ** (np.floor(time * 2) % 5 / 6)
    phase = 2 * np.pi * np.cumsum(hz) / RATE_HZ
    wave = sum(np.cos(k * phase) / k**0.6 for k in range(1, 24))
    swell = 0.4 + 0.6 * np.abs(np.sin(np.pi * time))
    return _to_peak(np.stack([wave * swell, 0.9 * wave * swell]), 0.7)


def one_pop() -> Samples:
    """A quiet song with one sample of 0.9."""
    song = plucked(8.0) * np.float32(10 ** (-30 / 20))
    song[:, round(POP_S * RATE_HZ)] = 0.9
    return song


def clicks(seconds: float, width: int) -> Samples:
    """Pink noise at −80 dBFS, and `width` samples of full scale each second."""
    frames, random = round(seconds * RATE_HZ), np.random.default_rng(3)
    bins = np.fft.rfft(random.standard_normal((2, frames)))
    hz = np.fft.rfftfreq(frames, 1 / RATE_HZ)
    noise = np.fft.irfft(bins * (hz > 20) / np.sqrt(np.maximum(hz, 20)), frames)
    noise *= 10 ** (-80 / 20) / np.sqrt(np.mean(noise**2))
    for click in click_frames(frames):
        noise[:, click : click + width] = 1.0
    return np.ascontiguousarray(noise, np.float32)


def click_frames(frames: int) -> list[int]:
    return list(range(round(FIRST_CLICK_S * RATE_HZ), frames, round(CLICK_EVERY_S * RATE_HZ)))


def one_huge_sample() -> Samples:
    """A song with one sample of 17,500 times full scale, as a float file may have."""
    song = plucked(8.0)
    song[:, round(POP_S * RATE_HZ)] = 17_500
    return song


def silence_with_a_click(seconds: float = 10.0) -> Samples:
    song = np.zeros((2, round(seconds * RATE_HZ)), np.float32)
    song[:, song.shape[1] // 2] = 1.0
    return song


def tilted(song: Samples, db_per_octave: float) -> Samples:
    """The song with its spectrum tilted around 1 kHz: a reference that is far away."""
    bins = np.fft.rfft(song.astype(np.float64))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(song.shape[1], 1 / RATE_HZ), 20) / 1000)
    return _to_peak(np.fft.irfft(bins * 10 ** (db_per_octave * octaves / 20), song.shape[1]), 0.9)


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE_HZ)) / RATE_HZ


def _to_peak(song: np.ndarray, peak: float) -> Samples:
    return np.ascontiguousarray(song * (peak / np.abs(song).max()), np.float32)
