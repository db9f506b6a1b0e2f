"""The life of a job: every state, and every step that is allowed, in one table.

A job is accepted once and ends in a verified master or in an honest error, whatever dies between. Two ideas carry
that. First, `sealed` stands between rendering and done: a verified output is committed before the input's key is
destroyed, so no kill can leave a job with neither; whoever finds a sealed job only repeats the destruction. Second,
`generation` fences attempts: each time a job is put to work its generation grows, and only the current one's
result is accepted, so a late worker changes nothing.

Every step is one compare-and-set on the job's revision. An illegal step raises and changes nothing.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    RECEIVED = "received"
    """Waiting for the upload or taking it. The browser moves it on; a crash leaves what whole records arrived."""
    SPOOLED = "spooled"
    """The upload is complete, the probe looks at it. A crash: the probe runs again at start."""
    QUEUED = "queued"
    """The audio is sound and waits for a tier. The dispatcher moves it on; a crash leaves it queued."""
    RUNNING = "running"
    """An attempt holds it under a lease. A crash: queued again at start, generation raised, budget untouched."""
    SEALED = "sealed"
    """A verified output is committed. The input's key is destroyed next; a crash repeats exactly that."""
    MASTERED = "mastered"
    """The master can be fetched, the input is gone. Time or the person moves it on."""
    DELIVERED = "delivered"
    """The master was fetched in full at least once. Time or the person moves it on."""
    FAILED = "failed"
    """An honest error stands in the record. The reaper wipes it."""
    CANCELLED = "cancelled"
    """The person stopped it. It is wiped next."""
    EXPIRED = "expired"
    """Its time ran out. It is wiped next."""
    WIPED = "wiped"
    """No byte of audio is left; the record keeps the receipt until its own time ends."""


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
"""The job is still owed a master."""
DONE = frozenset({JobState.MASTERED, JobState.DELIVERED})
"""A master can be fetched."""
CLOSED = _ENDS | {JobState.WIPED}
"""Nothing more will come."""


class IllegalStep(Exception):
    """A step that the table does not have. It is a bug or a late writer; nothing was changed."""


def check(before: JobState, after: JobState) -> None:
    """Raise IllegalStep unless the table has the step."""
    if after not in STEPS[before]:
        raise IllegalStep(f"{before} → {after}")


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", "    [*] --> received"]
    lines += [f"    {before} --> {after}" for before, steps in STEPS.items() for after in sorted(steps)]
    return "\n".join([*lines, "    wiped --> [*]"]) + "\n"
