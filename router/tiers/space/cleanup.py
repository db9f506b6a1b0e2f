"""Which jobs a Space may still hold something of: noted before the first byte goes out, struck when it is seen gone.

One empty file per job in a folder on RAM-backed storage, so that a router that was killed finds its debts again and
pays them with the first answer of the Space. A reboot forgets them; the Space's own timers (60 s) then do it.
"""

from __future__ import annotations

import re
import secrets
import time
from pathlib import Path

LONGEST_S = 600.0
"""By then the Space's own timers have ended everything many times over; one that never comes back owes nothing."""
_ID = re.compile(r"[0-9a-f]{32}")


class PendingDeletions:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: set[str] = set()

    def begin(self) -> str:
        """The id of a new job on the Space: drawn, never derived from anything. It is noted."""
        job_id = secrets.token_hex(16)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / job_id).touch(mode=0o600)
        self._running.add(job_id)
        return job_id

    def end(self, job_id: str) -> None:
        """The attempt is over; what it left there is now owed."""
        self._running.discard(job_id)

    def strike(self, job_id: str) -> None:
        """The Space has been seen to have nothing of it."""
        self._running.discard(job_id)
        (self._folder / job_id).unlink(missing_ok=True)

    def owed(self) -> list[str]:
        """Jobs that are over, here or in an earlier life of the router, and not yet struck."""
        if not self._folder.is_dir():
            return []
        owed = []
        for note in self._folder.iterdir():
            if not _ID.fullmatch(note.name) or note.name in self._running:
                continue
            if time.time() - note.stat().st_mtime > LONGEST_S:
                note.unlink(missing_ok=True)
                continue
            owed.append(note.name)
        return owed
