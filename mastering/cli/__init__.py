"""The `mastering` command. Heavy imports wait until a verb needs them: --help and a mistyped option answer at once."""

from __future__ import annotations

from mastering.cli import measure_verbs, render_verbs
from mastering.cli.app import app
from mastering.cli.outcome import EXIT_CODES, run
from mastering.runtime import blas

__all__ = ["EXIT_CODES", "app", "main", "measure_verbs", "render_verbs"]


def main() -> None:
    """Entry point of the command."""
    blas.one_thread()
    run(app)
