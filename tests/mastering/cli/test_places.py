"""Where a command line reads and writes: nothing named twice is overwritten, nothing that is no file is replaced."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests import warm_start
from tests.mastering.sound import music, wav

_COMMAND = f"{sys.executable} -c 'from mastering.cli import main; main()'"
LONGEST = "n" * 251 + ".wav"


def _run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return warm_start.run("mastering.cli:main", arguments, folder=folder)


@pytest.fixture(scope="module")
def song() -> bytes:
    return wav(music(seconds=2))


@pytest.fixture
def folder(tmp_path: Path, song: bytes) -> Path:
    for name in ("song.wav", "other.wav"):
        (tmp_path / name).write_bytes(song)
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "symlink.wav").symlink_to("song.wav")
    (tmp_path / "hard-link.wav").hardlink_to(tmp_path / "song.wav")
    (tmp_path / "here").symlink_to(".")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("master", "song.wav", "-o", "m.wav", "--report", "song.wav"), "the output song.wav would overwrite"),
        (("master", "song.wav", "-o", "m.wav", "--report", "symlink.wav"), "would overwrite the input song.wav"),
        (("master", "song.wav", "-o", "m.wav", "--report", "hard-link.wav"), "would overwrite the input song.wav"),
        (("master", "song.wav", "-o", "m.wav", "--report", "here/here/song.wav"), "would overwrite the input song.wav"),
        (("master", "song.wav", "-o", "m.wav", "--report", "here/m.wav"), "m.wav and here/m.wav are one file"),
        (("master", "song.wav", "-o", "m.wav", "-o", "m.wav", "-f", "wav16"), "Two outputs of the format wav16"),
        (("master", "song.wav", "-o", "m.wav", "-r", "other.wav", "--report", "other.wav"), "the input other.wav"),
        (("master", "song.wav", "-o", "other.wav", "-r", "other.wav"), "would overwrite the input other.wav"),
        (("render", "song.wav", "--plan", "plan.json", "-o", "plan.json", "-f", "flac"), "the input plan.json"),
        (("render", "song.wav", "--plan", "plan.json", "-o", "here/song.wav"), "would overwrite the input song.wav"),
        (("render", "song.wav", "--plan", "deep.json", "-o", "m.wav"), "This is no plan"),
        (("album", "song.wav", "other.wav", "-o", "."), "would overwrite the input song.wav"),
        (("album", "song.wav", "here/song.wav", "-o", "new"), "song.wav and here/song.wav would both become new/song"),
        (("--presets", "presets.toml", "demo-song", "presets.toml"), "would overwrite the input presets.toml"),
        (("master", "song.wav", "-o", "here", "-f", "flac"), "the output here is a folder"),
        (("master", "-", "-o", "m.wav", "-r", "-"), "standard input can be read but once"),
        (("compare", "-", "-"), "standard input can be read but once"),
        (("compare", "pipe", "here/pipe"), "here/pipe is a pipe, and can be read but once"),
        (("verify-plan", "song.wav", "absent.wav", "--plan", "plan.json"), "cannot read absent.wav"),
        (("album", "-", "-o", "new"), "standard input has none"),
        (("master", "song.wav", "-o", "-"), "extension says no format"),
        (("master", "song.wav", "-o", "-", "-f", "flac", "--json"), "standard output can't hold both"),
        (("album", "song.wav", "absent.wav", "-o", "new"), "cannot read absent.wav: no such file"),
        (("master", "song.wav", "-o", "n" * 252 + ".wav"), "file name too long"),
        (("master", "song.wav", "-o", "m.wav", "--report", "n" * 256), "file name too long"),
        (("preview", "song.wav", "-o", "song.wav"), "not a directory"),
        (("analyse", "."), "cannot read .: is a directory"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_one_line_before_anything_is_written(
    arguments: tuple[str, ...], said: str, folder: Path
) -> None:
    (folder / "presets.toml").write_text("[targets]\n[styles]\n")
    before = _contents(folder)
    done = _run(*arguments, folder=folder)
    assert done.returncode in (1, 2, 21)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert said in done.stderr
    assert _contents(folder) == before
    assert not (folder / "new").exists()


@pytest.mark.parametrize("twin", ["Song.wav", "song.flac", "SONG.WAV"])
def test_songs_that_one_file_system_or_another_gives_one_master_are_refused(twin: str, folder: Path) -> None:
    (folder / "twin").mkdir()
    (folder / "twin" / twin).write_bytes(b"")
    done = _run("album", "song.wav", f"twin/{twin}", "-o", "new", folder=folder)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"song.wav and twin/{twin} would both become new/" in done.stderr
    assert not (folder / "new").exists()


def test_an_album_makes_its_folder(folder: Path) -> None:
    done = _run("album", "song.wav", "other.wav", "-o", "new/er", "-f", "flac", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (folder / "new/er").iterdir()) == ["other.flac", "song.flac"]


def test_the_longest_names_are_read_and_written(song: bytes, tmp_path: Path) -> None:
    (tmp_path / LONGEST).write_bytes(song)
    assert _run("master", LONGEST, "-o", LONGEST.upper().replace("WAV", "wav"), folder=tmp_path).returncode == 0
    done = _run("preview", LONGEST, "-o", "previews", "--seconds", "5", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    names = [path.name for path in (tmp_path / "previews").iterdir()]
    assert {len(name) for name in names} == {255}
    assert any(name.endswith("n (neutral).wav") for name in names)


def test_a_song_goes_through_pipes_and_standard_streams_as_through_files(song: bytes, folder: Path) -> None:
    assert _run("master", "song.wav", "-o", "file.wav", folder=folder).returncode == 0
    usual = (folder / "file.wav").read_bytes()
    os.mkfifo(folder / "out")
    with ThreadPoolExecutor(2) as others:
        others.submit((folder / "pipe").write_bytes, song)
        got = others.submit((folder / "out").read_bytes)
        through = _run("master", "pipe", "-o", "out", "-f", "wav24", folder=folder)
        assert (through.returncode, through.stderr) == (0, "")
        assert got.result() == usual
        others.submit((folder / "pipe").write_bytes, usual)
        certified = _run("certify", "pipe", folder=folder)  # by two sets of meters, each of which reads all of it
        assert (certified.returncode, certified.stderr) == (0, "")
    assert stat.S_ISFIFO((folder / "out").stat().st_mode)
    command = f"cat song.wav | {_COMMAND} master - -o - -o also.flac -f wav24 --report page.html > stdout.wav"
    piped = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)  # noqa: S602
    assert piped.returncode == 0
    assert "integrated loudness" in piped.stderr, "the table is told beside the master"
    assert (folder / "stdout.wav").read_bytes() == usual
    assert soundfile.info(folder / "also.flac").format == "FLAC"
    assert "<html" in (folder / "page.html").read_text("utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_part_of_a_master(number: int, tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(wav(np.tile(music(seconds=2), 15)))
    arguments = ["master", "song.wav", "-o", "m.wav", "-o", "m.mp3", "--report", "page.html"]
    with (tmp_path / "said").open("w+b") as said:
        process = warm_start.start("mastering.cli:main", arguments, os.environ, said, said, tmp_path)
        try:
            end = time.monotonic() + 60
            while len(list(tmp_path.glob(".*.part"))) < 3 and time.monotonic() < end:
                time.sleep(0.005)
            process.send_signal(number)
            assert process.wait(60) == 128 + number
        finally:
            process.kill()
    assert (tmp_path / "said").read_text() == "mastering: stopped.\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["said", "song.wav"]
