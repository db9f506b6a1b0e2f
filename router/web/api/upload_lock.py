"""Allows one upload per job at a time: a newer request takes over from an older one, whose client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from router.core.errors import Problem

T = TypeVar("T")
Uploads = dict[str, set[asyncio.Task[object]]]
"""Upload tasks by job id, of this process: the newest at work, older ones about to end."""


async def run_exclusively(uploads: Uploads, job_id: str, upload: Callable[[], Awaitable[T]]) -> T:
    """Run `upload` as the job's only one and return its result; older ones are cancelled first and keep their bytes.

    Raises Problem(upload_in_progress) when a newer one takes over from this one.
    """
    tasks = uploads.setdefault(job_id, set())
    older = set(tasks)
    for one in older:
        if not one.cancelling():  # a second time would disturb how it ends
            one.cancel()
    task = asyncio.create_task(_run_after(older, upload))
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


async def _run_after(older: set[asyncio.Task[object]], upload: Callable[[], Awaitable[T]]) -> T:
    if older:
        await asyncio.wait(older)  # they write to the same file until they have ended
    return await upload()
