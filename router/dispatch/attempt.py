"""Runs one attempt on one backend: sends the song, follows the events, has the outputs written and verified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

from mastering.contract.kinds import JobKind
from router.core import clock
from router.core.errors import Problem
from router.core.event_log import log_exception
from router.dispatch.outputs import OutputWriter, destroy
from router.dispatch.watchdog import Watchdog
from router.jobs import attempts
from router.jobs.kinds import kind_of, options_of, report_of
from router.jobs.services import Services
from router.spool.port import BlobGone, Blobs, SpoolFull
from router.store.port import JobEvents, JobMissing, Jobs
from router.store.record import BlobRef, Job, JobProgress
from router.tiers.fleet.member import Reservation
from router.tiers.policy.estimate import AttemptTiming
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, AudioSource, Finished, Heartbeat, OutputStarted, RenderProgress, TierEvent, Work

PROGRESS_EVERY_S = 0.4
"""Between two notes of progress on the record: each is a write that wakes all who watch the job."""
_LOOK_AGAIN_S = 5.0
"""Hints of a job's change may be lost: its record is read at least this often."""


class LostJob(Exception):
    """The job is not this attempt's any more: cancelled, expired or taken over."""


async def until_lost(jobs: Jobs, events: JobEvents, job: Job) -> None:
    """Return when the job is no longer this generation's to run."""
    async with events.subscribe(job.id) as changes:
        while True:
            with suppress(JobMissing):
                current, _ = await jobs.get(job.id)
                if attempts.is_same_attempt(current, job):
                    await changes.wait(_LOOK_AGAIN_S)
                    continue
            return


class AttemptResult(NamedTuple):
    """What an attempt made: outputs that lie verified in the spool, all readable until the same moment."""

    outputs: dict[str, BlobRef]
    report: dict[str, Any] | None
    expires_s: float
    timing: AttemptTiming


async def run(services: Services, job: Job, reservation: Reservation) -> AttemptResult:
    """One attempt on one backend. Raises TierFault, LostJob, and Problem where the fault is the router's own."""
    backend = reservation.member.backend
    facts, source = job.facts, job.input
    if facts is None or source is None:
        raise Problem("input_lost")
    deadline_s = min(services.settings.attempt_deadline_s, job.expires_s - services.clock.now())
    references = tuple(_source(services.spool, blob) for _, blob in sorted(job.references.items()) if blob.size_bytes)
    kind = kind_of(job)
    work = Work(options_of(job), facts, _source(services.spool, source), deadline_s, references, kind.name)
    writer = OutputWriter(services, job, facts)
    watchdog = Watchdog(backend.silence_s, work.upload_bytes, reservation.quota_hold.need_s)
    try:
        async with asyncio.timeout(deadline_s), aclosing(backend.run(work)) as events:
            report = await _receive(services, job, kind, watchdog.watched(events), writer)
        timing = watchdog.timing()
        await _verify(job, writer)
    except BaseException as error:
        await destroy(services.spool, writer.outputs)
        raise _classified(error, job, services) from error
    finally:
        writer.close()
    return AttemptResult(writer.outputs, report, writer.expires_s, timing)


def _classified(error: BaseException, job: Job, services: Services) -> BaseException:
    """The exception that the dispatcher is to see for `error`: a TierFault, a Problem, or `error` itself."""
    match error:
        case ExceptionGroup():
            return _classified(error.exceptions[0], job, services)
        case TimeoutError():
            return TierFault(FaultClass.DEADLINE, "the job took longer than allowed")
        case BlobGone():
            return Problem("expired" if services.clock.now() >= job.expires_s else "input_lost")
        case SpoolFull():
            return TierFault(FaultClass.ROOM, "there was no room for the master", retry_after_s=error.retry_after_s)
        case TierFault() | Problem():
            return error
        case Exception():
            log_exception(error)
            return TierFault(FaultClass.OURS, "something broke on the router's side")
    return error


def _source(spool: Blobs, blob: BlobRef) -> AudioSource:
    ref, size_bytes = blob.ref, blob.size_bytes
    return AudioSource(size_bytes, lambda: spool.read(ref), lambda: spool.open_reader(ref, 0, size_bytes))


async def _receive(
    services: Services, job: Job, kind: JobKind[Any], events: AsyncGenerator[TierEvent], writer: OutputWriter
) -> dict[str, Any] | None:
    """Follow the events to the end, outputs included. Raises TierFault, SpoolFull."""
    noted_s = 0.0
    async for event in events:
        match event:
            case Finished(report):
                return None if report is None else _checked_report(kind, report)
            case OutputStarted():
                await writer.write(event, events)
            case RenderProgress(stage) if stage not in kind.stages:
                raise TierFault(FaultClass.BUG, "the backend is at a stage that such jobs do not have")
            case RenderProgress(stage, fraction) if clock.now() - noted_s >= PROGRESS_EVERY_S:
                noted_s = clock.now()
                await _note_progress(services, job, JobProgress(stage=stage, fraction=fraction))
            case RenderProgress() | Accepted() | Heartbeat():
                continue
            case bytes():
                raise TierFault(FaultClass.BAD_OUTPUT, "the backend sent more than it announced")
    raise TierFault(FaultClass.CRASH, "the backend's answer ended before the master was whole")


def _checked_report(kind: JobKind[Any], report: dict[str, Any]) -> dict[str, Any]:
    try:
        return report_of(kind, report).model_dump(mode="json")
    except ValueError:
        raise TierFault(FaultClass.BUG, "the backend's report is not one of such jobs") from None


async def _verify(job: Job, writer: OutputWriter) -> None:
    """Raise TierFault(BAD_OUTPUT) unless every output came, and the probe finds each to be what its kind expects."""
    if set(writer.outputs) != set(job.wanted):
        raise TierFault(FaultClass.BAD_OUTPUT, "not every output that was asked for came")
    async with asyncio.TaskGroup() as checks:
        for name in writer.outputs:
            checks.create_task(writer.verify(name))


async def _note_progress(services: Services, job: Job, progress: JobProgress) -> None:
    def note(current: Job) -> Job | None:
        return current.with_(progress=progress) if attempts.is_same_attempt(current, job) else None

    await services.change(job.id, note)
