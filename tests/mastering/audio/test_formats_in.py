"""Files as ffmpeg makes them, in every container that is read: the probe and the engine find the same in each."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mastering.audio import decode, loading
from mastering.cli import EXIT_CODES
from mastering.contract import Fault, FaultCode
from tests.mastering.probe.test_probe import ForkServerProcess
from tests.mastering.sound import ffmpeg, music, wav

_PICTURES = ("-f", "lavfi", "-i", "testsrc=s=64x48:r=10:d=4")
_SOUND = [
    ("wma", "wmav1"), ("wma", "wmav2"), ("caf", "alac"), ("caf", "pcm_s24le"), ("m4a", "aac"), ("m4a", "alac"),
    ("opus", "libopus"), ("oga", "flac"), ("mp3", "libmp3lame"),
    ("aac", "aac"), ("mp2", "mp2"), ("ac3", "ac3"), ("eac3", "eac3"), ("au", "pcm_s16be"), ("w64", "pcm_s24le"),
    ("wv", "wavpack"),
]  # fmt: skip
_VIDEO = [
    ("mp4", "mpeg4", "aac"), ("mp4", "mpeg4", "ac3"), ("mp4", "mpeg4", "eac3"), ("mp4", "mpeg4", "libmp3lame"),
    ("mov", "mpeg4", "pcm_s24le"), ("mov", "mpeg4", "pcm_s16be"), ("mov", "mpeg4", "alac"),
    ("webm", "libvpx", "libopus"), ("webm", "libvpx", "libvorbis"), ("mkv", "mpeg4", "flac"),
]  # fmt: skip
_NOT_READ = [("tta", "tta"), ("spx", "libspeex"), ("mka", "tta")]
_FRAMES = 4 * 48_000
_CODER_FRAMES = 4096
"""What a coder may add or drop at both ends together."""


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServerProcess]:
    fork_server = ForkServerProcess()
    yield fork_server
    fork_server.control.close()
    assert fork_server.process.wait(20) == 0


def _made(folder: Path, suffix: str, codec: str, pictures: str | None = None) -> Path:
    (folder / "in.wav").write_bytes(wav(music(48_000, seconds=4), 48_000, subtype="PCM_24"))
    target = folder / f"song.{suffix}"
    sound = ("-i", folder / "in.wav", "-c:a", codec)
    ffmpeg(*(_PICTURES if pictures else ()), *sound, *(("-c:v", pictures, "-shortest") if pictures else ()), target)
    return target


def _by_engine(data: bytes) -> tuple[str, int, int, int, bool] | FaultCode:
    """What the engine makes of it, as the probe says it."""
    try:
        song = decode.open_recording(io.BytesIO(data))
        frames = sum(block.shape[1] for block in loading.checked_blocks(song, lambda frames: None))
    except Fault as fault:
        return fault.code
    return song.codec, song.rate_hz, song.channels, frames, song.lossy


def _by_probe(fork_server: ForkServerProcess, data: bytes) -> tuple[str, int, int, int, bool] | FaultCode:
    said = fork_server.probe(data)
    if "fault" in said:
        return FaultCode(said["fault"]["code"])
    facts = said["ok"]
    return facts["codec"], facts["rate_hz"], facts["channels"], facts["frames"], facts["lossy"]


@pytest.mark.parametrize(("suffix", "codec"), _SOUND)
def test_sound_is_decoded_whole_by_the_probe_and_by_the_engine(
    fork_server: ForkServerProcess, tmp_path: Path, suffix: str, codec: str
) -> None:
    song = _made(tmp_path, suffix, codec).read_bytes()
    found = _by_engine(song)
    assert isinstance(found, tuple), found
    assert (found[1], found[2]) == (48_000, 2)
    assert abs(found[3] - _FRAMES) <= _CODER_FRAMES
    assert _by_probe(fork_server, song) == found


@pytest.mark.parametrize(("suffix", "pictures", "codec"), _VIDEO)
def test_the_sound_of_a_video_is_decoded_whole_by_both(
    fork_server: ForkServerProcess, tmp_path: Path, suffix: str, pictures: str, codec: str
) -> None:
    song = _made(tmp_path, suffix, codec, pictures).read_bytes()
    found = _by_engine(song)
    assert isinstance(found, tuple), found
    assert abs(found[3] - _FRAMES) <= _CODER_FRAMES
    assert _by_probe(fork_server, song) == found


@pytest.mark.parametrize(("suffix", "codec"), _NOT_READ)
def test_what_is_not_read_is_refused_by_both_with_one_code(
    fork_server: ForkServerProcess, tmp_path: Path, suffix: str, codec: str
) -> None:
    song = _made(tmp_path, suffix, codec).read_bytes()
    assert (_by_engine(song), _by_probe(fork_server, song)) == (FaultCode.UNSUPPORTED_FORMAT,) * 2


def test_a_video_without_sound_is_refused_by_both(fork_server: ForkServerProcess, tmp_path: Path) -> None:
    ffmpeg(*_PICTURES, "-an", tmp_path / "silent.mp4")
    film = (tmp_path / "silent.mp4").read_bytes()
    assert (_by_engine(film), _by_probe(fork_server, film)) == (FaultCode.UNSUPPORTED_FORMAT,) * 2


@pytest.mark.parametrize(("suffix", "codec"), [("wma", "wmav2"), ("caf", "pcm_s24le"), ("caf", "alac")])
def test_a_file_cut_off_is_called_truncated_by_both(
    fork_server: ForkServerProcess, tmp_path: Path, suffix: str, codec: str
) -> None:
    song = _made(tmp_path, suffix, codec).read_bytes()
    cut = song[: len(song) * 6 // 10]
    assert (_by_engine(cut), _by_probe(fork_server, cut)) == (FaultCode.TRUNCATED,) * 2


@pytest.mark.parametrize(("suffix", "codec", "pictures"), [("wma", "wmav2", None), ("mp4", "aac", "mpeg4")])
def test_the_command_masters_a_wma_and_the_sound_of_a_film(
    tmp_path: Path, suffix: str, codec: str, pictures: str | None
) -> None:
    song = _made(tmp_path, suffix, codec, pictures)
    command = Path(sys.executable).with_name("mastering")
    done = subprocess.run(
        [command, "master", song.name, "-o", "out.flac"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Lossy source" in done.stdout
    raw = _made(tmp_path, "tta", "tta")
    done = subprocess.run(
        [command, "master", raw.name, "-o", "no.flac"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_CODES[FaultCode.UNSUPPORTED_FORMAT]
    assert done.stderr.count("\n") == 1
