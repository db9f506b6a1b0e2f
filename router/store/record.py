"""The job record: one small versioned document per job. No audio, no file name, no identity but a pseudonym.

Times are seconds on the clock of `clock.now` (CLOCK_BOOTTIME), which no change of the wall clock moves.
"""

from __future__ import annotations

import secrets
from typing import Any

from pydantic import BaseModel, ConfigDict

from mastering.contract import Facts, OutputFormat, Report, Settings, Stage
from router.store import state
from router.store.state import JobState


class _Document(BaseModel):
    # A newer router may have written it before this one was put back: what is not known is passed over.
    model_config = ConfigDict(frozen=True, extra="ignore")


class BlobRef(_Document):
    """Where one encrypted stretch of audio lies in the spool, and how much of it there is."""

    ref: str
    size_bytes: int


class Attempt(_Document):
    """One try on one backend. On record with its reason, without identity."""

    number: int
    generation: int
    tier: str
    backend: str
    reason: str
    started_s: float
    eta_s: float | None = None
    """How long it was expected to take when it began."""
    ended_s: float | None = None
    outcome: str = "running"
    detail: str = ""


class Progress(_Document):
    stage: Stage
    fraction: float


class Receipt(_Document):
    """When the keys were destroyed, seconds since the epoch to the minute's precision the person needs."""

    input_key_destroyed_at: float | None = None
    outputs_key_destroyed_at: float | None = None


class Job(_Document):
    id: str
    account: str
    state: JobState = JobState.RECEIVED
    settings: Settings
    managed_only: bool = False
    created_s: float
    expires_s: float
    """When its outputs stop being readable, and an unfinished job is given up."""
    size_bytes: int | None = None
    """What the client said it would send."""
    input: BlobRef | None = None
    references: dict[int, BlobRef] = {}
    """Recordings to sound like, by the number that the person gave each."""
    facts: Facts | None = None
    queued_s: float | None = None
    """When its audio was found good and it stood in line."""
    generation: int = 0
    """The fence: raised each time the job is put to work, by faults and by restarts alike."""
    faults: int = 0
    """The budget: attempts that faulted. A restart of the router never raises it."""
    deaths: int = 0
    """Backends that died while they had this job: two make it poison."""
    attempts: tuple[Attempt, ...] = ()
    progress: Progress | None = None
    outputs: dict[OutputFormat, BlobRef] = {}
    report: Report | None = None
    error: dict[str, Any] | None = None
    receipt: Receipt = Receipt()
    ended_as: JobState | None = None
    """How a wiped job had ended: failed, cancelled or expired."""

    @property
    def blobs(self) -> list[BlobRef]:
        """All audio that this job names."""
        return [blob for blob in (self.input, *self.references.values(), *self.outputs.values()) if blob]

    def to(self, after: JobState, **changes: Any) -> Job:
        """The job one step on. Raises state.IllegalStep."""
        state.check(self.state, after)
        return self.model_copy(update={"state": after, **changes})

    def with_(self, **changes: Any) -> Job:
        """The job in the same state with something noted."""
        return self.model_copy(update=changes)


def new_id() -> str:
    """128 bits from the system's generator, as 22 URL-safe characters."""
    return secrets.token_urlsafe(16)
