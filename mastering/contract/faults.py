"""Why a song could not be mastered: the codes, whose fault each is, and the exception that carries one."""

from __future__ import annotations

import re
from collections.abc import Mapping
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


_NUMBER_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_NAMES_OF_A_PROBLEM = frozenset(
    {"code", "detail", "headers", "instance", "message", "numbers", "self", "status", "title", "type"}
)
"""Members of problem+json (RFC 9457) and of our own errors, which no number may stand in for."""
_MOST_NUMBERS = 16
_MOST_CHARACTERS = 100
"""Of a number that is a word."""


def accepted_numbers(said: Mapping[Any, Any]) -> dict[str, float | int | str]:
    """What is believed of a fault's numbers that another process or machine told: few, short, under names of their own.

    A song may have taken that process over, and a worker may be of another version.
    """
    found: dict[str, float | int | str] = {}
    for name, value in said.items():
        if len(found) == _MOST_NUMBERS:
            break
        if isinstance(name, str) and _NUMBER_NAME.fullmatch(name) and name not in _NAMES_OF_A_PROBLEM:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and abs(value) < 2**63:  # neither NaN nor infinity is
                found[name] = value
            elif isinstance(value, str) and name != "retry_after_s":
                found[name] = value[:_MOST_CHARACTERS]
    return found
