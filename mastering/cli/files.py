"""The files that a command line names: opened for reading, or written whole or not at all.

A regular file is made beside its place and renamed to it when it is whole. Whatever
else has a name (a pipe, a device) is never replaced: it gets the bytes when the work is done, and what comes from it
is kept in a file without a name first, since audio is read and written back and forth.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from traceback import clear_frames
from typing import TYPE_CHECKING, BinaryIO, cast

from mastering.cli.outcome import UsageError
from mastering.cli.places import STANDARD, is_standard_output, reading_of, told_as, writing_of
from mastering.contract import MAX_INPUT_BYTES, Fault, FaultCode
from mastering.runtime.command_line import check_ended, reason

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_DESCRIPTOR_FOLDERS = {Path("/dev/fd"), Path("/proc/self/fd")}
_NO_FILE = {stat.S_IFDIR: "a folder. Name the file in it", stat.S_IFBLK: "a disk", stat.S_IFSOCK: "a socket"}
"""What no master can be written to."""
_CHUNK_BYTES = 1 << 18
"""Of what comes from a pipe."""
_CHANGED = "the input changed while it was read, so no master is of all of it. Try again when it is whole."


class _File(io.FileIO):
    """A file that keeps its failure for `_told_failure` instead of raising it.

    libsndfile calls back to read and write, and what is raised there is printed as a traceback and lost.
    """

    failure: OSError | None = None

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.failure = error
            return 0

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            if self.failure is None:
                return super().write(data)
        except OSError as error:
            self.failure = error
        return memoryview(data).nbytes


@contextmanager
def _told_failure(file: _File, what: str) -> Iterator[None]:
    """Raises UsageError where the file failed in the block, in place of whatever came of that."""
    try:
        yield
    except BaseException as error:
        clear_frames(error.__traceback__)  # what reads ahead in a thread is ended before the file is closed under it
        if file.failure is None or not isinstance(error, Exception):
            raise
        raise UsageError(f"{what}: {reason(file.failure)}.") from error
    if file.failure is not None:
        raise UsageError(f"{what}: {reason(file.failure)}.")


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The file open for reading and seeking. Raises UsageError, also where it changes meanwhile."""
    with told_as(reading_of(path)):
        opened = _opened(path)
    with cast(BinaryIO, io.BufferedReader(opened)) as file, _told_failure(opened, reading_of(path)), _unchanged([file]):
        yield file


def _opened(path: Path) -> _File:
    """Raises OSError and Fault(too_large)."""
    found = _File(os.dup(0)) if path == STANDARD else _File(path)
    if stat.S_ISREG(os.fstat(found.fileno()).st_mode) and not found.tell():
        return found
    with found, TemporaryFile() as copy:
        for chunk in iter(partial(os.read, found.fileno(), _CHUNK_BYTES), b""):
            copy.write(chunk)
            if copy.tell() > MAX_INPUT_BYTES:
                most_mib = MAX_INPUT_BYTES >> 20
                raise Fault(FaultCode.TOO_LARGE, f"More than {most_mib} MiB came, which is the most that is read.")
        copy.seek(0)
        return _File(os.dup(copy.fileno()), "r+b")


@contextmanager
def _unchanged(files: Sequence[BinaryIO]) -> Iterator[None]:
    """Raises UsageError where a file is another at the end of the block, however the block ends."""
    before = [_state(file) for file in files]
    try:
        yield
    except Fault as fault:
        if [_state(file) for file in files] == before:
            raise
        raise UsageError(_CHANGED) from fault
    if [_state(file) for file in files] != before:
        raise UsageError(_CHANGED)


def _state(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


@contextmanager
def writing(path: Path, *sources: BinaryIO) -> Iterator[BinaryIO]:
    """An empty file whose bytes are at `path` when the block ends well, and nowhere if not. Raises UsageError.

    It writes nothing where one of the `sources` changes meanwhile.
    """
    with told_as(writing_of(path)):
        begin = _through if _is_written_through(path) else _beside
        with begin(path, sources) as file:
            yield file


def _is_written_through(path: Path) -> bool:
    """Whether the path names no file of its own. Raises UsageError for what can't be written, and OSError."""
    if is_standard_output(path) and os.isatty(1):
        raise UsageError("standard output is a terminal, which would show a master as letters. Name a file.")
    if path == STANDARD:
        return True
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if what := _NO_FILE.get(stat.S_IFMT(mode)):
        raise UsageError(f"the output {path} is {what}.")
    if stat.S_ISREG(mode):
        return is_standard_output(path) or path == Path("/dev/stderr") or path.parent in _DESCRIPTOR_FOLDERS
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "")
    return True


@contextmanager
def _beside(path: Path, sources: Sequence[BinaryIO]) -> Iterator[BinaryIO]:
    place = path.resolve()  # what a link leads to is written, and the link stays
    part = place.with_name(f".mastering-{secrets.token_hex(8)}.part")
    try:
        opened = _File(part, "x+b")
        with _buffered(opened) as file, _told_failure(opened, writing_of(path)), _unchanged(sources):
            yield file
            file.flush()
        check_ended()
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def _buffered(file: _File) -> BinaryIO:
    return cast(BinaryIO, io.BufferedRandom(file))


@contextmanager
def _through(path: Path, sources: Sequence[BinaryIO]) -> Iterator[BinaryIO]:
    with TemporaryFile(buffering=0) as unnamed:
        opened = _File(os.dup(unnamed.fileno()), "r+b")
    with _buffered(opened) as file:
        with _told_failure(opened, writing_of(path)), _unchanged(sources):
            yield file
            file.flush()
        check_ended()
        file.seek(0)
        sys.stdout.flush()
        with open(os.dup(1) if path == STANDARD else path, "wb") as target:  # noqa: PTH123
            shutil.copyfileobj(file, target)
