"""Recordings that a master should sound like: sent before the song, looked at at once, gone with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request

from mastering.contract import Fault
from router.errors import Problem
from router.house import House
from router.jobs.model import BlobRef, Job
from router.jobs.state import State
from router.web.jobs import check_size, reserve
from router.web.problems import responses
from router.web.rooms import TheHouse, TheJob
from router.web.uploads import FAULTS, limited_body, too_late, translated
from router.web.views import JobView, view

MOST_REFERENCES = 4

router = APIRouter(prefix="/v1", tags=["uploads"])


@router.put(
    "/jobs/{job_id}/references/{number}",
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    responses=responses(*FAULTS),
)
async def put_reference(
    found: TheJob,
    house: TheHouse,
    request: Request,
    number: Annotated[int, Path(ge=1, le=MOST_REFERENCES)],
    content_length: Annotated[int | None, Header(ge=0)] = None,
) -> JobView:
    """A recording to sound like, as the raw body, before the song itself is complete. The same number replaces it."""
    job = found.job
    if job.state is not State.RECEIVED:
        raise too_late(job)
    check_size(house, content_length)
    blob = await _keep(house, job, request, content_length)
    try:
        await house.probe.probe(house.spool.read(blob.ref))
        job, replaced = await _note(house, job, number, blob)
    except Fault as fault:
        await house.spool.drop(blob.ref)
        raise Problem(fault.code, f"Reference {number}: {fault.message}", **fault.numbers) from fault
    except BaseException:
        await house.spool.drop(blob.ref)
        raise
    if replaced is not None:
        await house.spool.drop(replaced.ref)
    return await view(house, *await house.jobs.get(job.id))


async def _keep(house: House, job: Job, request: Request, size_bytes: int | None) -> BlobRef:
    room = house.settings.max_bytes if size_bytes is None else size_bytes
    ref = await reserve(house, room, job.expires_s, beside=job.input.ref if job.input else None)
    try:
        async with translated(house):
            extent = await house.spool.append(ref, 0, limited_body(house, request, 0), size_bytes)
    except BaseException:
        await house.spool.drop(ref)
        raise
    return BlobRef(ref=ref, size_bytes=extent.size_bytes)


async def _note(house: House, job: Job, number: int, blob: BlobRef) -> tuple[Job, BlobRef | None]:
    """Put the reference on the job's record; the one it replaces, if any. Raises Problem when the song was quicker."""
    replaced: BlobRef | None = None

    def note(current: Job) -> Job | None:
        nonlocal replaced
        if current.state is not State.RECEIVED:
            return None
        replaced = current.references.get(number)
        return current.with_(references={**current.references, number: blob})

    noted = await house.change(job.id, note)
    if noted.references.get(number) != blob:
        raise too_late(noted)
    return noted, replaced
