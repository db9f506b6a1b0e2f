"""Jobs over HTTP: make one, look at it, wait for it, end it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from pydantic import Field

from mastering.contract import ENGINE_VERSION, Fault, OutputFormat, Settings
from mastering.contract.presets import check, presets
from router.core import clock
from router.core.errors import Problem
from router.http.problems import responses
from router.jobs import admission, lifecycle
from router.jobs.reservation import reserve
from router.jobs.services import Services
from router.store.port import JobMissing, Versioned
from router.store.record import BlobRef, Job, Receipt, new_id
from router.store.state import ACTIVE, JobState
from router.tiers.policy.choice import TIER_ORDER, TIER_TITLES
from router.web.api.account import consent_view, refuse_empty_promise
from router.web.api.events import applied, job_events, wait_for_change, wait_of
from router.web.api.views import JobView, view
from router.web.auth import Account
from router.web.dependencies import TheAccount, TheJob, TheServices, TheStreams, TheVisitor, seen_again
from router.web.stream_limits import EventStream

router = APIRouter(prefix="/v1", tags=["jobs"])

RECORD_TTL_S = 3 * 3600
"""Job records, which hold no audio, are forgotten after this; the outputs went long before."""


class NewJob(Settings):
    """What is wanted, and how large the file will be: enough to refuse before a byte of audio moves."""

    size_bytes: Annotated[int | None, Field(ge=0, le=2**53, description="Size of the file that will be sent.")] = None
    managed_only: Annotated[bool, Field(description="Never leave our own workers, whatever is down.")] = False

    def settings(self) -> Settings:
        wanted = {name: getattr(self, name) for name in Settings.model_fields}
        return Settings(**{**wanted, "outputs": tuple(dict.fromkeys(self.outputs))})


@router.get("/options")
async def options(services: TheServices, visitor: TheVisitor) -> dict[str, object]:
    """What can be asked for, and within which limits."""
    settings = services.settings
    tiers = {member.backend.tier: member.terms for member in reversed(services.fleet.members())}
    return {
        "targets": {name: t.model_dump(by_alias=True) for name, t in presets().targets.items()},
        "styles": {name: s.model_dump(by_alias=True) for name, s in presets().styles.items()},
        "outputs": {
            o.value: {"media_type": o.media_type, "extension": o.extension, "title": o.label} for o in OutputFormat
        },
        "limits": {
            "max_bytes": settings.max_bytes,
            "max_duration_s": settings.max_duration_s,
            "output_ttl_s": settings.output_ttl_s,
        },
        "tiers": [
            {"name": t, "title": TIER_TITLES[t], "operator": tiers[t].operator, "region": tiers[t].region}
            for t in TIER_ORDER
            if t in tiers
        ],
        "engine_version": ENGINE_VERSION,
        "account": {"kind": visitor.kind, **consent_view(services, visitor).model_dump()},
    }


@router.post(
    "/jobs",
    status_code=201,
    responses=responses(
        "bad_settings",
        "too_large",
        "too_many_jobs",
        "spool_full",
        "spool_share",
        "idempotency_conflict",
        "overloaded",
        "no_tier",
    ),
)
async def create(
    services: TheServices,
    account: TheAccount,
    response: Response,
    wanted: NewJob | None = None,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JobView:
    """Make a job. The same Idempotency-Key gives the same job."""
    job, revision = await make_job(services, account, wanted or NewJob(), idempotency_key)
    allowed = services.settings.max_queued_per_account
    left = max(0, allowed - await services.jobs.active(account.id))
    response.headers["location"] = f"/v1/jobs/{job.id}"
    # https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/: jobs at once, so no window is named.
    response.headers["ratelimit-policy"] = f'"jobs";q={allowed}'
    response.headers["ratelimit"] = f'"jobs";r={left}'
    return await view(services, job, revision)


async def make_job(services: Services, account: Account, wanted: NewJob, idempotency_key: str | None) -> Versioned:
    """A new job with its room in the spool, or the one that the key names already. Raises Problem."""
    _check(services, wanted)
    job_id = _keyed_id(services, account.id, idempotency_key) if idempotency_key else new_id()
    with suppress(JobMissing):
        return _same(await services.jobs.get(job_id), wanted)
    await _refuse_too_many(services, account.id)
    managed_only = wanted.managed_only or services.accounts.managed_only(account.id, services.tiers_version())
    await admission.admit(services, wanted.size_bytes, managed_only=managed_only)
    now = clock.now()
    expires_s = now + services.settings.output_ttl_s
    job = Job(
        id=job_id,
        account=account.id,
        settings=wanted.settings(),
        managed_only=managed_only,
        created_s=now,
        expires_s=expires_s,
        size_bytes=wanted.size_bytes,
        input=await _room(services, account.id, wanted.size_bytes, expires_s),
    )
    made = await services.jobs.create(job, RECORD_TTL_S)
    if made.job != job and job.input:  # another request with the same key was quicker
        await services.spool.drop(job.input.ref)
    return _same(made, wanted)


def _same(found: Versioned, wanted: NewJob) -> Versioned:
    if found.job.settings != wanted.settings() or (wanted.managed_only and not found.job.managed_only):
        raise Problem("idempotency_conflict", "This Idempotency-Key was used with other settings. Use a new one.")
    return found


async def _room(services: Services, account: str, size_bytes: int | None, expires_s: float) -> BlobRef | None:
    """Room for an upload whose size is known, taken before a byte of it moves."""
    if size_bytes is None:
        return None
    return BlobRef(ref=await reserve(services, account, size_bytes, expires_s), size_bytes=0)


@router.get(
    "/jobs/{job_id}",
    responses={
        200: {"model": JobView, "content": {"text/event-stream": {}}},
        **responses("not_found", "too_many_streams"),
    },
    response_model=None,
)
async def show(
    found: TheJob,
    services: TheServices,
    streams: TheStreams,
    request: Request,
    prefer: Annotated[str | None, Header()] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The job as JSON (`Prefer: wait=30` waits for its next change of state), or its changes as server-sent events."""
    if "text/event-stream" in request.headers.get("accept", ""):
        ended = streams.take(found.job.account)
        return EventStream(job_events(services, found, request, last_event_id), ended)
    etag = f'"{found.revision}"'
    if prefer is None and request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"etag": etag})
    if (wait_s := wait_of(prefer)) is not None:
        with streams.place(found.job.account):
            await wait_for_change(services, found, wait_s, request)
        found = await seen_again(request, found)
    body = (await view(services, *found)).model_dump_json()
    headers = {"etag": f'"{found.revision}"', "cache-control": "no-store", **applied(wait_s)}
    return Response(body, headers=headers, media_type="application/json")


