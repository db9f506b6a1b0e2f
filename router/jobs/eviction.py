"""Eviction: wipes finished jobs while the spool lacks space, fetched ones first, and never one that still runs."""

from __future__ import annotations

from router.core.errors import Problem
from router.jobs import lifecycle
from router.jobs.services import Services
from router.spool.records import sealed_size
from router.store.record import Job
from router.store.state import DONE, JobState

EVICTED = (
    "The temporary store was full, and this finished master made room for other songs before its time."
    " Send the song again."
)
"""What the owner reads."""


async def evict(services: Services, needed_bytes: int) -> int:
    """Wipe finished jobs until a blob of `needed_bytes` fits: fetched ones before others, the oldest first.

    Returns how many were wiped. None is where all of them together would not be enough: nobody loses a master for a
    request that is refused all the same.
    """
    missing_bytes = services.spool.bytes_to_free(needed_bytes)
    if not missing_bytes:  # the usual case, and a look at every job on record takes milliseconds
        return 0
    evicted = 0
    done = [job async for job, _ in services.jobs.scan() if job.state in DONE]
    if sum(map(_outputs_bytes, done)) < missing_bytes:
        return 0
    for job in sorted(done, key=lambda job: (job.state is not JobState.DELIVERED, job.created_s)):
        if missing_bytes <= 0:
            break
        missing_bytes -= _outputs_bytes(job)
        await lifecycle.end(services, job.id, JobState.EXPIRED, Problem("gone", EVICTED))
        evicted += 1
    return evicted


def _outputs_bytes(job: Job) -> int:
    """What the job's outputs take in the spool, encryption included."""
    return sum(sealed_size(blob.size_bytes) for blob in job.outputs.values())
