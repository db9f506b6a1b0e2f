"""The song's upload over HTTP: a raw body, written to the spool as it arrives, continued where it broke off."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from mastering.contract import Facts
from router.core.errors import Problem
from router.http.problems import responses
from router.jobs import lifecycle, uploads
from router.jobs.kinds import kind_of
from router.jobs.reservation import refuse_too_large
from router.jobs.services import Services
from router.probe.stream_tap import StreamTap
from router.spool.port import Extent
from router.store.port import Versioned
from router.store.record import Job
from router.store.state import CLOSED, JobState
from router.web.api.upload_lock import run_exclusively
from router.web.api.views import JobView, view
from router.web.dependencies import TheJob, TheServices
from router.web.request_body import request_body

router = APIRouter(prefix="/v1", tags=["uploads"])

TUS_VERSION = "1.0.0"

FAULTS = (
    "empty_file", "unsupported_format", "undecodable", "truncated", "not_finite", "silent", "too_short", "too_long",
    "too_many_channels", "unsupported_rate", "resource_limit", "too_large", "spool_full", "spool_share",
    "too_many_jobs", "offset_mismatch", "upload_in_progress", "not_ready", "upload_timeout", "gone", "not_found",
)  # fmt: skip
"""Error codes that an upload may end in, those of the probed song included."""


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
    refuse_parts_and_forms(request)
    return await view(services, *await receive(services, found.job, request, upload_offset, content_length))


def refuse_parts_and_forms(request: Request) -> None:
    """Raise Problem for a body that is a form, or that Content-Range calls a part of a file.

    RFC 9110 §14.5: whoever does not know Content-Range on a PUT must not take the part for the whole.
    """
    if "content-range" in request.headers:
        raise Problem("bad_request", "Content-Range is not taken here: send the rest with Upload-Offset: N.")
    # Not urlencoded forms: curl --data-binary calls every body so.
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Problem("unsupported_media_type", "Send the file itself as the body, no form: curl -T song.wav URL.")


async def receive(
    services: Services, job: Job, request: Request, offset: int | None, content_length: int | None
) -> Versioned:
    """Write the request's body to the job's audio from `offset` on (None: from the start, whatever came before).

    The last byte has the song probed and the job queued. Raises Problem.
    """
    if job.state is not JobState.RECEIVED:
        raise uploads.upload_closed(job)
    total = uploads.total_bytes(job, offset or 0, content_length)
    refuse_too_large(services, kind_of(job), total)
    tap = None if offset else services.probe.tap_song(total, account=job.account)
    write = partial(_write_body, services, job, request, offset, content_length, tap)
    try:
        extent = await run_exclusively(request.app.state.uploads, job.id, write)
        if extent.complete:
            await uploads.complete(services, job.id, extent.size_bytes, tap)
    finally:
        if tap:
            tap.close()
    return await services.jobs.get(job.id)


@router.head("/jobs/{job_id}/audio", responses=responses("not_found", "gone"), response_class=Response)
async def offset(found: TheJob, services: TheServices) -> Response:
    """How many bytes have arrived, in the header Upload-Offset."""
    job = found.job
    if job.state in CLOSED:
        raise uploads.upload_closed(job)
    arrived = await uploads.arrived_bytes(services.spool, job)
    headers = {"upload-offset": str(arrived), "cache-control": "no-store", "tus-resumable": TUS_VERSION}
    if job.size_bytes is not None:
        headers["upload-length"] = str(job.size_bytes)
    return Response(headers=headers)


async def _write_body(
    services: Services,
    job: Job,
    request: Request,
    offset: int | None,
    content_length: int | None,
    tap: StreamTap[Facts] | None,
) -> Extent:
    """Write the body to the job's blob; one that is too large for it ends the job. Raises Problem."""
    total = uploads.total_bytes(job, offset or 0, content_length)
    try:
        async with uploads.spool_errors_as_problems(services):
            ref = await uploads.input_blob(services, job.id, offset, total)
            with request_body(services, request, offset or 0, content_length) as body:
                return await services.spool.append(ref, offset or 0, body, total, tap.write if tap else None)
    except Problem as problem:
        if problem.code in ("too_large", "spool_full"):
            await lifecycle.end(services, job.id, JobState.FAILED, problem)
        raise
