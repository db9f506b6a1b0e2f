"""What the engine's benchmarks work on: real songs where they can be found, synthesised music elsewhere."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from mastering.engine.demo import demo_song

Samples = NDArray[np.float32]

RATE_HZ = 44_100
FOLDER = Path(os.environ.get("MASTERING_TEST_AUDIO") or Path(__file__).parents[3] / "shared" / "audio")


@cache
def song(name: str) -> Samples:
    """Float32 (2, frames) at 44.1 kHz; the demo song, at another pitch for another name, if there is no such file."""
    path = FOLDER / f"{name}.ogg"
    if not path.exists():
        return demo_song(RATE_HZ, 60.0, seed=len(name))
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.T)


def lasting(samples: Samples, seconds: float) -> Samples:
    """The song repeated to `seconds`."""
    frames = round(seconds * RATE_HZ)
    return np.tile(samples, (1, -(-frames // samples.shape[1])))[:, :frames]


def as_wav(samples: Samples, subtype: str = "PCM_24") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.T, RATE_HZ, format="WAV", subtype=subtype)
    return file.getvalue()
