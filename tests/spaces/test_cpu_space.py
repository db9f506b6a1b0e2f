"""The CPU Space as a real process: a song in, the master out, the same PCM as the command's."""

from __future__ import annotations

import hashlib
import io
import secrets
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mastering.contract import OutputFormat, Settings
from mastering.protocol.frames import PROTOCOL_VERSION
from tests import warm_start
from tests.mastering.sound import wav
from tests.songs import demo, real_song
from tests.space_process import SpaceProcess, call, fetch, put

SETTINGS = Settings(style="warm", outputs=(OutputFormat.WAV24, OutputFormat.FLAC))


@pytest.fixture(scope="module")
def space(cpu_space: SpaceProcess) -> SpaceProcess:
    return cpu_space


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo(tmp_path_factory.mktemp("song") / "song.wav", 8)


def by_command(song: Path, folder: Path, settings: Settings, *more: str | Path) -> np.ndarray:
    """The samples of the 24-bit WAV that `mastering master` makes of the same song with the same settings."""
    target = folder / "master.wav"
    asked = ["-f", "wav24", "--style", settings.style, "--target", settings.target, *more]
    warm_start.run("mastering.cli:main", ["master", song, "-o", target, *asked]).check_returncode()
    return pcm(target.read_bytes())


def pcm(master: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(master), dtype="int32")[0]


def test_its_health_says_what_the_router_needs_to_know(space: SpaceProcess) -> None:
    health = space.health()
    assert health["protocol"] == PROTOCOL_VERSION
    assert (health["hardware"], health["device"], health["state"]) == ("cpu", "cpu", "ready")
    assert health["slots"] == {"total": 2, "free": 2}


def test_a_song_comes_back_as_the_same_samples_that_the_command_makes(
    space: SpaceProcess, song: Path, tmp_path: Path
) -> None:
    job = secrets.token_hex(16)
    assert put(space, job, song).status_code == 201
    events: list[dict[str, object]] = []
    last = call(space, job, SETTINGS, on_event=events.append)
    assert last["type"] == "end", last
    assert np.array_equal(by_command(song, tmp_path, SETTINGS), pcm(fetch(space, job)))
    kinds = [str(event["type"]) for event in events]
    assert kinds[0] == "accepted"
    assert {"progress", "report", "part"} <= set(kinds)
    assert last["report"] == next(event for event in events if event["type"] == "report")["report"]


def test_what_it_announces_is_what_it_hands_out(space: SpaceProcess, song: Path) -> None:
    job = secrets.token_hex(16)
    put(space, job, song)
    announced = call(space, job, SETTINGS)["outputs"]
    assert [output["format"] for output in announced] == ["wav24", "flac"]
    for output in announced:
        data = fetch(space, job, output["format"])
        assert (output["size"], output["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.songs
def test_a_real_song_is_mastered_as_the_command_does_it(space: SpaceProcess, tmp_path: Path) -> None:
    song, job = real_song("vibe_ace.ogg"), secrets.token_hex(16)
    put(space, job, song)
    assert call(space, job)["type"] == "end"
    assert np.array_equal(by_command(song, tmp_path, Settings()), pcm(fetch(space, job)))


def test_silence_is_a_fault_with_the_engines_own_code(space: SpaceProcess) -> None:
    job = secrets.token_hex(16)
    put(space, job, wav(np.zeros((2, 88_200), np.float32)))
    last = call(space, job)
    assert (last["type"], last["code"]) == ("fault", "silent")
