"""The latest attempts, failovers and state changes of the fleet, for the operators' page: in RAM and bounded."""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

JournalKind = Literal["attempt", "failover", "state"]
MAX_ENTRIES = 200
"""More than a page shows; some tens of kilobytes."""


class JournalEntry(NamedTuple):
    """One event of one backend. It names neither job nor person."""

    at_s: float
    """On the clock of `clock.now`."""
    kind: JournalKind
    tier: str
    backend: str
    what: str
    """How the attempt ended, or the state that began."""
    detail: str
    seconds: float | None = None
    """How long an attempt took."""


class Journal:
    """Keeps the latest MAX_ENTRIES entries."""

    def __init__(self) -> None:
        self._entries: deque[JournalEntry] = deque(maxlen=MAX_ENTRIES)

    def note(self, entry: JournalEntry) -> None:
        self._entries.append(entry)

    def latest(self, count: int = MAX_ENTRIES) -> list[JournalEntry]:
        """The newest first."""
        return list(self._entries)[: -count - 1 : -1]
