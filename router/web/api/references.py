"""Recordings that a master should sound like: sent before the song, looked at at once, gone with it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request

from mastering.contract import Fault
from router.core.errors import Problem
from router.http.problems import responses
from router.jobs.reservation import reserve
from router.jobs.services import Services
from router.spool.port import BlobGone
from router.store.port import JobMissing
from router.store.record import BlobRef, Job
from router.store.state import JobState
from router.web.api.jobs import check_size
from router.web.api.upload_lock import alone
from router.web.api.uploads import FAULTS, too_late, translated
from router.web.api.views import JobView, view
from router.web.dependencies import TheJob, TheServices
from router.web.request_body import incoming

MOST_REFERENCES = 4

router = APIRouter(prefix="/v1", tags=["uploads"])


@router.put(
    "/jobs/{job_id}/references/{number}",
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    responses=responses(*FAULTS),
)
async def put_reference(
    found: TheJob,
    services: TheServices,
    request: Request,
    number: Annotated[int, Path(ge=1, le=MOST_REFERENCES)],
    content_length: Annotated[int | None, Header(ge=0, le=2**53)] = None,
) -> JobView:
    """A recording to sound like, as the raw body, before the song itself is complete. The same number replaces it."""
    job = found.job
    if job.state is not JobState.RECEIVED:
        raise too_late(job)
    check_size(services, content_length)
    take = partial(_take, services, job, request, number, content_length)
    await alone(request.app.state.uploads, f"{job.id}/{number}", take)
    return await view(services, *await services.jobs.get(job.id))


async def _take(services: Services, job: Job, request: Request, number: int, size_bytes: int | None) -> None:
    """The reference into the spool and past the probe. It is on the job's record before its first byte, so that
    whatever ends the job ends it too. Raises Problem."""
    room = services.settings.max_bytes if size_bytes is None else size_bytes
    blob = BlobRef(ref=await reserve(services, job.account, room, job.expires_s), size_bytes=0)
    replaced = await _note(services, job, number, blob)
    if replaced is not None:
        await services.spool.drop(replaced.ref)
    try:
        async with translated(services):
            with incoming(services, request, 0, size_bytes) as body:
                extent = await services.spool.append(blob.ref, 0, body, size_bytes)
        await services.probe.probe(services.spool.read(blob.ref), size=extent.size_bytes)
        await _note(services, job, number, blob.model_copy(update={"size_bytes": extent.size_bytes}))
    except Fault as fault:
        await _forget(services, job, number, blob)
        raise Problem(fault.code, f"Reference {number}: {fault.message}", **fault.numbers) from fault
    except BlobGone:
        raise Problem("gone", "The job ended while its reference was on the way.") from None
    except BaseException:
        await _forget(services, job, number, blob)
        raise


async def _note(services: Services, job: Job, number: int, blob: BlobRef) -> BlobRef | None:
    """Put the reference on the job's record; another one that it replaces. Raises Problem when the song was quicker."""
    replaced: BlobRef | None = None

    def note(current: Job) -> Job | None:
        nonlocal replaced
        if current.state is not JobState.RECEIVED:
            return None
        replaced = current.references.get(number)
        return current.with_(references={**current.references, number: blob})

    noted = await services.change(job.id, note)
    if noted.references.get(number) != blob:
        await services.spool.drop(blob.ref)
        raise too_late(noted)
    return replaced if replaced is not None and replaced.ref != blob.ref else None


async def _forget(services: Services, job: Job, number: int, blob: BlobRef) -> None:
    """Drop a reference that did not come to its end, and take it off the record."""
    await services.spool.drop(blob.ref)

    def forget(current: Job) -> Job | None:
        there = current.references.get(number)
        if there is None or there.ref != blob.ref:
            return None
        return current.with_(references={n: kept for n, kept in current.references.items() if n != number})

    with suppress(JobMissing):
        await services.change(job.id, forget)
