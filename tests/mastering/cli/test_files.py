"""Songs that change while they are read: said so, and no master of half a song is left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mastering.cli.files import reading, writing
from mastering.cli.outcome import UsageError
from mastering.contract import Fault, FaultCode

CHANGES: dict[str, Callable[[Path], object]] = {
    "grows": lambda song: song.write_bytes(song.read_bytes() + b"more"),
    "shrinks": lambda song: os.truncate(song, 10),
    "is written anew": lambda song: song.write_bytes(bytes(100)),
}


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    return CHANGES[request.param]


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(b"x" * 100)
    os.utime(path, ns=(0, 0))
    return path


def test_no_master_is_left_of_a_song_that_changes(song: Path, change: Callable[[Path], object]) -> None:
    def master() -> None:
        with reading(song) as source, writing(song.with_name("out.wav"), source) as file:
            file.write(source.read(50))
            change(song)

    with pytest.raises(UsageError, match="changed while it was read"):
        master()
    assert [path.name for path in song.parent.iterdir()] == ["song.wav"]


def test_a_reference_that_changes_counts_too(song: Path, change: Callable[[Path], object]) -> None:
    out, reference = song.with_name("out.wav"), song.with_name("reference.wav")
    reference.write_bytes(b"x" * 100)
    os.utime(reference, ns=(0, 0))

    def master() -> None:
        with reading(song) as source, reading(reference) as other, writing(out, source, other):
            change(reference)

    with pytest.raises(UsageError, match="changed"):
        master()
    assert not out.exists()


def test_what_is_measured_of_a_song_that_changes_is_not_told(song: Path, change: Callable[[Path], object]) -> None:
    with pytest.raises(UsageError, match="changed while it was read"), reading(song):
        change(song)


def test_a_fault_of_a_song_that_changed_is_the_change_and_of_another_its_own(
    song: Path, change: Callable[[Path], object]
) -> None:

    def read(also: Callable[[Path], object] = lambda _: None) -> None:
        with reading(song):
            also(song)
            raise Fault(FaultCode.TRUNCATED, "The file ends early.")

    with pytest.raises(Fault, match="ends early"):
        read()
    with pytest.raises(UsageError, match="changed"):
        read(change)
