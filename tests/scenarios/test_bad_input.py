"""Songs that can't be mastered, through the real API with the real probe, and through `router submit`.

Each ends in its own stable code and one sentence, and leaves neither audio nor key behind.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mastering.contract import MAX_INPUT_BYTES
from tests import warm_start
from tests.api import Api
from tests.hostile_audio import noise, written
from tests.stack import Stack

SIZE_600_MB = 600 * 1000 * 1000
REFUSED, UNREACHABLE, UNUSABLE = 3, 4, 2


class Bad(NamedTuple):
    make: Callable[[], bytes]
    code: str
    says: str
    """A part of the sentence that the person reads."""


def cut_flac() -> bytes:
    whole = written(noise(3.0), kind="FLAC")
    return whole[: len(whole) // 2]


def with_nan() -> bytes:
    samples = noise(2.0)
    samples[50_000, 0] = np.nan
    return written(samples, subtype="FLOAT")


@cache
def three_hours() -> bytes:
    """Silence with a tick each second: small as a file, long as a song."""
    ticks = np.zeros((8000 * 3 * 3600, 1), np.int16)
    ticks[::8000] = 9000
    return written(ticks, 8000, "FLAC", "PCM_16")


BAD = {
    "an empty file": Bad(bytes, "empty_file", "empty"),
    "a text renamed .wav": Bad(lambda: b"Dear diary, this is not a song.\n" * 300, "unsupported_format", "WAV"),
    "a FLAC that was cut": Bad(cut_flac, "truncated", "whole"),
    "samples that are no numbers": Bad(with_nan, "not_finite", "Export it again"),
    "three hours of audio": Bad(three_hours, "too_long", "at most 90"),
}
cases = pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())


@pytest.fixture(scope="module")
def running(shared_router: Stack) -> Stack:
    return shared_router


@pytest.fixture
def api(running: Stack) -> Iterator[Api]:
    with Api(running.url) as client:
        yield client


def assert_nothing_left(running: Stack) -> None:
    assert [path.name for path in running.spool_dir.iterdir()] == ["CACHEDIR.TAG"]
    assert list((running.ram_dir / "keys").iterdir()) == []


@cases
def test_a_song_that_can_not_be_mastered_is_told_why_and_forgotten(running: Stack, api: Api, bad: Bad) -> None:
    job = api.create()
    response = api.upload(job["id"], bad.make())
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, bad.code)
    assert response.headers["content-type"] == "application/problem+json"
    assert bad.says in problem["detail"]
    assert "/" not in problem["detail"].replace("and/or", "")
    shown = api.show(job["id"])
    assert (shown["state"], shown["error"]["code"], shown["facts"]) == ("failed", bad.code, None)
    assert shown["receipt"]["input_key_destroyed_at"] is not None
    assert_nothing_left(running)
    assert api.http.delete(f"/v1/jobs/{job['id']}").status_code == 200


def test_600_mb_are_refused_before_a_byte_of_them_is_sent(running: Stack, api: Api) -> None:
    response = api.http.post("/v1/jobs", json={"size_bytes": SIZE_600_MB})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (413, "too_large")
    assert (problem["size_bytes"], problem["allowed_bytes"]) == (SIZE_600_MB, MAX_INPUT_BYTES)
    assert "572 MiB" in problem["detail"]
    assert "512 MiB" in problem["detail"]
    assert_nothing_left(running)


def submit(running_url: str, song: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return warm_start.run("router", ["submit", song, "--url", running_url, *options])


def assert_one_line(done: subprocess.CompletedProcess[str], exit_code: int) -> str:
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    assert done.stderr.startswith("router: ")
    assert done.stderr.endswith(".\n")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@cases
def test_the_command_line_says_the_same_in_one_line(running: Stack, tmp_path: Path, bad: Bad) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(bad.make())
    assert bad.says in assert_one_line(submit(running.url, song), REFUSED)
    assert list(tmp_path.iterdir()) == [song]
    assert_nothing_left(running)


def test_the_command_line_sends_nothing_of_600_mb(running: Stack, tmp_path: Path) -> None:
    song = tmp_path / "song.wav"
    with song.open("wb") as file:
        file.truncate(SIZE_600_MB)
    assert "512 MiB" in assert_one_line(submit(running.url, song), REFUSED)
    assert_nothing_left(running)


def test_the_command_line_refuses_settings_that_there_are_not(running: Stack, tmp_path: Path) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(written(noise(2.0)))
    assert "the moon" in assert_one_line(submit(running.url, song, "--target", "the-moon"), REFUSED).replace("-", " ")
    assert_nothing_left(running)


def test_the_command_line_says_when_there_is_no_song_and_no_router(running: Stack, tmp_path: Path) -> None:
    song = tmp_path / "song.wav"
    assert_one_line(submit(running.url, song), UNUSABLE)
    song.write_bytes(written(noise(2.0)))
    nobody = "http://127.0.0.1:1"
    assert "make run" in assert_one_line(submit(nobody, song), UNREACHABLE)