@router.delete("/jobs/{job_id}", responses=responses("not_found"))
async def delete(found: TheJob, services: TheServices) -> dict[str, Receipt]:
    """Stop the job if it runs and destroy everything of it; the receipt says when."""
    job = await lifecycle.end(services, found.job.id, JobState.CANCELLED, _cancelled(found))
    return {"receipt": job.receipt}


def _cancelled(found: Versioned) -> Problem | None:
    return Problem("cancelled", "You cancelled the job.") if found.job.state in ACTIVE else None


def _check(services: Services, wanted: NewJob) -> None:
    try:
        check(wanted)
    except Fault as fault:
        raise Problem(fault.code, fault.message, **fault.numbers) from None
    check_size(services, wanted.size_bytes)
    refuse_empty_promise(services, managed_only=wanted.managed_only)


def check_size(services: Services, size_bytes: int | None) -> None:
    """Raise Problem(too_large) if that many bytes are more than an upload may have."""
    allowed = services.settings.max_bytes
    if size_bytes is not None and size_bytes > allowed:
        raise Problem(
            "too_large",
            f"The file has {size_bytes / 2**20:.0f} MiB; {allowed / 2**20:.0f} MiB are allowed."
            " Send FLAC instead of WAV, or split the file.",
            size_bytes=size_bytes,
            allowed_bytes=allowed,
        )


async def _refuse_too_many(services: Services, account: str) -> None:
    allowed = services.settings.max_queued_per_account
    active = await services.jobs.active(account)
    if active >= allowed:
        raise Problem(
            "too_many_jobs",
            f"You have {active} jobs that are not done; {allowed} are allowed. Wait for one or delete one.",
            retry_after_s=30,
            active=active,
            allowed=allowed,
        )


def _keyed_id(services: Services, account: str, key: str) -> str:
    """The id that this account's Idempotency-Key always gives, and nobody can guess without the boot's secret."""
    digest = hmac.digest(services.secret, f"{account}\0{key}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
