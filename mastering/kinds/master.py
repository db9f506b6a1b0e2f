"""The work of the kind `master`: the engine, from song to masters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO

from mastering.contract import Report, Settings
from mastering.engine.pipeline import master
from mastering.engine.progress import ProgressCallback


def run(
    source: BinaryIO,
    options: Settings,
    *,
    references: Sequence[BinaryIO],
    open_output: Callable[[str], BinaryIO],
    progress: ProgressCallback,
) -> Report:
    """Master `source` into every format of `options.outputs`. Raises Fault."""
    return master(source, options, references=references, open_output=open_output, progress=progress)
