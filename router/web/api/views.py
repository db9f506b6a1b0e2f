"""The JSON view of a job: what its owner may know of it. The record itself is never sent."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from mastering.contract import Facts, OutputFormat, Report, Settings, Stage
from router.core import clock
from router.jobs import eta
from router.jobs.services import Services
from router.spool.port import BlobGone
from router.store.record import Attempt, Job, Receipt
from router.store.state import CLOSED, DONE, JobState
from router.tiers.policy.tier import TIER_TITLES


class UploadView(BaseModel):
    offset_bytes: int
    size_bytes: int | None


class QueueView(BaseModel):
    position: int = Field(description="Jobs ahead in line; approximate.")
    eta_s: float | None = None


class ProgressView(BaseModel):
    stage: Stage | None
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
    format: OutputFormat
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
    settings: Settings
    managed_only: bool
    upload: UploadView
    references: list[int] = Field(description="Numbers of the reference recordings that have arrived.")
    facts: Facts | None
    queue: QueueView | None
    progress: ProgressView | None
    attempts: list[AttemptView]
    outputs: list[OutputView]
    report: Report | None
    error: dict[str, Any] | None
    receipt: Receipt | None


async def view(services: Services, job: Job, revision: int) -> JobView:
    """The view of a job's record at `revision`."""
    ahead = await services.queue.ahead_of(job.id) if job.state is JobState.QUEUED else None
    return JobView(
        id=job.id,
        revision=revision,
        state=shown_state(job),
        created_at=datetime.fromtimestamp(clock.to_epoch_s(job.created_s), UTC).replace(microsecond=0),
        expires_in_s=round(max(0.0, job.expires_s - clock.now()), 1),
        settings=job.settings,
        managed_only=job.managed_only,
        upload=await _upload_view(services, job),
        references=sorted(number for number, blob in job.references.items() if blob.size_bytes),
        facts=job.facts,
        queue=_queue_view(services, job, ahead) if ahead is not None else None,
        progress=_progress_view(job),
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


async def _upload_view(services: Services, job: Job) -> UploadView:
    offset = job.input.size_bytes if job.input else 0
    if job.state is JobState.RECEIVED and job.input:
        with suppress(BlobGone):  # its time is over and the reaper comes next
            offset = (await services.spool.extent(job.input.ref)).size_bytes
    return UploadView(offset_bytes=offset, size_bytes=job.size_bytes)


def _queue_view(services: Services, job: Job, ahead: int) -> QueueView:
    return QueueView(position=ahead, eta_s=eta.queued_eta_s(services, job, ahead))


def _progress_view(job: Job) -> ProgressView | None:
    if job.state not in (JobState.RUNNING, JobState.SEALED) or not job.attempts:
        return None
    attempt, progress = job.attempts[-1], job.progress
    return ProgressView(
        stage=progress.stage if progress else None,
        fraction=progress.fraction if progress else 0.0,
        tier=attempt.tier,
        tier_title=TIER_TITLES[attempt.tier],
        reason=attempt.reason,
        eta_s=eta.running_eta_s(job),
    )


def _attempt_view(attempt: Attempt) -> AttemptView:
    return AttemptView(
        number=attempt.number,
        tier=attempt.tier,
        tier_title=TIER_TITLES[attempt.tier],
        reason=attempt.reason,
        outcome=attempt.outcome,
        detail=attempt.detail,
    )


def _output_views(job: Job) -> list[OutputView]:
    if job.state not in DONE:
        return []
    return [
        OutputView(
            format=output_format,
            url=f"/v1/jobs/{job.id}/outputs/{output_format.value}",
            size_bytes=blob.size_bytes,
            media_type=output_format.media_type,
            extension=output_format.extension,
        )
        for output_format, blob in job.outputs.items()
    ]
