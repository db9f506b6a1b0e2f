"""One upload per job at a time: a newer request takes over from an older one, whose client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Uploads = dict[str, asyncio.Task[object]]
"""The task that takes the upload of each job, for this process."""


@asynccontextmanager
async def takeover(uploads: Uploads, job_id: str) -> AsyncIterator[None]:
    """Be the job's only upload while the context is open; an older one is stopped first and keeps what it has."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 — an endpoint always runs in a task
    older = uploads.get(job_id)
    uploads[job_id] = task
    if older is not None and not older.done():
        older.cancel()
        await asyncio.wait([older])
    try:
        yield
    finally:
        if uploads.get(job_id) is task:
            del uploads[job_id]
