"""The state machine of a job: every state and every allowed step, in one table.

A job is accepted once and ends in a verified master or in an honest error, whatever dies between. Two ideas carry
that. First, `sealed` stands between rendering and done: a verified output is committed before the input's key is
destroyed, so no kill can leave a job with neither; a sealed job found after a crash only has the destruction
repeated. Second, `generation` fences attempts: each attempt raises it, and only a result of the current generation is
accepted, so a late worker changes nothing.

Every step is one compare-and-set on the job's revision. An illegal step raises and changes nothing.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life; each state says who moves it on, and what a crash leaves."""

    RECEIVED = "received"
    """The upload is awaited or under way; the client moves it on. A crash keeps the records that arrived whole."""
    SPOOLED = "spooled"
    """The upload is complete and is probed. After a crash it is probed again at start."""
    QUEUED = "queued"
    """The audio is sound and waits for a backend. The dispatcher moves it on; a crash leaves it queued."""
    RUNNING = "running"
    """An attempt has it under a lease. After a crash it is queued again at start, and no fault is counted."""
    SEALED = "sealed"
    """A verified output is committed. The input's key is destroyed next; after a crash exactly that is repeated."""
    MASTERED = "mastered"
    """The master can be fetched, the input is destroyed. Time or the person moves it on."""
    DELIVERED = "delivered"
    """The master was fetched in full at least once. Time or the person moves it on."""
    FAILED = "failed"
    """It ended with the error in its record. It is wiped next."""
    CANCELLED = "cancelled"
    """The person cancelled it. It is wiped next."""
    EXPIRED = "expired"
    """Its time ran out. It is wiped next."""
    WIPED = "wiped"
    """No byte of audio is left; the record keeps the receipt until it is removed itself."""


_ENDS = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})

STEPS: dict[JobState, frozenset[JobState]] = {
    JobState.RECEIVED: frozenset({JobState.SPOOLED}) | _ENDS,
    JobState.SPOOLED: frozenset({JobState.QUEUED}) | _ENDS,
    JobState.QUEUED: frozenset({JobState.RUNNING}) | _ENDS,
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SEALED}) | _ENDS,
    JobState.SEALED: frozenset({JobState.MASTERED, JobState.EXPIRED}),
    JobState.MASTERED: frozenset({JobState.DELIVERED, JobState.EXPIRED, JobState.CANCELLED}),
    JobState.DELIVERED: frozenset({JobState.EXPIRED, JobState.CANCELLED}),
    JobState.FAILED: frozenset({JobState.WIPED}),
    JobState.CANCELLED: frozenset({JobState.WIPED}),
    JobState.EXPIRED: frozenset({JobState.WIPED}),
    JobState.WIPED: frozenset(),
}

ACTIVE = frozenset({JobState.RECEIVED, JobState.SPOOLED, JobState.QUEUED, JobState.RUNNING, JobState.SEALED})
"""The job is under way to a master."""
DONE = frozenset({JobState.MASTERED, JobState.DELIVERED})
"""A master can be fetched."""
CLOSED = _ENDS | {JobState.WIPED}
"""No master can be fetched, and none will come."""


class IllegalStep(Exception):
    """A step that is not in the table: a bug or a late writer. Nothing was changed."""


def check_step(before: JobState, after: JobState) -> None:
    """Raise IllegalStep unless the step is in the table."""
    if after not in STEPS[before]:
        raise IllegalStep(f"{before} → {after}")


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", "    [*] --> received"]
    lines += [f"    {before} --> {after}" for before, steps in STEPS.items() for after in sorted(steps)]
    return "\n".join([*lines, "    wiped --> [*]"]) + "\n"
