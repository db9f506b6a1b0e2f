"""The last things that happened to tiers, for the operators' page: in RAM, bounded, without jobs or people."""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

Kind = Literal["attempt", "failover", "state"]
KEPT = 200


class JournalEntry(NamedTuple):
    at_s: float
    """On the clock of `clock.now`."""
    kind: Kind
    tier: str
    backend: str
    what: str
    """How the attempt ended, or the state that began."""
    detail: str
    seconds: float | None = None


class Journal:
    def __init__(self) -> None:
        self._entries: deque[JournalEntry] = deque(maxlen=KEPT)

    def note(self, entry: JournalEntry) -> None:
        self._entries.append(entry)

    def latest(self, count: int = KEPT) -> list[JournalEntry]:
        """The newest first."""
        return list(self._entries)[: -count - 1 : -1]
