"""One upload per job at a time: a newer request takes over from an older one, whose client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from router.core.errors import Problem

T = TypeVar("T")
Uploads = dict[str, set[asyncio.Task[object]]]
"""The tasks that take each job's upload, for this process: one at work, older ones about to end."""


async def alone(uploads: Uploads, job_id: str, take: Callable[[], Awaitable[T]]) -> T:
    """What `take` returns, run as the job's only upload; older ones are stopped first and keep what they have.

    Raises Problem(upload_in_progress) when a newer one takes over from this one.
    """
    tasks = uploads.setdefault(job_id, set())
    older = set(tasks)
    for one in older:
        if not one.cancelling():  # a second time would disturb how it ends
            one.cancel()
    task = asyncio.create_task(_after(older, take))
    tasks.add(task)
    try:
        return await task
    except asyncio.CancelledError:
        if (own := asyncio.current_task()) is not None and own.cancelling():
            raise
        raise Problem("upload_in_progress", "A newer request goes on with this upload.") from None
    finally:
        tasks.discard(task)
        if not tasks and uploads.get(job_id) is tasks:
            del uploads[job_id]


async def _after(older: set[asyncio.Task[object]], take: Callable[[], Awaitable[T]]) -> T:
    if older:
        await asyncio.wait(older)  # they write to the same file until they have ended
    return await take()
