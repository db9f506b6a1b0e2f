"""Downloads of a job's outputs: decrypted while they are sent, whole or a byte range, until the job expires."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from mastering.contract.kinds import OutputType, job_kinds
from router.core.errors import Problem
from router.http.body_sender import BodySender
from router.http.connection import BODY_EXTENSION, SEND_BODY_KEY, SendBody
from router.http.head_requests import is_head
from router.http.negotiation import combined
from router.http.problems import responses
from router.jobs.kinds import kind_of
from router.jobs.services import Services
from router.jobs.uploads import ended
from router.spool.port import BlobGone, Blobs
from router.store.record import BlobRef, Job
from router.store.state import ACTIVE, DONE, JobState
from router.web.api.conditions import names_etag
from router.web.api.events import granted_wait_s, preference_applied, wait_for_master
from router.web.dependencies import TheDownloads, TheJob, TheServices, TheStreams, owned_job_again
from router.web.stream_limits import CountedResponse, nothing_counted

router = APIRouter(prefix="/v1", tags=["outputs"])

_GONE = "The master's time is over or it was deleted. Send the song again."
_SEND_DIRECTLY_FROM_BYTES = 256 * 1024
"""Bytes from which a body is sent past ASGI: a shorter one is sent sooner than a thread can be woken."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)


@router.get(
    "/jobs/{job_id}/outputs/{output_format}",
    responses={
        200: {"content": {o.media_type: {} for kind in job_kinds().values() for o in kind.outputs.values()}},
        206: {"description": "The range asked for"},
        304: {"description": "The master is the one that If-None-Match names"},
        **responses(
            "not_found",
            "gone",
            "not_ready",
            "range_not_satisfiable",
            "precondition_failed",
            "too_many_streams",
            "too_many_downloads",
        ),
    },
    response_class=StreamingResponse,
)
async def fetch(
    found: TheJob,
    output_format: str,
    services: TheServices,
    streams: TheStreams,
    downloads: TheDownloads,
    request: Request,
    range_: Annotated[str | None, Header(alias="range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    prefer: Annotated[list[str] | None, Header()] = None,
) -> Response:
    """One output of the job, a format of the master, as soon as it is made with `Prefer: wait=60`."""
    _refuse_other_format(found.job, output_format)
    if (wait_s := granted_wait_s(prefer)) is not None and found.job.state in ACTIVE:
        with streams.held(found.job.account):
            await wait_for_master(services, found, wait_s, request)
        found = await owned_job_again(request, found)
    output_type, blob = _finished_output(found.job, output_format, services.clock.now())
    etag = f'"{found.job.generation}-{output_format}"'
    await _check_present(services.spool, blob)
    if "if-match" in request.headers and not names_etag(combined(request.headers, "if-match"), etag):
        raise Problem("precondition_failed", "The master is another one than If-Match names.", headers={"etag": etag})
    if names_etag(combined(request.headers, "if-none-match"), etag):
        return Response(status_code=304, headers={"etag": etag, "cache-control": "no-store"})
    byte_range = _byte_range(range_, blob.size_bytes) if range_ and if_range in (None, etag) else None
    start, end = byte_range or (0, blob.size_bytes)
    headers = {
        "content-length": str(end - start),
        "content-disposition": f'attachment; filename="{found.job.kind}.{output_type.extension}"',
        "cache-control": "no-store",
        "accept-ranges": "bytes",
        "etag": etag,
        **preference_applied(wait_s),
    }
    if byte_range:
        headers["content-range"] = f"bytes {start}-{end - 1}/{blob.size_bytes}"
    send_directly: SendBody | None = request.scope.get("extensions", {}).get(BODY_EXTENSION, {}).get(SEND_BODY_KEY)
    body = _body(services, found.job, blob, start, end, send_directly)
    ended = nothing_counted if is_head(request.scope) else downloads.take(found.job.account)
    return CountedResponse(body, 206 if byte_range else 200, headers, output_type.media_type, ended)


def _finished_output(job: Job, name: str, now_s: float) -> tuple[OutputType, BlobRef]:
    if job.state in ACTIVE:
        raise Problem("not_ready", f"The master is not made yet; the job is {job.state}.", state=str(job.state))
    if job.state not in DONE or now_s >= job.expires_s:
        raise ended(job) if job.error else Problem("gone", _GONE)
    return kind_of(job).outputs[name], job.outputs[name]


def _refuse_other_format(job: Job, name: str) -> None:
    if name not in job.wanted:
        asked = ", ".join(job.wanted)
        raise Problem("not_found", f"This job was asked for {asked}. Make a new job for another format.")


async def _body(
    services: Services, job: Job, blob: BlobRef, start: int, end: int, send_directly: SendBody | None
) -> AsyncIterator[bytes]:
    """The response's body, empty where it is sent past ASGI. Marks the job as delivered after its last byte."""
    try:
        sender = await send_directly() if send_directly and end - start >= _SEND_DIRECTLY_FROM_BYTES else None
        if sender is not None:
            await _send_directly(services.spool, blob, start, end, sender)
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


async def _send_directly(spool: Blobs, blob: BlobRef, start: int, end: int, sender: BodySender) -> None:
    """Write the bytes to the connection without ASGI. Raises BlobGone; a client that leaves cancels it."""
    try:
        with spool.open_reader(blob.ref, start, end) as buffer:
            await sender.send(buffer)
    finally:
        sender.release()


async def _check_present(spool: Blobs, blob: BlobRef) -> None:
    """Raise Problem(gone) before the response begins: the record may be a moment behind the spool."""
    try:
        await spool.extent(blob.ref)
    except BlobGone:
        raise Problem("gone", _GONE) from None


def _byte_range(value: str, size: int) -> tuple[int, int] | None:
    """Start and end of a single byte range (RFC 9110 §14.1.2); None for a header that is none and ignored (§14.2).

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
        headers = {"content-range": f"bytes */{size}"}
        raise Problem("range_not_satisfiable", f"The file has {size} bytes.", headers=headers, size_bytes=size)
    return start, end
