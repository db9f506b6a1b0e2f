"""The master goes out: decrypted as it is sent, whole or in part, for as long as its time lasts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from mastering.contract import OutputFormat
from router.core import clock
from router.core.errors import Problem
from router.http.body_sender import BodySender
from router.http.connection import BODY_EXTENSION, SEND_BODY, SendBody
from router.http.problems import responses
from router.jobs.services import Services
from router.jobs.uploads import ended
from router.spool.port import BlobGone
from router.store.record import BlobRef, Job
from router.store.state import ACTIVE, DONE, JobState
from router.web.api.events import applied, wait_for_master, wait_of
from router.web.dependencies import TheJob, TheServices, TheStreams, seen_again

router = APIRouter(prefix="/v1", tags=["outputs"])

_GONE = "The master's time is over or it was deleted. Send the song again."
_WORTH_A_PIPE_BYTES = 256 * 1024
"""What is shorter is sent sooner than a thread can be woken."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@router.get(
    "/jobs/{job_id}/outputs/{output_format}",
    responses={
        200: {"content": {o.media_type: {} for o in OutputFormat}},
        206: {"description": "The range asked for"},
        **responses("not_found", "gone", "not_ready", "range_not_satisfiable", "too_many_streams"),
    },
    response_class=StreamingResponse,
)
async def fetch(
    found: TheJob,
    output_format: str,
    services: TheServices,
    streams: TheStreams,
    request: Request,
    range_: Annotated[str | None, Header(alias="range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    prefer: Annotated[str | None, Header()] = None,
) -> Response:
    """One format of the master, as soon as it is made with `Prefer: wait=60`."""
    _refuse_unasked(found.job, output_format)
    if (wait_s := wait_of(prefer)) is not None and found.job.state in ACTIVE:
        with streams.place(found.job.account):
            await wait_for_master(services, found, wait_s, request)
        found = await seen_again(request, found)
    wanted, blob = _blob(found.job, output_format)
    etag = f'"{found.job.generation}-{wanted.value}"'
    await _check_there(services, blob)
    stretch = _range(range_, blob.size_bytes) if range_ and if_range in (None, etag) else None
    start, end = stretch or (0, blob.size_bytes)
    headers = {
        "content-length": str(end - start),
        "content-disposition": f'attachment; filename="master.{wanted.extension}"',
        "cache-control": "no-store",
        "accept-ranges": "bytes",
        "etag": etag,
        **applied(wait_s),
    }
    if stretch:
        headers["content-range"] = f"bytes {start}-{end - 1}/{blob.size_bytes}"
    pours: SendBody | None = request.scope.get("extensions", {}).get(BODY_EXTENSION, {}).get(SEND_BODY)
    body = _send(services, found.job, blob, start, end, pours)
    return StreamingResponse(body, 206 if stretch else 200, headers, media_type=wanted.media_type)


def _blob(job: Job, name: str) -> tuple[OutputFormat, BlobRef]:
    if job.state in ACTIVE:
        raise Problem("not_ready", f"The master is not made yet; the job is {job.state}.", state=str(job.state))
    if job.state not in DONE or clock.now() >= job.expires_s:
        raise ended(job) if job.error else Problem("gone", _GONE)
    return next(output for output in job.outputs.items() if output[0].value == name)


def _refuse_unasked(job: Job, name: str) -> None:
    asked = [output_format.value for output_format in job.settings.outputs]
    if name not in asked:
        raise Problem("not_found", f"This job was asked for {', '.join(asked)}. Make a new job for another format.")


async def _send(
    services: Services, job: Job, blob: BlobRef, start: int, end: int, pours: SendBody | None
) -> AsyncIterator[bytes]:
    """What is not poured into the connection itself."""
    try:
        pipe = await pours() if pours and end - start >= _WORTH_A_PIPE_BYTES else None
        if pipe is not None:
            await _pour(services, blob, start, end, pipe)
        else:
            async for chunk in services.spool.read(blob.ref, start, end):
                yield chunk
    except BlobGone:
        # Its time came while it was being sent: the response ends short, which the client can see.
        return
    if end == blob.size_bytes:
        await services.change(
            job.id, lambda job: job.to(JobState.DELIVERED) if job.state is JobState.MASTERED else None
        )


async def _pour(services: Services, blob: BlobRef, start: int, end: int, pipe: BodySender) -> None:
    """Raises Gone. Whoever hangs up ends the response, and this with it."""
    try:
        with services.spool.lend(blob.ref, start, end) as stretch:
            await pipe.pour(stretch)
    finally:
        pipe.release()


async def _check_there(services: Services, blob: BlobRef) -> None:
    """Raise Problem(gone) while it can still be said: the record may be a moment behind the spool."""
    try:
        await services.spool.extent(blob.ref)
    except BlobGone:
        raise Problem("gone", _GONE) from None


def _range(value: str, size: int) -> tuple[int, int] | None:
    """Start and end of a single byte range (RFC 9110 §14.1.2), None for what is none and therefore ignored (§14.2).

    Raises Problem for a range outside the file.
    """
    match = _RANGE.fullmatch(value.strip())
    first, last = match.groups() if match else ("", "")
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < start:
            return None
    elif last:
        start, end = max(0, size - int(last)), size
    else:
        return None
    if start >= end:
        raise Problem("range_not_satisfiable", f"The file has {size} bytes.", size_bytes=size)
    return start, end
