"""Resumable uploads by tus 1.0 (https://tus.io/protocols/resumable-upload), over the same jobs as the raw PUT.

`POST /v1/uploads` makes a job and answers with its audio's address, where HEAD, PATCH and DELETE go on; an upload that
was begun by one protocol can be continued by the other. Extensions: creation, termination, expiration.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import ValidationError

from router.core.clock import Clock
from router.core.errors import Problem
from router.http.problems import responses
from router.jobs import lifecycle
from router.jobs.create import NewJob, create_job
from router.jobs.uploads import arrived_bytes
from router.store.state import JobState
from router.web.api.uploads import FAULTS, receive
from router.web.api.uploads import TUS_VERSION as VERSION
from router.web.dependencies import TheAccount, TheJob, TheServices

EXTENSIONS = "creation,termination,expiration"
_MEDIA_TYPE = "application/offset+octet-stream"


async def check_version(tus_resumable: Annotated[str | None, Header()] = None) -> None:
    """Raise Problem(tus_version) unless the client names the protocol version that is served here."""
    if tus_resumable != VERSION:
        raise Problem("tus_version", f"This server speaks tus {VERSION}.", headers={"tus-version": VERSION})


router = APIRouter(prefix="/v1", tags=["tus"])


@router.options("/uploads", status_code=204, tags=["tus"])
async def abilities(services: TheServices) -> Response:
    """The protocol versions and extensions of this server; the one request that needs no version."""
    headers = {
        "tus-resumable": VERSION,
        "tus-version": VERSION,
        "tus-extension": EXTENSIONS,
        "tus-max-size": str(services.settings.max_bytes),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "/uploads",
    status_code=201,
    dependencies=[Depends(check_version)],
    responses=responses(
        "bad_settings", "too_large", "too_many_jobs", "spool_full", "spool_share", "tus_version", "length_required"
    ),
)
async def begin(
    services: TheServices,
    account: TheAccount,
    upload_length: Annotated[int | None, Header(ge=0, le=2**53)] = None,
    upload_metadata: Annotated[str, Header(max_length=4096)] = "",
) -> Response:
    """Make a job for an upload of `Upload-Length` bytes. `Upload-Metadata` may hold settings by name; a file's name,
    which many clients send, is dropped unread."""
    if upload_length is None:
        raise Problem("length_required", "Send the header Upload-Length: the size of the whole file in bytes.")
    job, _ = await create_job(services, account.id, _new_job(upload_metadata, upload_length), None)
    headers = {"tus-resumable": VERSION, "upload-expires": _http_date(services.clock, job.expires_s)}
    return Response(status_code=201, headers={"location": f"/v1/jobs/{job.id}/audio", **headers})


@router.patch(
    "/jobs/{job_id}/audio",
    status_code=204,
    dependencies=[Depends(check_version)],
    openapi_extra={"requestBody": {"required": True, "content": {_MEDIA_TYPE: {}}}},
    responses=responses(*FAULTS, "unsupported_media_type", "tus_version"),
)
async def go_on(
    found: TheJob,
    services: TheServices,
    request: Request,
    upload_offset: Annotated[int, Header(ge=0, le=2**53)],
    content_type: Annotated[str, Header()] = "",
    content_length: Annotated[int | None, Header(ge=0, le=2**53)] = None,
) -> Response:
    """Bytes from `Upload-Offset` on. What is wrong with a complete file is said in answer to its last bytes."""
    if content_type != _MEDIA_TYPE:
        raise Problem("unsupported_media_type", f"Send Content-Type: {_MEDIA_TYPE}.")
    job, _ = await receive(services, found.job, request, upload_offset, content_length)
    offset = await arrived_bytes(services.spool, job)
    headers = {
        "tus-resumable": VERSION,
        "upload-offset": str(offset),
        "upload-expires": _http_date(services.clock, job.expires_s),
    }
    return Response(status_code=204, headers=headers)


@router.delete(
    "/jobs/{job_id}/audio",
    status_code=204,
    dependencies=[Depends(check_version)],
    responses=responses("not_found", "tus_version"),
)
async def end(found: TheJob, services: TheServices) -> Response:
    """Give the upload up; its job is cancelled and everything of it destroyed."""
    await lifecycle.end(services, found.job.id, JobState.CANCELLED, Problem("cancelled", "You cancelled the job."))
    return Response(status_code=204, headers={"tus-resumable": VERSION})


def _new_job(metadata: str, upload_length: int) -> NewJob:
    """A job by the `key base64` pairs of Upload-Metadata, `options` as JSON; values of other keys are never decoded.

    Raises Problem(bad_settings).
    """
    values: dict[str, object] = {"size_bytes": upload_length}
    for pair in filter(None, metadata.split(",")):
        key, _, encoded = pair.strip().partition(" ")
        if key in NewJob.model_fields and key != "size_bytes":
            values[key] = _decoded(key, encoded)
    try:
        return NewJob.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise Problem("bad_settings", f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _decoded(key: str, encoded: str) -> object:
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Problem("bad_settings", f"{key} in Upload-Metadata is not base64 of UTF-8 text.") from None
    if key == "options":
        try:
            return json.loads(text)
        except ValueError:
            raise Problem("bad_settings", "options in Upload-Metadata is not JSON.") from None
    return text.split(",") if key == "outputs" else text


def _http_date(clock: Clock, at_s: float) -> str:
    return format_datetime(datetime.fromtimestamp(clock.to_epoch_s(at_s), UTC), usegmt=True)
