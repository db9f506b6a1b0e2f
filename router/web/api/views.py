"""The JSON view of a job: what its owner may know of it. The record itself is never sent."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from mastering.contract import Facts
from mastering.contract.kinds import job_kinds
from router.jobs import eta
from router.jobs.services import Services
from router.spool.port import BlobGone, Blobs
from router.store.port import JobMissing
from router.store.record import Attempt, Job, Receipt
from router.store.state import CLOSED, DONE, JobState
from router.tiers.policy.tier import tier_title


class _OfItsKind:
    """Marks a field that holds one of the records of a job's kind, which was checked when it came in."""

    def __init__(self, record: str, *, or_null: bool = False) -> None:
        self._record, self._or_null = record, or_null

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = [handler(getattr(kind, self._record).__pydantic_core_schema__) for kind in job_kinds().values()]
        return {"anyOf": [*found, *([{"type": "null"}] if self._or_null else [])]}


class UploadView(BaseModel):
    offset_bytes: int
    size_bytes: int | None


class QueueView(BaseModel):
    position: int = Field(description="Jobs ahead in line; approximate.")
    eta_s: float | None = None
    reason: str = Field("", description="What it waits for, by the state of the tiers at this moment.")


class ProgressView(BaseModel):
    stage: str | None = Field(description="What the work is doing, by its kind's words.")
    fraction: float
    tier: str
    tier_title: str
    reason: str = Field(description="Why this tier has the job.")
    eta_s: float | None = None


class AttemptView(BaseModel):
    number: int
    tier: str
    tier_title: str
    reason: str
    outcome: str
    detail: str


class OutputView(BaseModel):
    format: str = Field(description="Its name: see GET /v1/options.")
    url: str
    size_bytes: int
    media_type: str
    extension: str


class JobView(BaseModel):
    """A job as its owner sees it."""

    id: str
    revision: int
    state: str = Field(
        description="received, spooled, queued, running, sealed, mastered, delivered; failed, cancelled, expired,"
        " wiped; `ending` while what is left of a closed job is being destroyed."
    )
    created_at: datetime
    expires_in_s: float
    kind: str = Field(description="Of the job: master, or another that GET /v1/options names.")
    settings: Annotated[Any, _OfItsKind("options")] = Field(description="What was asked for.")
    managed_only: bool
    upload: UploadView
    references: list[int] = Field(description="Numbers of the reference recordings that have arrived.")
    facts: Facts | None
    queue: QueueView | None
    progress: ProgressView | None
    attempts: list[AttemptView]
    outputs: list[OutputView]
    report: Annotated[Any, _OfItsKind("report", or_null=True)] = Field(
        description="What was done, by its kind's record."
    )
    error: dict[str, Any] | None
    receipt: Receipt | None


async def view(services: Services, job: Job, revision: int) -> JobView:
    """The view of a job's record at `revision`."""
    ahead = await services.queue.ahead_of(job.id) if job.state is JobState.QUEUED else None
    return JobView(
        id=job.id,
        revision=revision,
        state=shown_state(job),
        created_at=datetime.fromtimestamp(services.clock.to_epoch_s(job.created_s), UTC).replace(microsecond=0),
        expires_in_s=round(max(0.0, job.expires_s - services.clock.now()), 1),
        kind=job.kind,
        settings=job.options,
        managed_only=job.managed_only,
        upload=await _upload_view(services.spool, job),
        references=sorted(number for number, blob in job.references.items() if blob.size_bytes),
        facts=job.facts,
        queue=await _queue_view(services, job, ahead) if ahead is not None else None,
        progress=_progress_view(services, job),
        attempts=[_attempt_view(attempt) for attempt in job.attempts],
        outputs=_output_views(job),
        report=job.report if job.state in DONE else None,
        error=job.error,
        receipt=job.receipt if job.receipt != Receipt() else None,
    )


def shown_state(job: Job) -> str:
    """The state that people see: `ending` from the step to a closed state until the job's keys are destroyed."""
    if job.state is JobState.WIPED:
        had_master = job.report is not None
        return str(JobState.WIPED if had_master or job.ended_as is None else job.ended_as)
    return "ending" if job.state in CLOSED else str(job.state)


def is_over(shown: str) -> bool:
    """Whether a job in this shown state changes no more, but for its expiry."""
    return shown in {*map(str, DONE), *map(str, CLOSED)}


async def _upload_view(spool: Blobs, job: Job) -> UploadView:
    offset = job.input.size_bytes if job.input else 0
    if job.state is JobState.RECEIVED and job.input:
        with suppress(BlobGone):  # its time is over and the reaper comes next
            offset = (await spool.extent(job.input.ref)).size_bytes
    return UploadView(offset_bytes=offset, size_bytes=job.size_bytes)


async def _queue_view(services: Services, job: Job, ahead: int) -> QueueView:
    outlook, reason = eta.queued_outlook(services.clock, services.fleet, job, ahead), ""
    most = services.settings.max_running_per_account
    if outlook.is_free and await _running_of(services, job.account, most) >= most:
        reason = f"It waits for one of yours to be done: {most} are at work, the most at once."
    return QueueView(position=ahead, eta_s=outlook.eta_s, reason=reason or outlook.reason)


async def _running_of(services: Services, account: str, most: int) -> int:
    """How many of the account's jobs are at work, counted up to `most`."""
    running = 0
    for job_id in await services.jobs.of(account):
        with suppress(JobMissing):
            running += (await services.jobs.get(job_id)).job.state in (JobState.RUNNING, JobState.SEALED)
        if running >= most:
            break
    return running


def _progress_view(services: Services, job: Job) -> ProgressView | None:
    if job.state not in (JobState.RUNNING, JobState.SEALED) or not job.attempts:
        return None
    attempt, progress = job.attempts[-1], job.progress
    return ProgressView(
        stage=progress.stage if progress else None,
        fraction=progress.fraction if progress else 0.0,
        tier=attempt.tier,
        tier_title=tier_title(attempt.tier, [attempt.device]),
        reason=attempt.reason,
        eta_s=eta.running_eta_s(services.clock, job),
    )


def _attempt_view(attempt: Attempt) -> AttemptView:
    return AttemptView(
        number=attempt.number,
        tier=attempt.tier,
        tier_title=tier_title(attempt.tier, [attempt.device]),
        reason=attempt.reason,
        outcome=attempt.outcome,
        detail=attempt.detail,
    )


def _output_views(job: Job) -> list[OutputView]:
    kind = job_kinds().get(job.kind)
    if job.state not in DONE or kind is None:
        return []
    return [
        OutputView(
            format=name,
            url=f"/v1/jobs/{job.id}/outputs/{name}",
            size_bytes=blob.size_bytes,
            media_type=kind.outputs[name].media_type,
            extension=kind.outputs[name].extension,
        )
        for name, blob in job.outputs.items()
    ]
