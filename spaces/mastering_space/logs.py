"""The log of a Space: JSON lines of a few known events. No address, no name, no job's id, no text of a library.

Hugging Face keeps a Space's output and shows it to its owner, and Gradio and the `spaces` package print what they
like: descriptors 1 and 2 lead to /dev/null once the log has its own copy.
"""

from __future__ import annotations

import os

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

WORK = Words(*(f"{kind.name}/{pace}" for kind in job_kinds().values() for pace in kind.paces))
"""A kind of job and its pace, as `JobKind.work` names it."""
EVENTS: Events = {
    "listening": {"port": Whole(0, 65_535), "concurrency": Whole()},
    "sandbox_incomplete": {"gaps": Several(Words(*ATTEMPTS))},
    "stopping": {},
    "stopped": {},
    "render_ended": {"outcome": Words("done", *FaultCode), "work": WORK, "seconds": Real()},
}


class SpaceLog:
    """The events of a Space, one method each. Making it sends all other output of the process to /dev/null."""

    def __init__(self) -> None:
        kept = os.fdopen(os.dup(1), "w")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        self._book = EventLog(EVENTS, to_stream(lambda: kept))
        capture_process_output(self._book)

    def listening(self, port: int, concurrency: int) -> None:
        self._book.log("listening", port=port, concurrency=concurrency)

    def sandbox_incomplete(self, gaps: tuple[str, ...]) -> None:
        self._book.log("sandbox_incomplete", gaps=gaps)

    def stopping(self) -> None:
        self._book.log("stopping")

    def stopped(self) -> None:
        self._book.log("stopped")

    def render_ended(self, outcome: str, work: str, seconds: float) -> None:
        self._book.log("render_ended", outcome=outcome, work=work, seconds=round(seconds, 1))

    def broken(self, error: BaseException) -> None:
        self._book.broken(error)
