"""Where `router submit` puts what it fetches: which outputs a file name asks for, and paths that can be written.

All of it is found out before a byte of the song is sent.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from router.core.command_error import CommandError

Offered = Mapping[str, Mapping[str, Any]]
"""The outputs of a kind of job by name, as `GET /v1/options` describes them."""

_STANDARD = Path("-")
"""A standard stream, as commands that can use one call it."""
_ONLY_FILES = "what breaks off on the way goes on from a file, so name one in place of a pipe or device"


def named_outputs(output: Path | None, asked: Sequence[str] | None, offered: Offered) -> list[str] | None:
    """The outputs to ask for: those `asked`, or the first whose extension `output` has; None: the usual ones.

    Raises CommandError where the name says something else, or nothing that is known.
    """
    extension = output.suffix.lower().removeprefix(".") if output is not None else ""
    by_extension = [name for name, kind in offered.items() if kind["extension"] == extension]
    if asked:
        wrong = [name for name in asked if by_extension and offered.get(name, {}).get("extension") != extension]
        if wrong and len(asked) == 1:
            raise CommandError(
                f"{output} is no name for {wrong[0]}: leave --format out, or name the file otherwise.", 2
            )
        return list(asked)
    if not extension:
        return None
    if not by_extension:
        known = ", ".join(sorted({f".{kind['extension']}" for kind in offered.values()}))
        raise CommandError(f"{output}: the extension says no format. Use one of {known}, or --format.", 2)
    return by_extension[:1]


def paths_of(names: Sequence[str], offered: Offered, output: Path | None, usual: Path) -> list[Path]:
    """Where each output goes: `usual` with its extension, or `output`; two of one extension get their names too."""
    if output is not None and len(names) == 1:
        return [output]
    stem = usual if output is None else output.with_suffix("")
    extensions = [offered[name]["extension"] for name in names]
    return [
        stem.with_name(f"{stem.name}{'' if extensions.count(extension) == 1 else f' {name}'}.{extension}")
        for name, extension in zip(names, extensions, strict=True)
    ]


def check_song(song: Path) -> None:
    """Raise CommandError for a song that is no file which can be read."""
    try:
        mode = stat.S_IFIFO if song == _STANDARD else song.stat().st_mode
    except OSError as error:  # such as a name too long for any file
        raise CommandError(f"{song} can't be read: {os.strerror(error.errno or 0).lower()}.", exit_code=2) from None
    if stat.S_ISREG(mode) and os.access(song, os.R_OK):
        return
    cure = "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else f": {_ONLY_FILES}"
    raise CommandError(f"{song} is not a file that can be read{cure}.", exit_code=2)


def part_of(path: Path) -> Path:
    """Where the file is made that is renamed to `path` when it is whole: beside it, by a name of nobody else's."""
    return path.with_name(f".router-{secrets.token_hex(8)}.part")


def check_paths(song: Path, paths: Sequence[Path]) -> None:
    """Raise CommandError for a path that can't be written, or where a file would take the place of `song` itself."""
    for path in paths:
        try:
            _check_path(song, path)
        except OSError as error:  # such as a name too long for any file
            raise CommandError(f"{path} can't be written: {error.strerror}.", exit_code=2) from None


def _check_path(song: Path, path: Path) -> None:
    if path.is_dir():
        raise CommandError(f"{path} is a folder. Name the file in it.", exit_code=2)
    if path == _STANDARD or (path.exists() and not path.is_file()):
        raise CommandError(f"{path} is no file: {_ONLY_FILES}.", exit_code=2)
    folder = path.resolve().parent
    if not folder.is_dir():
        raise CommandError(f"{path} can't be written: there is no folder {folder}.", exit_code=2)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"{path} can't be written: its folder is not yours to write to.", exit_code=2)
    if path.exists() and path.samefile(song):  # by whatever link
        raise CommandError(f"{path} is the song itself: nothing was sent. Name another file.", exit_code=2)
