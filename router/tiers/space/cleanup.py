"""The list of jobs that a Space may still hold data of, so that each is deleted there, even after a crash.

A job is added before its first byte is sent and removed once the Space has been seen to hold nothing of it. One empty
file per job in a folder on RAM-backed storage: a router that was killed finds them again and deletes the jobs with the
Space's first answer. A reboot loses the list; the Space's own timers (60 s) then delete.
"""

from __future__ import annotations

import re
import secrets
import time
from pathlib import Path

GIVE_UP_AFTER_S = 600.0
"""After so long a job is dropped from the list: the Space's own timers have deleted it many times over."""
_JOB_ID = re.compile(r"[0-9a-f]{32}")


class PendingDeletions:
    """The list of one Space, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: set[str] = set()

    def add(self) -> str:
        """Add a new job; its id on the Space, which is random and derived from nothing."""
        job_id = secrets.token_hex(16)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / job_id).touch(mode=0o600)
        self._running.add(job_id)
        return job_id

    def mark_due(self, job_id: str) -> None:
        """The attempt has ended: the job can be deleted."""
        self._running.discard(job_id)

    def remove(self, job_id: str) -> None:
        """The Space holds nothing of the job any more."""
        self._running.discard(job_id)
        (self._folder / job_id).unlink(missing_ok=True)

    def due(self) -> list[str]:
        """Ids of the jobs to delete: attempts that ended, in this process or an earlier one of the router."""
        if not self._folder.is_dir():
            return []
        due = []
        for entry in self._folder.iterdir():
            if not _JOB_ID.fullmatch(entry.name) or entry.name in self._running:
                continue
            if time.time() - entry.stat().st_mtime > GIVE_UP_AFTER_S:
                entry.unlink(missing_ok=True)
                continue
            due.append(entry.name)
        return due
