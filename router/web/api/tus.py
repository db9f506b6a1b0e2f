"""Resumable uploads by tus 1.0 (https://tus.io/protocols/resumable-upload), over the same jobs as the raw PUT.

`POST /v1/uploads` makes a job and answers with its audio's address, where HEAD, PATCH and DELETE go on; an upload that
was begun by one protocol can be continued by the other. Extensions: creation, creation-with-upload, termination,
expiration. A client that can send no PATCH or DELETE sends POST with X-HTTP-Method-Override.
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
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.core.clock import Clock
from router.core.errors import Problem
from router.http.problems import responses
from router.jobs import lifecycle
from router.jobs.create import NewJob, create_job
from router.jobs.uploads import arrived_bytes
from router.store.record import Job
from router.store.state import CLOSED, JobState
from router.web.api.uploads import FAULTS, receive
from router.web.api.uploads import TUS_VERSION as VERSION
from router.web.dependencies import TheAccount, TheJob, TheServices

EXTENSIONS = "creation,creation-with-upload,termination,expiration"
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
    responses=responses(*FAULTS, "bad_settings", "unsupported_media_type", "tus_version", "length_required"),
)
async def begin(
    services: TheServices,
    account: TheAccount,
    request: Request,
    content_type: Annotated[str, Header()] = "",
    content_length: Annotated[int | None, Header(ge=0, le=2**53)] = None,
    upload_length: Annotated[int | None, Header(ge=0, le=2**53)] = None,
    upload_metadata: Annotated[str, Header(max_length=4096)] = "",
) -> Response:
    """Make a job for an upload of `Upload-Length` bytes, the first of which may be the body. `Upload-Metadata` may hold
    settings by name; a file's name, which many clients send, is dropped unread."""
    if upload_length is None:
        raise Problem("length_required", "Send the header Upload-Length: the size of the whole file in bytes.")
    if upload_length == 0:
        raise Problem("empty_file")
    has_body = content_length != 0 and bool(content_length or "transfer-encoding" in request.headers)
    if has_body:
        _check_media_type(content_type)
    job, _ = await create_job(services, account.id, _new_job(upload_metadata, upload_length), None)
    headers = {"location": f"/v1/jobs/{job.id}/audio"}
    if has_body:
        job, _ = await receive(services, job, request, 0, content_length)
        headers["upload-offset"] = str(await arrived_bytes(services.spool, job))
    return Response(status_code=201, headers=headers | _state_headers(services.clock, job))


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
    _check_media_type(content_type)
    job = found.job
    is_whole = job.state is not JobState.RECEIVED and job.state not in CLOSED
    if not (is_whole and upload_offset == job.size_bytes and content_length == 0):
        job, _ = await receive(services, job, request, upload_offset, content_length)
    offset = str(await arrived_bytes(services.spool, job))
    return Response(status_code=204, headers={"upload-offset": offset, **_state_headers(services.clock, job)})


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


@router.post(
    "/jobs/{job_id}/audio",
    status_code=204,
    dependencies=[Depends(check_version)],
    openapi_extra={"requestBody": {"content": {_MEDIA_TYPE: {}}}},
    responses=responses(*FAULTS, "unsupported_media_type", "tus_version", "method_not_allowed"),
)
async def overridden(
    found: TheJob,
    services: TheServices,
    request: Request,
    x_http_method_override: Annotated[str, Header()] = "",
    upload_offset: Annotated[int | None, Header(ge=0, le=2**53)] = None,
    content_type: Annotated[str, Header()] = "",
    content_length: Annotated[int | None, Header(ge=0, le=2**53)] = None,
) -> Response:
    """PATCH or DELETE, as `X-HTTP-Method-Override` says, by clients that can send neither."""
    method = x_http_method_override.strip().upper()
    if method == "DELETE":
        return await end(found, services)
    if method != "PATCH":
        raise Problem("method_not_allowed", "POST stands for what X-HTTP-Method-Override names: PATCH or DELETE.")
    if upload_offset is None:
        raise Problem("bad_request", "upload-offset: Field required.", field="upload-offset")
    return await go_on(found, services, request, upload_offset, content_type, content_length)


class TusAnswers:
    """ASGI middleware: every answer to a request of tus says the version, refusals too (as the protocol has it)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_tus = scope["type"] == "http" and "tus-resumable" in Headers(scope=scope)

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("tus-resumable", VERSION)
            await send(message)

        await self._app(scope, receive, send_with_version if is_tus else send)


def _check_media_type(content_type: str) -> None:
    """Raise Problem unless the body is called what tus calls it, in any case and with any parameters."""
    if content_type.partition(";")[0].strip().lower() != _MEDIA_TYPE:
        raise Problem("unsupported_media_type", f"Send Content-Type: {_MEDIA_TYPE}.")


def _state_headers(clock: Clock, job: Job) -> dict[str, str]:
    return {"tus-resumable": VERSION, "upload-expires": _http_date(clock, job.expires_s)}


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
