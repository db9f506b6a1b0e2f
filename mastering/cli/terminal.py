"""Results for a person at a terminal: tables of measurements, the plan's reasons, a progress bar."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mastering.cli.outcome import print_line
from mastering.contract import BoardStep, Measurements, Plan, Readings, Report, Stage
from mastering.contract.board import described
from mastering.runtime.command_line import check_ended

if TYPE_CHECKING:
    from rich.console import Console


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[Stage, float], None]]:
    """A bar on standard error, if that is a terminal. Each step ends the command where a signal has come."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, fraction: check_ended()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (TextColumn("{task.description:8}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(), transient=True) as bar:
        task = bar.add_task("decode", total=1.0)

        def show(stage: Stage, fraction: float) -> None:
            check_ended()
            bar.update(task, completed=fraction, description=str(stage))

        yield show


Printer = Callable[[str], None]
"""`print_line`, or `print_remark` where standard output holds a master."""


def print_report(report: Report, line: Printer = print_line) -> None:
    """Before and after, the plan, and the remarks."""
    print_table({"before": report.before, "after": report.after}, line)
    for check in report.checks:
        if check.second is not None:
            ours, theirs = _readings(check.ours), _readings(check.second)
            line(f"{check.output:12} {ours} by this engine, {theirs} by pyloudnorm and soxr")
    print_plan(report.plan, line)
    for flag in report.flags:
        line(f"note: {flag}")


def _readings(found: Readings) -> str:
    lufs = "–" if found.integrated_lufs is None else f"{found.integrated_lufs:.2f}"
    return f"{lufs} LUFS and {found.true_peak_dbtp:.2f} dBTP"


def print_plan(chosen: Plan, line: Printer = print_line) -> None:
    """Each step with its reason."""
    for step in chosen.steps:
        line(f"{step.name:12} {step.reason}")
        if isinstance(step, BoardStep):
            for each in step.parameters.processors:
                line(f"{'':12} · {described(each)}")


_ROWS = (
    ("integrated loudness", "integrated_lufs", "LUFS"),
    ("max short-term", "max_short_term_lufs", "LUFS"),
    ("loudness range", "loudness_range_lu", "LU"),
    ("true peak", "true_peak_dbtp", "dBTP"),
    ("crest", "crest_db", "dB"),
    ("peak to loudness", "peak_to_loudness_lu", "LU"),
    ("correlation", "correlation", ""),
    ("width", "width_db", "dB"),
    ("duration", "duration_s", "s"),
)


def print_table(columns: dict[str, Measurements], line: Printer = print_line) -> None:
    """Measurements side by side, one column for each."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("")
    for title, field, unit in _ROWS:
        values = [getattr(found, field) for found in columns.values()]
        table.add_row(title, *("–" if value is None else f"{value:.2f}" for value in values), unit)
    shown = io.StringIO()
    Console(file=shown).print(table)
    line(shown.getvalue().rstrip("\n"))
