"""Why a song could not be mastered: the codes, whose fault each is, and the exception that carries one."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class FaultCode(StrEnum):
    """Why a song could not be mastered. Stable: users, the API and the CLI's exit codes rely on them."""

    EMPTY_FILE = "empty_file"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNDECODABLE = "undecodable"
    TRUNCATED = "truncated"
    NOT_FINITE = "not_finite"
    SILENT = "silent"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    TOO_MANY_CHANNELS = "too_many_channels"
    UNSUPPORTED_RATE = "unsupported_rate"
    BAD_SETTINGS = "bad_settings"
    RESOURCE_LIMIT = "resource_limit"
    """Decoding needed more time or memory than any honest file does."""
    BUSY = "busy"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    OUT_OF_MEMORY = "out_of_memory"
    BAD_MASTER = "bad_master"
    """The engine's own master failed its verification."""
    BAD_REQUEST = "bad_request"
    UNKNOWN_KIND = "unknown_kind"
    """A backend does not do this kind of job, or has other models for it."""
    INTERNAL = "internal"


USER_FAULTS = frozenset(
    {
        FaultCode.EMPTY_FILE,
        FaultCode.UNSUPPORTED_FORMAT,
        FaultCode.UNDECODABLE,
        FaultCode.TRUNCATED,
        FaultCode.NOT_FINITE,
        FaultCode.SILENT,
        FaultCode.TOO_SHORT,
        FaultCode.TOO_LONG,
        FaultCode.TOO_LARGE,
        FaultCode.TOO_MANY_CHANNELS,
        FaultCode.UNSUPPORTED_RATE,
        FaultCode.BAD_SETTINGS,
        FaultCode.RESOURCE_LIMIT,
    }
)
"""Faults of the file or the settings: another tier would find the same, so the job is not tried again."""


class Fault(Exception):
    """A job that cannot go on, with a sentence for the person and the numbers behind it.

    `message` says what was wrong and what to do, and never holds a path, a name or a library's own text.
    """

    def __init__(self, code: FaultCode, message: str, **numbers: float | int | str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.numbers: dict[str, Any] = numbers
