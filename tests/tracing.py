"""Processes of the stack under strace, to see what they really ask of the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import stack as stacks


@contextmanager
def traced(folder: Path, patch: pytest.MonkeyPatch, calls: str) -> Iterator[None]:
    """Every process of the stack runs under strace, its children too; `<name>.trace` in `folder` has its calls."""
    start = stacks._start

    def under_strace(command: list[str], output: Path, *more: object) -> stacks.Running:
        trace = folder / f"{output.stem}.trace"
        # -D: the tracer stands beside, so that stopping the process stops the process and not its tracer.
        argv = ["strace", "-f", "-qq", "-s", "256", "-e", calls, "-o", str(trace), "-D", *command]
        return start(argv, output, *more)

    patch.setattr(stacks, "_start", under_strace)
    yield
