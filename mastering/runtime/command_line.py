"""Runs a command line whose every failure is one line on standard error, and never a traceback or a page of usage.

That holds for its own output too: a disk that is full behind standard output, or a reader that is gone, ends the
command with exit code 1. A signal ends it by way of its `finally` blocks (`ended_by_signals`).
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import typer
from typer.exceptions import TyperException

CANNOT_WRITE = 1
"""The exit code for what cannot be read or written, standard output included."""
WRONG_COMMAND_LINE = 2
"""The exit code for what the command line itself is wrong about."""
_SIGNALLED = 128
"""Plus the signal's number: the exit code of a command that a signal ended, as shells have it; 130 after Ctrl-C."""


class EndedBySignal(BaseException):
    """A signal ends the command. No SystemExit: where a library prints what it is raised, that would end it at once."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = _SIGNALLED + number


class _OutputError(Exception):
    """Standard output does not take what is printed."""


class _Output(io.TextIOWrapper):
    """Standard output that says apart from all other errors that it cannot be written."""

    def write(self, text: str) -> int:
        with _told_apart():
            return super().write(text)

    def flush(self) -> None:
        with _told_apart():
            super().flush()


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _OutputError(f"cannot write to standard output: {reason(error)}.") from None


def run(
    app: typer.Typer, name: str, told: Callable[[Exception], tuple[str, int]], ended_by: Sequence[int] = ()
) -> NoReturn:
    """Run the command and exit. `told` gives the sentence and the exit code for an error that the command raised.

    `ended_by`: signals that end it by way of its `finally` blocks.
    """
    try:
        with ended_by_signals(*ended_by, then=_silence_errors), _guarded_output():
            code = app(prog_name=name, standalone_mode=False)
            check_ended()
    except TyperException as error:
        sentence = error.format_message()
        if "\n" in sentence:  # the help of a group of commands, shown to whoever named none
            _say(sentence)
            sys.exit(WRONG_COMMAND_LINE)
        fail(name, f"{sentence.removesuffix('.')}. See: {name} --help", WRONG_COMMAND_LINE)
    except (KeyboardInterrupt, typer.Abort):
        fail(name, "stopped.", _SIGNALLED + signal.SIGINT)
    except EndedBySignal as ended:
        # All `finally` blocks have run, and threads may still read what they have closed.
        _silence_errors()
        with suppress(OSError, IndexError):
            os.write(_errors[0], f"{name}: stopped.\n".encode())
        os._exit(ended.exit_code)
    except _OutputError as error:
        fail(name, str(error), CANNOT_WRITE)
    except Exception as error:
        fail(name, *told(error))
    sys.exit(code or 0)


def fail(name: str, sentence: str, code: int) -> NoReturn:
    """End the command with one line on standard error, whatever the sentence quotes."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in sentence)
    _say(f"{name}: {shown}")
    sys.exit(code)


def reason(error: OSError) -> str:
    """What the system says of it, to stand in a sentence."""
    return os.strerror(error.errno or 0).lower()


_errors: list[int] = []
"""A descriptor of standard error, while what libraries print there is dropped."""


def _silence_errors() -> None:
    """Drop what is printed from now on: cffi tells at length of a file that is closed while a thread reads it."""
    if _errors:
        return
    with suppress(OSError):
        _errors.append(os.dup(2))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)


def _say(text: str) -> None:
    if _errors:
        os.dup2(_errors[0], 2)
    with suppress(OSError):  # a terminal that is closed reads no more, and the exit code is told all the same
        typer.echo(text, err=True)


@contextmanager
def _guarded_output() -> Iterator[None]:
    """Standard output whose failures are `_OutputError`s, and of which nothing is left to print when the block ends."""
    before = sys.stdout
    if before is None:  # closed by whoever started the command: a descriptor that refuses to be written stands for it
        before = open(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")  # noqa: PTH123, SIM115
    guarded = _Output(
        before.buffer, encoding=before.encoding, errors="backslashreplace", line_buffering=before.isatty()
    )
    sys.stdout = guarded
    try:
        yield
        guarded.flush()
    finally:
        try:
            guarded.detach()
        except _OutputError:
            _discard_what_is_left(before.fileno())
            guarded.detach()
        sys.stdout = before


def _discard_what_is_left(descriptor: int) -> None:
    """Else the interpreter would try it again when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


_ended_by: list[int] = []
"""The signal that has come in `ended_by_signals`."""


@contextmanager
def ended_by_signals(*numbers: int, then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Where one of these signals ends the command, its `finally` blocks run first. Only the main thread can.

    A signal that is ignored stays so, as SIGHUP under nohup; once one has come, `then` is called and further ones no
    longer interrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def end(number: int, frame: FrameType | None) -> None:
        for each in heeded:
            signal.signal(each, signal.SIG_IGN)
        _ended_by.append(number)
        then()
        if not _is_called_back(frame):
            check_ended()

    for number in heeded:
        signal.signal(number, end)
    tell = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if isinstance(lost.exc_value, EndedBySignal) else tell(lost)
    try:
        yield
    finally:
        _ended_by.clear()
        sys.unraisablehook = tell
        for number in heeded:
            signal.signal(number, before[number])


def check_ended() -> None:
    """Raise EndedBySignal where a signal has come: called now and then, for a signal's own may have been lost.

    As what is raised while a library calls back, or while the interpreter collects its garbage.
    """
    if _ended_by:
        raise EndedBySignal(_ended_by[0])


def _is_called_back(frame: FrameType | None) -> bool:
    """Whether libsndfile has called soundfile back to read or write: what is raised there is printed, and lost."""
    while frame is not None:
        if frame.f_code.co_name.startswith("vio_"):
            return True
        frame = frame.f_back
    return False
