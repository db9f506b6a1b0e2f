"""Songs that change while they are read are said so; what is written is whole or not there; only files are replaced.

No test writes to the machine's own devices: what would replace one must not find it.
"""

from __future__ import annotations

import os
import resource
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import soundfile

from mastering.cli import files
from mastering.cli.files import reading, writing
from mastering.cli.outcome import UsageError
from mastering.cli.places import check_places
from mastering.contract import Fault, FaultCode
from mastering.dsp import threads

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


def test_what_reads_ahead_in_a_thread_ends_before_the_song_is_closed(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    closed: list[ValueError] = []

    def blocks(file: BinaryIO) -> Iterator[bytes]:
        for number in range(3):
            time.sleep(0.02 * number)
            try:
                yield file.read(10)
            except ValueError as error:
                closed.append(error)

    def stop_at_the_first(file: BinaryIO) -> None:
        coming = threads.ahead(blocks(file))  # as what a frame of the engine holds
        next(coming)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), reading(song) as file:
        stop_at_the_first(file)
    time.sleep(0.05)
    assert closed == []


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


@pytest.mark.parametrize("target", ["there.wav", "not there.wav"])
def test_what_a_link_leads_to_is_written_and_the_link_stays(target: str, tmp_path: Path) -> None:
    (tmp_path / "there.wav").write_bytes(b"before")
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link.wav"
    link.symlink_to(f"../{target}")
    with writing(link) as file:
        file.write(b"after")
    assert link.is_symlink()
    assert (tmp_path / target).read_bytes() == b"after"


def test_a_link_that_somebody_has_put_in_the_place_of_the_part_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "guessed")
    (tmp_path / "mine").write_bytes(b"mine")
    planted = tmp_path / ".mastering-guessed.part"
    planted.symlink_to("mine")
    with pytest.raises(UsageError, match="file exists"), writing(tmp_path / "out.wav") as file:
        file.write(b"master")
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_device_is_written_through_and_stays_one(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError as error:
        pytest.skip(f"no device can be made here: {error.strerror}")
    with writing(device) as file:
        file.write(b"x" * 100)
    assert stat.S_ISCHR(device.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["null"]


@pytest.mark.parametrize("kind", ["folder", "socket"])
def test_what_can_hold_no_master_is_refused_and_stays(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "out.wav"
    if kind == "folder":
        place.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "socket":
            listener.bind(str(place))
        before = place.stat()
        with pytest.raises(UsageError, match=f"out.wav is a {kind}"), writing(place):
            pass
    assert place.stat() == before


@contextmanager
def _files_of_at_most(size_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3", "OGG"])
def test_a_disk_that_is_full_is_one_sentence_whichever_library_writes(
    container: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(1).standard_normal(44_100).astype(np.float32) / 10

    def write() -> None:
        with _files_of_at_most(4096), writing(tmp_path / "out") as file:
            soundfile.write(file, noise, 44_100, format=container)

    with pytest.raises(UsageError, match=r"^cannot write .*/out: file too large\.$"):
        write()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_pipe_gets_nothing_of_a_master_that_found_no_room_before_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with _files_of_at_most(4096), writing(tmp_path / "pipe") as file:  # whom no one reads: to open it would wait
            file.write(bytes(100_000))

    with pytest.raises(UsageError, match=r"^cannot write .*/pipe: file too large\.$"):
        write()


def test_presets_that_are_not_there_stop_nothing_that_does_not_want_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "presets.toml"
    monkeypatch.setenv("MASTERING_PRESETS", str(own))
    check_places([], [own])
    own.touch()
    with pytest.raises(UsageError, match="would overwrite the input"):
        check_places([], [own])


def test_a_disk_that_fails_while_it_is_read_is_one_sentence() -> None:
    memory = Path("/proc/self/mem")  # at 0 there is nothing mapped: EIO
    with (
        pytest.raises(UsageError, match=r"^cannot read /proc/self/mem: input/output error\.$"),
        reading(memory) as file,
    ):
        assert file.read(1) == b""


def test_a_pipe_gives_no_more_than_a_song_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_INPUT_BYTES", 1 << 20)
    reader, writer = os.pipe()
    endless = threading.Thread(target=_write_until_refused, args=(writer,))
    endless.start()
    try:
        with pytest.raises(Fault, match="More than 1 MiB came"), reading(Path(f"/dev/fd/{reader}")):
            pass
    finally:
        os.close(reader)
        endless.join()


def _write_until_refused(descriptor: int) -> None:
    with suppress(BrokenPipeError), os.fdopen(descriptor, "wb", 0) as file:
        for _ in range(100):
            file.write(bytes(1 << 18))
