"""Runs a command line whose every failure is one line on standard error, and never a traceback or a page of usage."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import typer
from typer.exceptions import TyperException

WRONG_COMMAND_LINE = 2
"""The exit code for what the command line itself is wrong about; 130 is a stop by Ctrl-C, as shells have it."""
_STOPPED = 130


def run(app: typer.Typer, name: str, told: Callable[[Exception], tuple[str, int]]) -> NoReturn:
    """Run the command and exit. `told` gives the sentence and the exit code for an error that the command raised."""
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        sentence = error.format_message()
        if "\n" in sentence:  # the help of a group of commands, shown to whoever named none
            typer.echo(sentence, err=True)
            sys.exit(WRONG_COMMAND_LINE)
        fail(name, f"{sentence.removesuffix('.')}. See: {name} --help", WRONG_COMMAND_LINE)
    except (KeyboardInterrupt, typer.Abort):
        fail(name, "stopped.", _STOPPED)
    except Exception as error:
        fail(name, *told(error))
    sys.exit(code or 0)


def fail(name: str, sentence: str, code: int) -> NoReturn:
    """End the command with one line on standard error, whatever the sentence quotes."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in sentence)
    typer.echo(f"{name}: {shown}", err=True)
    sys.exit(code)
