"""The record of a job: one small document. It has no audio, no file name, and no identity but a pseudonym.

Times are seconds on the service's clock (`core.clock`), which no change of the wall clock moves.
"""

from __future__ import annotations

import secrets
from typing import Any

from pydantic import BaseModel, ConfigDict

from mastering.contract import Facts
from router.store import state
from router.store.state import JobState

THIS_ROUTER = "here"
"""The name of a router that is the only one on its store."""


class _Document(BaseModel):
    """A frozen part of the record."""

    # A newer router may have written it before this one was put back: unknown fields are ignored.
    model_config = ConfigDict(frozen=True, extra="ignore")


class BlobRef(_Document):
    """An encrypted audio file in the spool: its reference there, and its size."""

    ref: str
    size_bytes: int
    holders: tuple[str, ...] = ()
    """Names of the routers that have it; none named: the job's owner alone."""


class Attempt(_Document):
    """One attempt on one backend, with the reason for choosing it and how it ended."""

    number: int
    generation: int
    tier: str
    backend: str
    reason: str
    started_s: float
    eta_s: float | None = None
    """Seconds that it was expected to take when it began."""
    ended_s: float | None = None
    outcome: str = "running"
    detail: str = ""
    device: str | None = None
    """What the backend said that it renders on."""


class JobProgress(_Document):
    """How far the running attempt is: at which of its kind's stages, and `fraction` 0 to 1 of all the work."""

    stage: str
    fraction: float


class Receipt(_Document):
    """When the keys of the job's audio were destroyed: its proof for the person, in seconds since the epoch."""

    input_key_destroyed_at: float | None = None
    outputs_key_destroyed_at: float | None = None


class Job(_Document):
    """All that the router keeps of a job. `id` is random, `account` a pseudonym."""

    id: str
    account: str
    owner: str = THIS_ROUTER
    """The name of the router that has its audio and works on it."""
    version: int = 0
    """How often the record was changed: of two copies the one with the higher is the later."""
    writer: str = ""
    """Names the last change, so that who lost the answer to it can tell whether it was made."""
    state: JobState = JobState.RECEIVED
    kind: str = "master"
    """Its kind (`mastering.contract.kinds`), which alone says what options, outputs and report mean."""
    options: dict[str, Any]
    """What the person asked for, as JSON; `outputs` are among them."""
    managed_only: bool = False
    """The person has not consented to machines of others: only the managed tier may have the song."""
    created_s: float
    expires_s: float
    """When its outputs stop being readable, and an unfinished job is given up."""
    size_bytes: int | None = None
    """The size of the upload as the client announced it."""
    input: BlobRef | None = None
    references: dict[int, BlobRef] = {}
    """Recordings that the master should sound like, by the number that the person gave each."""
    facts: Facts | None = None
    queued_s: float | None = None
    """When the probe had accepted its audio and it entered the queue."""
    generation: int = 0
    """The fencing token: raised with each attempt, after faults and restarts alike; older ones' results are refused."""
    faults: int = 0
    """Attempts that ended in a fault that counts: a job may have few. A restart of the router never raises it."""
    deaths: int = 0
    """Attempts of which the backend may have died: after two the job ends with the error `poison`."""
    attempts: tuple[Attempt, ...] = ()
    progress: JobProgress | None = None
    outputs: dict[str, BlobRef] = {}
    """By the kind's names for them."""
    report: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    receipt: Receipt = Receipt()
    ended_as: JobState | None = None
    """The state that a wiped job had before: failed, cancelled or expired."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the outputs that were asked for."""
        return tuple(self.options["outputs"])

    @property
    def blobs(self) -> list[BlobRef]:
        """All audio of this job in the spool."""
        return [blob for blob in (self.input, *self.references.values(), *self.outputs.values()) if blob]

    def to(self, after: JobState, **changes: Any) -> Job:
        """The job in the state `after`, with `changes`. Raises state.IllegalStep."""
        state.check_step(self.state, after)
        return self.model_copy(update={"state": after, **changes})

    def with_(self, **changes: Any) -> Job:
        """The job in the same state, with `changes`."""
        return self.model_copy(update=changes)


def new_id() -> str:
    """128 bits from the system's generator, as 22 URL-safe characters."""
    return secrets.token_urlsafe(16)
