"""Half a minute of synthesised music, to try the engine with: drums, bass, chords and a lead at 112 bpm.

Deterministic, and rough on purpose: it has dynamics, a wide side signal and an uneven spectrum, so that mastering it
does something.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mastering.audio import encode
from mastering.contract import OutputFormat
from mastering.dsp.stream import Samples, stored

_BEAT_S = 60 / 112
_CHORDS = ((45, 52, 57, 60, 64), (41, 48, 57, 60, 65), (48, 55, 60, 64, 67), (43, 50, 59, 62, 67))
"""MIDI notes, one chord a bar of four beats; the first is the bass."""
_LEAD = (76, 0, 74, 72, 0, 69, 72, 74, 76, 0, 79, 76, 74, 0, 72, 0)

Wave = NDArray[np.float64]


def demo_song(rate_hz: int = 44_100, seconds: float = 30.0, seed: int = 7) -> Samples:
    """Float32 (2, frames), peaks near −6 dBFS."""
    frames = round(rate_hz * seconds)
    random = np.random.Generator(np.random.PCG64(seed))
    song = np.zeros((2, frames))
    beats = int(seconds / _BEAT_S) + 1
    for beat in range(beats):
        _play_drums(song, beat, rate_hz, random)
    for bar in range(-(-beats // 4)):
        _play_bar(song, bar, rate_hz)
    song *= 0.5 / np.abs(song).max()
    return song.astype(np.float32)


def write_demo_song(target: BinaryIO) -> None:
    """Write the demo song as 24-bit WAV at 44.1 kHz."""
    encode.encode(stored(demo_song(44_100), 44_100), OutputFormat.WAV24, target, seed=0, tick=lambda frames: None)


def _play_bar(song: Wave, bar: int, rate_hz: int) -> None:
    chord = _CHORDS[bar % len(_CHORDS)]
    # The arrangement grows: chords alone, then bass, then the lead.
    for voice, note in enumerate(chord[1:]):
        pan = (-0.8, 0.8, -0.4, 0.4)[voice]
        _mix(song, bar * 4, _pad(note, 4 * _BEAT_S, rate_hz, detune=0.1 * pan), 0.1, pan, rate_hz)
    if bar >= 2:
        for eighth in range(8):
            _mix(song, bar * 4 + eighth / 2, _bass(chord[0] - 12, _BEAT_S / 2, rate_hz), 0.3, 0.0, rate_hz)
    if bar >= 4:
        for step in range(8):
            note = _LEAD[(bar * 8 + step) % len(_LEAD)]
            if note:
                _mix(
                    song, bar * 4 + step / 2, _bell(note, _BEAT_S * 1.4, rate_hz), 0.14, 0.3 - 0.1 * (step % 4), rate_hz
                )


def _play_drums(song: Wave, beat: int, rate_hz: int, random: np.random.Generator) -> None:
    if beat % 2 == 0:
        _mix(song, beat, _kick(rate_hz), 0.7, 0.0, rate_hz)
    if beat % 2 == 1 and beat > 8:
        _mix(song, beat, _noise(0.18, 18, 1200, rate_hz, random), 0.35, 0.05, rate_hz)
    for half in (0.0, 0.5):
        _mix(song, beat + half, _noise(0.06, 60, 7000, rate_hz, random), 0.12, 0.5 - half, rate_hz)


def _mix(song: Wave, beat: float, sound: Wave, level: float, pan: float, rate_hz: int) -> None:
    start = round(beat * _BEAT_S * rate_hz)
    part = sound[: max(0, song.shape[1] - start)]
    for channel, side in enumerate((1 - pan, 1 + pan)):
        song[channel, start : start + part.size] += part * level * side


def _time(seconds: float, rate_hz: int) -> Wave:
    return np.arange(round(seconds * rate_hz)) / rate_hz


def _hertz(note: float) -> float:
    return float(440 * 2 ** ((note - 69) / 12))


def _pad(note: int, seconds: float, rate_hz: int, detune: float) -> Wave:
    time = _time(seconds, rate_hz)
    wave = sum(np.sin(2 * np.pi * _hertz(note + detune) * k * time + k * detune * 9) / k**1.4 for k in range(1, 9))
    return np.asarray(wave * np.minimum(1, time / 0.08) * np.minimum(1, (seconds - time) / 0.15))


def _bass(note: int, seconds: float, rate_hz: int) -> Wave:
    time = _time(seconds, rate_hz)
    wave = sum(np.sin(2 * np.pi * _hertz(note) * k * time) / k**1.7 for k in range(1, 6))
    return np.asarray(wave * np.minimum(1, time / 0.004) * np.exp(-time * 5) * np.minimum(1, (seconds - time) / 0.01))


def _bell(note: int, seconds: float, rate_hz: int) -> Wave:
    time = _time(seconds, rate_hz)
    tone = np.sin(2 * np.pi * _hertz(note) * time + 1.5 * np.exp(-time * 9) * np.sin(4 * np.pi * _hertz(note) * time))
    return np.asarray(tone * np.minimum(1, time / 0.003) * np.exp(-time * 4))


def _kick(rate_hz: int) -> Wave:
    time = _time(0.3, rate_hz)
    return np.asarray(np.sin(2 * np.pi * (48 * time - 4.5 * np.exp(-time * 28))) * np.exp(-time * 11))


def _noise(seconds: float, decay: float, above_hz: float, rate_hz: int, random: np.random.Generator) -> Wave:
    from scipy import signal  # half a second to import, which only who wants the demo song shall wait for

    time = _time(seconds, rate_hz)
    band = (min(above_hz, rate_hz * 0.2), min(15_000, rate_hz * 0.4))
    sos = signal.butter(2, band, "bandpass", fs=rate_hz, output="sos")
    return np.asarray(signal.sosfilt(sos, random.standard_normal(time.size)) * np.exp(-time * decay))
