"""How a command ends: exit codes that scripts rely on, and one line on standard error for every failure."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from typer import Typer

from mastering.contract import Fault, FaultCode
from mastering.runtime import command_line

EXIT_CODES = {
    FaultCode.EMPTY_FILE: 10,
    FaultCode.UNSUPPORTED_FORMAT: 11,
    FaultCode.UNDECODABLE: 12,
    FaultCode.TRUNCATED: 13,
    FaultCode.NOT_FINITE: 14,
    FaultCode.SILENT: 15,
    FaultCode.TOO_SHORT: 16,
    FaultCode.TOO_LONG: 17,
    FaultCode.TOO_LARGE: 18,
    FaultCode.TOO_MANY_CHANNELS: 19,
    FaultCode.UNSUPPORTED_RATE: 20,
    FaultCode.BAD_SETTINGS: 21,
    FaultCode.RESOURCE_LIMIT: 22,
    FaultCode.BUSY: 30,
    FaultCode.CANCELLED: 31,
    FaultCode.DEADLINE: 32,
    FaultCode.OUT_OF_MEMORY: 33,
    FaultCode.BAD_MASTER: 34,
    FaultCode.BAD_REQUEST: 35,
    FaultCode.UNKNOWN_KIND: 36,
    FaultCode.INTERNAL: 40,
}
"""Stable: scripts rely on them. 0 is success, 1 a file that can't be read or written, 2 a wrong command line."""

EPILOG = (
    "A file may be '-', which is standard input or output, a pipe or a device. Exit codes: 0 done, 1 a file cannot be "
    "read or written, 2 wrong command line, "
    + ", ".join(f"{number} {code.replace('_', ' ')}" for code, number in EXIT_CODES.items())
    + ", 128 and more: ended by a signal"
)


class UsageError(Exception):
    """A file that can't be read or written; the text is for the person."""


def run(app: Typer) -> NoReturn:
    """Run the command: every failure is one line on standard error and a code from `EXIT_CODES`."""
    command_line.run(app, "mastering", _told, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


def _told(error: Exception) -> tuple[str, int]:
    if isinstance(error, Fault):
        return error.message, EXIT_CODES[error.code]
    if isinstance(error, UsageError):
        return str(error), command_line.CANNOT_WRITE
    if isinstance(error, OSError):
        return f"a file cannot be read or written: {command_line.reason(error)}.", command_line.CANNOT_WRITE
    if isinstance(error, MemoryError):
        return "there is not enough memory for this song.", EXIT_CODES[FaultCode.OUT_OF_MEMORY]
    where = type(error).__name__
    return f"an error of our own ({where}). Please report it.", EXIT_CODES[FaultCode.INTERNAL]


def print_line(text: str) -> None:
    """One line on standard output."""
    print(text)  # noqa: T201 - this is a command


def print_remark(text: str) -> None:
    """One line on standard error: where standard output holds the master itself."""
    print(text, file=sys.stderr)  # noqa: T201
