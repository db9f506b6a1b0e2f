"""Uploads of reference recordings, which the master should sound like: sent before the song and probed at once."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request

from mastering.contract import Fault
from router.core.errors import Problem
from router.http.problems import responses
from router.jobs.kinds import kind_of
from router.jobs.reservation import allowed_bytes, refuse_too_large, reserve
from router.jobs.services import Services
from router.jobs.uploads import (
    MAX_REFERENCES,
    forget_reference,
    note_reference,
    spool_errors_as_problems,
    upload_closed,
)
from router.spool.port import BlobGone
from router.store.record import BlobRef, Job
from router.store.state import JobState
from router.web.api.upload_lock import run_exclusively
from router.web.api.uploads import FAULTS, refuse_parts_and_forms
from router.web.api.views import JobView, view
from router.web.dependencies import TheJob, TheServices
from router.web.request_body import request_body

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
    number: Annotated[int, Path(ge=1, le=MAX_REFERENCES)],
    content_length: Annotated[int | None, Header(ge=0, le=2**53)] = None,
) -> JobView:
    """A recording to sound like, as the raw body, before the song itself is complete. The same number replaces it."""
    refuse_parts_and_forms(request)
    job = found.job
    if job.state is not JobState.RECEIVED:
        raise upload_closed(job)
    if number > kind_of(job).max_references:
        raise Problem("bad_request", f"A job of the kind '{job.kind}' takes no such reference.")
    refuse_too_large(services, kind_of(job), content_length)
    store = partial(_store_reference, services, job, request, number, content_length)
    await run_exclusively(request.app.state.uploads, f"{job.id}/{number}", store)
    return await view(services, *await services.jobs.get(job.id))


async def _store_reference(services: Services, job: Job, request: Request, number: int, size_bytes: int | None) -> None:
    """Write the reference to the spool and probe it. Raises Problem.

    It is on the job's record before its first byte arrives, so that whatever ends the job destroys it too.
    """
    reserved_bytes = allowed_bytes(services.settings, kind_of(job)) if size_bytes is None else size_bytes
    blob = BlobRef(ref=await reserve(services, job.account, reserved_bytes, job.expires_s), size_bytes=0)
    replaced = await note_reference(services, job, number, blob)
    if replaced is not None:
        await services.spool.drop(replaced.ref)
    try:
        async with spool_errors_as_problems(services):
            with request_body(services, request, 0, size_bytes) as body:
                extent = await services.spool.append(blob.ref, 0, body, size_bytes)
        await services.probe.probe(services.spool.read(blob.ref), size=extent.size_bytes, account=job.account)
        await note_reference(services, job, number, blob.model_copy(update={"size_bytes": extent.size_bytes}))
    except Fault as fault:
        await forget_reference(services, job, number, blob)
        raise Problem(fault.code, f"Reference {number}: {fault.message}", **fault.numbers) from fault
    except BlobGone:
        raise Problem("gone", "The job ended while its reference was on the way.") from None
    except BaseException:
        await forget_reference(services, job, number, blob)
        raise
