"""The Typer application that the verbs register with, and the options before any verb."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mastering.cli.outcome import EPILOG, print_line
from mastering.contract import ENGINE_VERSION

app = typer.Typer(
    help="Master a song: loudness, true peak and tone for where it is going.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the engine's version.")] = False,
    own_presets: Annotated[
        Path | None, typer.Option("--presets", help="Targets and styles of your own, as TOML; before the verb.")
    ] = None,
) -> None:
    if own_presets is not None:
        os.environ["MASTERING_PRESETS"] = str(own_presets)
    if version:
        print_line(ENGINE_VERSION)
        raise typer.Exit
