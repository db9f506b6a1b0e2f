"""The places that a command line names: which format each output has, and that none takes the place of another file.

All of it is found out before anything is read or written. `-` is standard input or output.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mastering.cli.outcome import UsageError
from mastering.contract import Fault, FaultCode, OutputFormat
from mastering.runtime.command_line import reason

STANDARD = Path("-")
"""Standard input where a file is read, standard output where one is written."""
_STANDARD_OUTPUTS = {STANDARD, Path("/dev/stdout"), Path("/dev/fd/1"), Path("/proc/self/fd/1")}
_MOST_NAME_BYTES = 255
"""Of a file, on every file system in use."""


def paths_by_format(paths: list[Path], kind: OutputFormat | None) -> dict[OutputFormat, Path]:
    """Each output path under its format: `kind` for one that it is meant for, else what the extension says.

    `kind` is meant for a single path, else for standard output and for those with its extension. Raises Fault.
    """
    found: dict[OutputFormat, Path] = {}
    for path in paths:
        form = kind if kind is not None and (len(paths) == 1 or _is_meant(kind, path)) else format_of(path)
        if form in found:
            raise Fault(FaultCode.BAD_SETTINGS, f"Two outputs of the format {form} were asked for; one is enough.")
        found[form] = path
    if kind is not None and kind not in found:
        raise Fault(FaultCode.BAD_SETTINGS, f"None of the outputs is one for --format {kind}.")
    return found


def _is_meant(kind: OutputFormat, path: Path) -> bool:
    return is_standard_output(path) or _extension(path) == kind.extension


def format_of(path: Path) -> OutputFormat:
    """The first format with the path's extension. Raises Fault(bad_settings)."""
    for form in OutputFormat:
        if form.extension == _extension(path):
            return form
    known = ", ".join(sorted({f".{form.extension}" for form in OutputFormat}))
    raise Fault(FaultCode.BAD_SETTINGS, f"The output's extension says no format. Use one of {known}, or --format.")


def _extension(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def is_standard_output(path: Path) -> bool:
    """Whether what is written there goes to standard output."""
    return path in _STANDARD_OUTPUTS


def check_places(inputs: Sequence[Path], outputs: Sequence[Path] = ()) -> None:
    """Raise UsageError for an input that is not there and an output that would replace an input or another output.

    By whatever links or ways their names lead to them, and before anything is read or written. A file of presets is an
    input too.
    """
    if inputs.count(STANDARD) > 1:
        raise UsageError("standard input can be read but once. Name the other files.")
    read, written = dict[object, Path](), dict[object, Path]()
    if own_presets := os.environ.get("MASTERING_PRESETS"):
        with suppress(OSError):
            read[_place(Path(own_presets))] = Path(own_presets)
    for path in inputs:
        with told_as(reading_of(path)):
            place = _place(path)
        if place in read and (path.is_fifo() or read[place].is_fifo()):
            raise UsageError(f"{path} is a pipe, and can be read but once. Name the other files.")
        read[place] = path
    for path in outputs:
        with told_as(writing_of(path)):
            place = _place_to_be(path)
        if place is None:
            continue
        if place in read:
            raise UsageError(f"the output {path} would overwrite the input {read[place]}. Choose another name.")
        if place in written:
            raise UsageError(f"the outputs {written[place]} and {path} are one file. Choose another name.")
        written[place] = path


def _place(path: Path, standard_stream: int = 0) -> object:
    """What a file is known by, whatever its names; None for a device or socket, which holds nothing to overwrite.

    Raises OSError.
    """
    found = os.fstat(standard_stream) if path == STANDARD else path.stat()
    return (found.st_dev, found.st_ino) if stat.S_IFMT(found.st_mode) in (stat.S_IFREG, stat.S_IFIFO) else None


def _place_to_be(path: Path) -> object:
    """The same of an output, which may not be there. Raises OSError."""
    try:
        return _place(path, standard_stream=1)
    except FileNotFoundError:
        return os.path.realpath(path)


def reading_of(path: Path) -> str:
    """What is wrong where it can't be read, as the beginning of a sentence."""
    return f"cannot read {'standard input' if path == STANDARD else path}"


def writing_of(path: Path) -> str:
    """What is wrong where it can't be written, as the beginning of a sentence."""
    return f"cannot write {'standard output' if path == STANDARD else path}"


@contextmanager
def told_as(what: str) -> Iterator[None]:
    """Raises UsageError in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{what}: {reason(error)}.") from None


def make_folder(folder: Path) -> None:
    """Make the folder, and those above it, where they are not there. Raises UsageError."""
    with told_as(f"cannot make the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)


def name_within(stem: str, ending: str) -> str:
    """A file's name of `stem` and `ending`, the stem cut where file systems take no longer name."""
    room, encoded = _MOST_NAME_BYTES - len(os.fsencode(ending)), os.fsencode(stem)
    return (stem if len(encoded) <= room else encoded[:room].decode(errors="ignore")) + ending
