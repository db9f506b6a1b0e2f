"""The files that a command line names: opened for reading, or written whole or not at all; formats by extension."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mastering.cli.outcome import UsageError
from mastering.contract import Fault, FaultCode, OutputFormat

_CHANGED = "the input changed while it was read, so no master is of all of it. Try again when it is whole."


def paths_by_format(paths: list[Path], kind: OutputFormat | None) -> dict[OutputFormat, Path]:
    """Each output path under its format: `kind` for a single one, else what the extension says. Raises Fault."""
    found: dict[OutputFormat, Path] = {}
    for path in paths:
        form = kind if kind is not None and len(paths) == 1 else format_of(path)
        if form in found:
            raise Fault(FaultCode.BAD_SETTINGS, f"Two outputs of the format {form} were asked for; one is enough.")
        found[form] = path
    return found


def format_of(path: Path) -> OutputFormat:
    """The first format with the path's extension. Raises Fault(bad_settings)."""
    extension = path.suffix.lower().removeprefix(".")
    for form in OutputFormat:
        if form.extension == extension:
            return form
    known = ", ".join(sorted({f".{form.extension}" for form in OutputFormat}))
    raise Fault(FaultCode.BAD_SETTINGS, f"The output's extension says no format. Use one of {known}, or --format.")


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The file open for reading. Raises UsageError, also where it changes meanwhile."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read the input: {os.strerror(error.errno or 0).lower()}.") from None
    with file, _unchanged([file]):
        yield file


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
    """A new file that is renamed to `path` when the block ends well, and removed if not. Raises UsageError.

    It refuses to overwrite one of the `sources`, and writes nothing where one changes meanwhile.
    """
    try:
        if path.is_dir():
            raise UsageError("the output is a folder. Name the file in it.")
        if path.exists() and any(os.path.samestat(os.fstat(source.fileno()), path.stat()) for source in sources):
            raise UsageError("the output would overwrite the input. Choose another name.")
    except OSError as error:
        raise UsageError(f"cannot write the output: {os.strerror(error.errno or 0).lower()}.") from None
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        file = part.open("w+b")
    except OSError as error:
        raise UsageError(f"cannot write the output: {os.strerror(error.errno or 0).lower()}.") from None
    try:
        with file, _unchanged(sources):
            yield cast(BinaryIO, file)
        part.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write the output: {os.strerror(error.errno or 0).lower()}.") from None
    finally:
        part.unlink(missing_ok=True)
