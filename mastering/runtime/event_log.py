"""The event log: JSON lines of a typed allow-list of events, and the only output of a process.

An `EventLog` knows its events, and of each event its fields with their kinds: bounded numbers, flags, words of a closed
list. What is not on the list is dropped and counted, so a line can hold no name, address, path or sentence from
outside, whatever is passed in. `capture_process_output` closes the other ways of output: records of the standard
library's logging are never formatted, an exception becomes its type and its place in the code, a warning its category.

The only door to structlog.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import sys
import threading
import time
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

import structlog

_REPEATS_PER_MINUTE = 20
"""Of one and the same error; at the limit of descriptors a server can meet thousands a second."""
_DAY_S = 86_400
_LEVELS = ("WARNING", "ERROR", "CRITICAL")


class FieldType(Protocol):
    """The values that a field may have; `text` describes them in the documentation."""

    @property
    def text(self) -> str: ...

    def admits(self, value: object) -> bool: ...


class Whole:
    """A whole number between two bounds."""

    def __init__(self, low: int = 0, high: int = 2**53) -> None:
        self._low, self._high = low, high
        self.text = f"whole number, {low} to {high}" if high < 2**53 else "whole number"

    def admits(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self._low <= value <= self._high


class Real:
    """A finite number."""

    text = "number"

    def admits(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Flag:
    """True or false."""

    text = "yes or no"

    def admits(self, value: object) -> bool:
        return isinstance(value, bool)


class Words:
    """One word of a closed list."""

    def __init__(self, *words: str, text: str = "") -> None:
        self.words = {str(word) for word in words}
        self._text = text

    @property
    def text(self) -> str:
        return self._text or "one of: " + ", ".join(sorted(self.words))

    def admits(self, value: object) -> bool:
        return isinstance(value, str) and value in self.words


class Several:
    """A list of words, each of a closed list and at most once."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self.text = words.text.replace("one of", "some of", 1)

    def admits(self, value: object) -> bool:
        return (
            isinstance(value, list | tuple)
            and all(self._words.admits(word) for word in value)
            and len(set(value)) == len(value)
        )


class Form:
    """A string of a fixed pattern that our own code makes, and that can hold nothing else."""

    def __init__(self, pattern: str, text: str) -> None:
        self._pattern = re.compile(pattern, re.ASCII)
        self.text = text

    def admits(self, value: object) -> bool:
        return isinstance(value, str) and self._pattern.fullmatch(value) is not None


CODE_NAME = Form(r"[A-Za-z_]\w{0,63}", "a name in the code")
CODE_PLACE = Form(r"[A-Za-z_][\w.]{0,95}:\d{1,6}", "module and line in the code")
Events = Mapping[str, Mapping[str, FieldType]]
TROUBLES: Events = {
    "broken": {"type": CODE_NAME, "at": CODE_PLACE},
    "warned": {"type": CODE_NAME},
    "library": {"logger": CODE_NAME, "level": Words(*_LEVELS)},
}
"""Events of errors and warnings, of every process; `capture_process_output` writes these and no others."""


