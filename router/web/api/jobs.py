"""The job routes of the JSON API: make a job, list one's own, read one, wait for its next change, cancel it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field

from mastering.contract import ENGINE_VERSION, OutputFormat
from mastering.contract.kinds import JobKind, job_kinds
from mastering.contract.presets import presets
from router.core.errors import Problem
from router.http.negotiation import combined, prefers_events
from router.http.problems import responses
from router.jobs import lifecycle
from router.jobs.create import NewJob, create_job
from router.jobs.kinds import offered_paces
from router.jobs.reservation import allowed_bytes
from router.jobs.services import Services
from router.jobs.uploads import MAX_REFERENCES
from router.store.port import JobMissing, Versioned
from router.store.record import Receipt
from router.store.state import ACTIVE, JobState
from router.tiers.policy.tier import TIER_ORDER, tier_title
from router.web.api.account import consent_view
from router.web.api.conditions import names_etag
from router.web.api.events import granted_wait_s, job_events, preference_applied, wait_for_change
from router.web.api.views import JobView, view
from router.web.dependencies import TheAccount, TheJob, TheServices, TheStreams, TheVisitor, owned_job_again
from router.web.stream_limits import EventStream

router = APIRouter(prefix="/v1", tags=["jobs"])


class JobsPage(BaseModel):
    """Some of an account's jobs, and where more are."""

    jobs: list[JobView]
    next: str | None = Field(description="Address of the next page.")


@router.get("/options")
async def options(services: TheServices, visitor: TheVisitor) -> dict[str, object]:
    """What can be asked for, and within which limits."""
    settings = services.settings
    members = services.fleet.members()
    tiers = {member.backend.tier: member.terms for member in reversed(members)}
    titles = {t: tier_title(t, (one.health.device for one in members if one.backend.tier == t)) for t in tiers}
    consent = await consent_view(services, visitor)
    return {
        "targets": {name: t.model_dump(by_alias=True) for name, t in presets().targets.items()},
        "styles": {name: s.model_dump(by_alias=True) for name, s in presets().styles.items()},
        "outputs": {
            o.value: {"media_type": o.media_type, "extension": o.extension, "title": o.label} for o in OutputFormat
        },
        "kinds": {name: _kind_view(services, kind, consent.managed_only) for name, kind in job_kinds().items()},
        "limits": {
            "max_bytes": settings.max_bytes,
            "max_duration_s": settings.max_duration_s,
            "output_ttl_s": settings.output_ttl_s,
        },
        "tiers": [
            {"name": t, "title": titles[t], "operator": tiers[t].operator, "region": tiers[t].region}
            for t in TIER_ORDER
            if t in tiers
        ],
        "engine_version": ENGINE_VERSION,
        "account": {"kind": visitor.kind, **consent.model_dump()},
    }


@cache
def _options_schema(options: type[BaseModel]) -> dict[str, object]:
    """The JSON schema of a kind's options: some 10 ms of work, and anybody may ask for it."""
    return options.model_json_schema()


def _kind_view(services: Services, kind: JobKind[Any], managed_only: bool) -> dict[str, object]:
    """What can be asked of a kind of job: its outputs, its options as a JSON schema, its paces, its limits."""
    settings = services.settings
    options: type[BaseModel] = kind.options
    return {
        "title": kind.title,
        "outputs": {name: asdict(output) for name, output in kind.outputs.items()},
        "options": _options_schema(options),
        "stages": kind.stages,
        "paces": {pace: asdict(one) for pace, one in offered_paces(services.fleet, kind, managed_only).items()},
        "max_bytes": allowed_bytes(services.settings, kind),
        "max_duration_s": min(settings.max_duration_s, kind.max_duration_s or settings.max_duration_s),
        "max_references": min(MAX_REFERENCES, kind.max_references),
        "output_ttl_s": min(settings.output_ttl_s, kind.output_ttl_s or settings.output_ttl_s),
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
    new: NewJob | None = None,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JobView:
    """Make a job. The same Idempotency-Key gives the same job."""
    job, revision = await create_job(services, account.id, new or NewJob(), idempotency_key)
    allowed = services.settings.max_queued_per_account
    left = max(0, allowed - await services.jobs.active(account.id))
    response.headers["location"] = f"/v1/jobs/{job.id}"
    # https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/: jobs at once, so no window is named.
    response.headers["ratelimit-policy"] = f'"jobs";q={allowed}'
    response.headers["ratelimit"] = f'"jobs";r={left}'
    return await view(services, job, revision)


@router.get("/jobs")
async def own(
    services: TheServices,
    account: TheAccount,
    limit: Annotated[int, Query(ge=1, le=100, description="How many jobs at most.")] = 20,
    after: Annotated[str | None, Query(max_length=64, description="Id of the last job of the page before.")] = None,
) -> JobsPage:
    """Your jobs on record, the newest first. A record is forgotten three hours after it was made."""
    ids = await services.jobs.of(account.id)
    if after is not None and after not in ids:
        raise Problem("bad_request", "The job that `after` names is forgotten, or is not yours: begin without it.")
    rest = ids[0 if after is None else ids.index(after) + 1 :]
    shown = []
    for job_id in rest[:limit]:
        with suppress(JobMissing):
            shown.append(await view(services, *await services.jobs.get(job_id)))
    more = f"/v1/jobs?limit={limit}&after={rest[limit - 1]}" if len(rest) > limit else None
    return JobsPage(jobs=shown, next=more)


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
    prefer: Annotated[list[str] | None, Header()] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The job as JSON (`Prefer: wait=30` waits for its next change of state), or its changes as server-sent events."""
    if prefers_events(request.headers):
        ended = streams.take(found.job.account)
        return EventStream(job_events(services, found, request, last_event_id), ended)
    etag = f'"{found.revision}"'
    if prefer is None and names_etag(combined(request.headers, "if-none-match"), etag):
        return Response(status_code=304, headers={"etag": etag})
    if (wait_s := granted_wait_s(prefer)) is not None:
        with streams.held(found.job.account):
            await wait_for_change(services, found, wait_s, request)
        found = await owned_job_again(request, found)
    body = (await view(services, *found)).model_dump_json()
    headers = {"etag": f'"{found.revision}"', "cache-control": "no-store", **preference_applied(wait_s)}
    return Response(body, headers=headers, media_type="application/json")


@router.delete("/jobs/{job_id}", responses=responses("not_found"))
async def delete(found: TheJob, services: TheServices) -> dict[str, Receipt]:
    """Stop the job if it runs and destroy everything of it; the receipt says when."""
    job = await lifecycle.end(services, found.job.id, JobState.CANCELLED, _cancelled(found))
    return {"receipt": job.receipt}


def _cancelled(found: Versioned) -> Problem | None:
    return Problem("cancelled", "You cancelled the job.") if found.job.state in ACTIVE else None
