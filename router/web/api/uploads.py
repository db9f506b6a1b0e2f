"""Audio comes in: a raw streamed body, written to the spool as it arrives, continued where it broke off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from starlette.requests import ClientDisconnect

from mastering.contract import Facts
from router.core.errors import Problem
from router.http.problems import responses
from router.jobs import intake, lifecycle
from router.jobs.reservation import reserve
from router.jobs.services import Services
from router.probe.stream_tap import StreamTap
from router.spool.port import BlobGone, Extent, SpoolFull, WrongOffset
from router.store.port import Versioned
from router.store.record import BlobRef, Job
from router.store.state import CLOSED, JobState
from router.web.api.jobs import check_size
from router.web.api.upload_lock import alone
from router.web.api.views import JobView, ended, view
from router.web.dependencies import TheJob, TheServices
from router.web.request_body import incoming

router = APIRouter(prefix="/v1", tags=["uploads"])

TUS_VERSION = "1.0.0"

FAULTS = (
    "empty_file", "unsupported_format", "undecodable", "truncated", "not_finite", "silent", "too_short", "too_long",
    "too_many_channels", "unsupported_rate", "resource_limit", "too_large", "spool_full", "spool_share",
    "too_many_jobs", "offset_mismatch", "upload_in_progress", "not_ready", "upload_timeout", "gone", "not_found",
)  # fmt: skip
"""What can be wrong with an upload, or with the song when its last byte has come."""


@router.put(
    "/jobs/{job_id}/audio",
    status_code=202,
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    responses=responses(*FAULTS),
)
async def put_audio(
    found: TheJob,
    services: TheServices,
    request: Request,
    content_length: Annotated[int | None, Header(ge=0, le=2**53)] = None,
    upload_offset: Annotated[int | None, Header(ge=0, le=2**53)] = None,
) -> JobView:
    """Send the song as the raw body; `Upload-Offset` continues an upload that broke off. Answers when it is queued."""
    return await view(services, *await receive(services, found.job, request, upload_offset, content_length))


async def receive(
    services: Services, job: Job, request: Request, offset: int | None, content_length: int | None
) -> Versioned:
    """Take the request's body into the job's audio from `offset` on (None: from the start, whatever came before).

    The last byte queues the job. Raises Problem.
    """
    if job.state is not JobState.RECEIVED:
        raise too_late(job)
    total = _total(job, offset or 0, content_length)
    check_size(services, total)
    tap = None if offset else services.probe.tap_song(total)
    take = partial(_take, services, job, request, offset, content_length, tap)
    try:
        extent = await alone(request.app.state.uploads, job.id, take)
        if extent.complete:
            await _queue(services, job.id, extent.size_bytes, tap)
    finally:
        if tap:
            tap.close()
    return await services.jobs.get(job.id)


@router.head("/jobs/{job_id}/audio", responses=responses("not_found", "gone"), response_class=Response)
async def offset(found: TheJob, services: TheServices) -> Response:
    """How much has arrived, in the header Upload-Offset."""
    job = found.job
    if job.state in CLOSED:
        raise too_late(job)
    arrived = await arrived_bytes(services, job)
    headers = {"upload-offset": str(arrived), "cache-control": "no-store", "tus-resumable": TUS_VERSION}
    if job.size_bytes is not None:
        headers["upload-length"] = str(job.size_bytes)
    return Response(headers=headers)


async def arrived_bytes(services: Services, job: Job) -> int:
    """How much of the job's audio has arrived, also when it was destroyed since. Raises Problem(gone)."""
    if job.state is not JobState.RECEIVED:
        return job.size_bytes or 0
    try:
        return (await services.spool.extent(job.input.ref)).size_bytes if job.input else 0
    except BlobGone:
        raise _lost() from None


async def _take(
    services: Services,
    job: Job,
    request: Request,
    offset: int | None,
    content_length: int | None,
    tap: StreamTap[Facts] | None,
) -> Extent:
    total = _total(job, offset or 0, content_length)
    try:
        async with translated(services):
            ref = await _blob(services, job, offset, total)
            with incoming(services, request, offset or 0, content_length) as body:
                return await services.spool.append(ref, offset or 0, body, total, tap.take if tap else None)
    except Problem as problem:
        if problem.code in ("too_large", "spool_full"):
            await lifecycle.end(services, job.id, JobState.FAILED, problem)
        raise


@asynccontextmanager
async def translated(services: Services) -> AsyncIterator[None]:
    """What can go wrong while a body is taken into the spool, as a Problem."""
    try:
        yield
    except ClientDisconnect:
        raise Problem("bad_request", "The connection ended before the upload did.") from None
    except WrongOffset as wrong:
        raise Problem(
            "offset_mismatch",
            f"{wrong.offset_bytes} bytes have arrived: continue there.",
            offset_bytes=wrong.offset_bytes,
        ) from None
    except BlobGone:
        raise _lost() from None
    except SpoolFull as full:
        raise _full(services, full) from None
    except asyncio.CancelledError:
        if services.events.is_closing:
            raise Problem("draining", "What has arrived is kept: continue the upload when it is back.") from None
        raise


async def _blob(services: Services, job: Job, offset: int | None, total: int | None) -> str:
    """The blob this upload goes to: a new one, or the one it continues."""
    job, _ = await services.jobs.get(job.id)
    if job.state is not JobState.RECEIVED:  # another request brought the last byte while this one waited its turn
        raise too_late(job)
    if job.input and (offset is not None or await arrived_bytes(services, job) == 0):
        return job.input.ref
    if job.input:  # a plain PUT once more: from the start
        await services.spool.drop(job.input.ref)
    ref = await reserve(services, job.account, services.settings.max_bytes if total is None else total, job.expires_s)

    def note(current: Job) -> Job | None:
        return current.with_(input=BlobRef(ref=ref, size_bytes=0)) if current.state is JobState.RECEIVED else None

    noted = await services.change(job.id, note)
    if noted.input is None or noted.input.ref != ref:
        await services.spool.drop(ref)
        raise too_late(noted)
    return ref


async def _queue(services: Services, job_id: str, size_bytes: int, tap: StreamTap[Facts] | None) -> None:
    job = await services.change(job_id, lambda job: intake.spooled(job, size_bytes))
    if job.state is not JobState.SPOOLED:
        raise too_late(job)
    await intake.admit(services, job_id, tap)


def _total(job: Job, offset: int, content_length: int | None) -> int | None:
    """Size of the whole file as far as the client said it. Raises Problem when it says two things."""
    sent = None if content_length is None else offset + content_length
    if job.size_bytes is None:
        return sent
    if sent is not None and sent > job.size_bytes:
        raise Problem(
            "bad_request",
            f"The job announced {job.size_bytes} bytes; this request would make it {sent}.",
            announced_bytes=job.size_bytes,
            sent_bytes=sent,
        )
    return job.size_bytes


def _lost() -> Problem:
    return Problem("gone", "What had arrived of this upload is gone. Make a new job.")


def too_late(job: Job) -> Problem:
    if job.error:
        return ended(job)
    return Problem("not_ready", f"The upload is complete; the job is {job.state}.", state=str(job.state))


def _full(services: Services, full: SpoolFull) -> Problem:
    if full.retry_after_s == 0:
        allowed = services.settings.max_bytes
        return Problem("too_large", f"More came than was announced, or than the {allowed / 2**20:.0f} MiB allowed.")
    return Problem(
        "spool_full", "The temporary store is full. Try again in a minute.", retry_after_s=full.retry_after_s
    )