class EventLog:
    """The log of one process. `write` is given finished lines; `clock` tells seconds since 1970."""

    def __init__(self, events: Events, write: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self.events = {**TROUBLES, **events}
        self.write = write
        self.dropped = 0
        """Events and fields that were not on the list, and lines that could not be written, since the start."""
        self._clock = clock
        self._minute, self._repeats = 0, Counter[object]()
        steps: list[structlog.typing.Processor] = [self._limit_repeats, self._date, structlog.processors.JSONRenderer()]
        self._say = structlog.wrap_logger(_LineWriter(self), processors=steps, wrapper_class=structlog.BoundLoggerBase)

    def log(self, event: str, /, **fields: object) -> None:
        """Write one event of the list. Anything else is dropped and counted; nothing is ever raised."""
        kinds = self.events.get(event)
        if kinds is None:
            self.dropped += 1
            return
        kept = {key: value for key, value in fields.items() if key in kinds and kinds[key].admits(value)}
        self.dropped += len(fields) - len(kept)
        try:
            self._say._proxy_to_logger("msg", event, **kept)
        except OSError:  # a full disk must fail no request
            self.dropped += 1

    def broken(self, error: BaseException) -> None:
        """An exception as its type and the place in the code, never its text."""
        self.log("broken", type=type(error).__name__, at=_place(error.__traceback__))

    def _limit_repeats(self, _: object, __: str, said: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Drop and count an error that repeats more than a few times a minute, so that it fills no disk."""
        if said["event"] in TROUBLES:
            minute = int(self._clock() // 60)
            if minute != self._minute:
                self._minute, self._repeats = minute, Counter()
            what = tuple(said.values())
            self._repeats[what] += 1
            if self._repeats[what] > _REPEATS_PER_MINUTE:
                self.dropped += 1
                raise structlog.DropEvent
        return said

    def _date(self, _: object, __: str, said: structlog.typing.EventDict) -> structlog.typing.EventDict:
        minute = datetime.fromtimestamp(self._clock() // 60 * 60, UTC)
        return {"minute": minute.strftime("%Y-%m-%dT%H:%MZ"), **said}


class _LineWriter:
    """The logger that structlog hands finished lines to: each is one line, whatever its level."""

    def __init__(self, event_log: EventLog) -> None:
        self._event_log = event_log

    def msg(self, line: str) -> None:
        self._event_log.write(line)


def to_stream(stream: Callable[[], TextIO]) -> Callable[[str], None]:
    """A function that writes lines to an open text stream, each at once."""

    def write(line: str) -> None:
        with contextlib.suppress(ValueError):  # closed at the very end of a process
            stream().write(line + "\n")
            stream().flush()

    return write


class DayFiles:
    """Writes lines to one file a day in a folder of its own; no line is kept longer than `days`."""

    def __init__(self, folder: Path, name: str, days: int = 7, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._name, self._days, self._clock = folder, name, days, clock
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)

    def __call__(self, line: str) -> None:
        fd = os.open(self._path(self._today()), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line.encode() + b"\n")
        finally:
            os.close(fd)

    def sweep(self) -> int:
        """Remove the files whose first line may be older than the days that lines are kept. How many were removed."""
        kept = {self._path(self._today() - ago).name for ago in range(self._days)}
        # A day in the future, too: the clock was wrong, and when such a file expires cannot be known.
        gone = [path for path in self._folder.glob(f"{self._name}-*.jsonl") if path.name not in kept]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def _today(self) -> int:
        return int(self._clock() // _DAY_S)

    def _path(self, day: int) -> Path:
        return self._folder / f"{self._name}-{datetime.fromtimestamp(day * _DAY_S, UTC):%Y-%m-%d}.jsonl"


def capture_process_output(event_log: EventLog) -> Callable[[], None]:
    """Make `event_log` the only output of this process; returns how to undo it.

    Loggers are stopped where they hand a record to handlers, so that a handler or a level that a library brings
    along changes nothing. asyncio's own handler for exceptions that nobody awaited is one more such logger.
    """

    def handle(_: logging.Logger, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            return
        event_log.log("library", logger=_package(record.name), level=_level(record.levelno))
        if record.exc_info and record.exc_info[1] is not None:
            event_log.broken(record.exc_info[1])

    def uncaught(_: type[BaseException], error: BaseException, __: types.TracebackType | None) -> None:
        if not isinstance(error, KeyboardInterrupt):
            event_log.broken(error)

    def unraisable(found: Any) -> None:  # sys.UnraisableHookArgs, which has no public name
        if found.exc_value is not None:
            event_log.broken(found.exc_value)

    def of_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None:
            event_log.broken(found.exc_value)

    def warned(_: Warning | str, category: type[Warning], *__: Any, **___: Any) -> None:
        event_log.log("warned", type=category.__name__)

    places: Iterable[tuple[object, str, object]] = (
        (logging.Logger, "handle", handle),
        (logging, "raiseExceptions", False),
        (sys, "excepthook", uncaught),
        (sys, "unraisablehook", unraisable),
        (threading, "excepthook", of_thread),
        (warnings, "showwarning", warned),
    )
    before = [(where, name, getattr(where, name)) for where, name, _ in places]
    for where, name, ours in places:
        setattr(where, name, ours)

    def undo() -> None:
        for where, name, old in before:
            setattr(where, name, old)

    return undo


def _level(number: int) -> str:
    return _LEVELS[min(2, max(0, (number - logging.WARNING) // 10))]


def _package(logger: str) -> str:
    """The library that a logger is of, or `other` where its name is not that of a loaded one."""
    first = logger.partition(".")[0]
    return first if first in sys.modules else "other"


def _place(trace: types.TracebackType | None) -> str:
    where = "unknown:0"
    while trace is not None:
        where = f"{trace.tb_frame.f_globals.get('__name__', 'unknown')}:{trace.tb_lineno}"
        trace = trace.tb_next
    return where
