"""The worker's event log: JSON lines of a few known events. No path, no name, no address, no library's own texts.

The form, and how every other way out of the process is closed, is `mastering.runtime.event_log`'s.
"""

from __future__ import annotations

import sys

from mastering.contract import FaultCode
from mastering.contract.kinds import job_kinds
from mastering.runtime.event_log import (
    EventLog,
    Events,
    Real,
    Several,
    Whole,
    Words,
    capture_process_output,
    to_stream,
)
from mastering.runtime.sandbox_check import ATTEMPTS

EVENTS: Events = {
    "listening": {"port": Whole(0, 65_535), "concurrency": Whole()},
    "sandbox_incomplete": {"gaps": Several(Words(*ATTEMPTS))},
    "stopping": {},
    "stopped": {},
    "render_ended": {"kind": Words(*job_kinds()), "outcome": Words("done", *FaultCode), "seconds": Real()},
}


class WorkerEventLog:
    """The events of a worker, one method each."""

    def __init__(self) -> None:
        self._book = EventLog(EVENTS, to_stream(lambda: sys.stdout))

    def capture_process_output(self) -> None:
        """Make this log the only way out of the process."""
        capture_process_output(self._book)

    def listening(self, port: int, concurrency: int) -> None:
        self._book.log("listening", port=port, concurrency=concurrency)

    def sandbox_incomplete(self, gaps: tuple[str, ...]) -> None:
        self._book.log("sandbox_incomplete", gaps=gaps)

    def stopping(self) -> None:
        self._book.log("stopping")

    def stopped(self) -> None:
        self._book.log("stopped")

    def render_ended(self, kind: str | None, outcome: str, seconds: float) -> None:
        """`kind`: None for a request that did not get so far as to name one that is served here."""
        fields = {"kind": kind} if kind else {}
        self._book.log("render_ended", outcome=outcome, seconds=round(seconds, 1), **fields)
