"""Songs for tests: synthesised by the engine's own demo, written as files of any length."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from mastering.engine.demo import demo_song

RATE_HZ = 44_100


def demo(path: Path, seconds: float = 30.0, *, subtype: str = "PCM_16") -> Path:
    """The engine's demo song, repeated to `seconds`, in the format that the path's suffix names."""
    samples = demo_song(RATE_HZ)
    frames = round(seconds * RATE_HZ)
    repeated = np.tile(samples, (1, -(-frames // samples.shape[1])))[:, :frames]
    sf.write(path, repeated.T, RATE_HZ, subtype=subtype)
    return path


def real_song(name: str) -> Path:
    """One of the real songs, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("MASTERING_TEST_AUDIO", Path(__file__).parent.parent.parent / "shared" / "audio"))
    song = folder / name
    if not song.is_file():
        if os.environ.get("CI") == "true" and folder.is_dir():
            pytest.fail(f"{name} is missing from the folder of real songs")
        pytest.skip(f"no real songs: set MASTERING_TEST_AUDIO to a folder that holds {name}")
    return song
