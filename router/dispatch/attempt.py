"""One attempt on one backend: the song goes out, events come back, outputs land in the spool and are verified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import NamedTuple

from mastering.contract import CODER_PADDING_FRAMES, Facts, Fault, FaultCode, OutputFormat, Report
from mastering.protocol.probe import VerifiedMaster
from router.core import clock
from router.core.errors import Problem
from router.core.event_log import log_exception
from router.dispatch.watchdog import Watchdog
from router.jobs import eviction
from router.jobs.services import Services
from router.probe.client import AnnouncedMaster
from router.probe.stream_tap import StreamTap
from router.spool.port import BlobGone, SpoolFull
from router.store.port import JobMissing
from router.store.record import BlobRef, Job, Progress
from router.store.state import JobState
from router.tiers.fleet.member import Reservation
from router.tiers.policy.estimate import Timing
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, Alive, Event, Finished, OutputBegins, Source, Work, Working

PROGRESS_EVERY_S = 0.4


class LostJob(Exception):
    """The job is not this attempt's any more: cancelled, expired or taken over."""


async def until_lost(services: Services, job: Job) -> None:
    """Ends when the job is no longer this generation's to run."""
    async with services.events.listen(job.id) as changes:
        while True:
            with suppress(JobMissing):
                current, _ = await services.jobs.get(job.id)
                if current.state is JobState.RUNNING and current.generation == job.generation:
                    await changes.wait(5.0)
                    continue
            return


class AttemptResult(NamedTuple):
    """What an attempt made: outputs that lie verified in the spool, all readable until the same moment."""

    outputs: dict[OutputFormat, BlobRef]
    report: Report | None
    expires_s: float
    timing: Timing


async def run(services: Services, job: Job, reservation: Reservation) -> AttemptResult:
    """One attempt on one backend. Raises TierFault, LostJob, and Problem where the fault is the router's own."""
    backend = reservation.member.backend
    facts, source = job.facts, job.input
    if facts is None or source is None:
        raise Problem("input_lost")
    deadline_s = min(services.settings.attempt_deadline_s, job.expires_s - clock.now())
    references = tuple(_source(services, blob) for _, blob in sorted(job.references.items()) if blob.size_bytes)
    audio = _source(services, source)
    work = Work(job.settings, facts, audio, deadline_s, references)
    shelf, watch = (
        OutputWriter(services, job, facts),
        Watchdog(backend.silence_s, work.upload_bytes, reservation.promise.need_s),
    )
    try:
        async with asyncio.timeout(deadline_s), aclosing(backend.run(work)) as events:
            report = await _receive(services, job, watch.over(events), shelf)
        timing = watch.timing()
        await _verify(job, shelf)
    except BaseException as error:
        await drop(services, shelf.outputs)
        raise _meaning(error, job, services.settings.spool_quota_bytes) from error
    finally:
        shelf.close()
    return AttemptResult(shelf.outputs, report, shelf.expires_s, timing)


def _meaning(error: BaseException, job: Job, quota_bytes: int) -> BaseException:
    """What the dispatcher is to understand by `error`."""
    match error:
        case ExceptionGroup():
            return _meaning(error.exceptions[0], job, quota_bytes)
        case TimeoutError():
            return TierFault(FaultClass.DEADLINE, "the job took longer than allowed")
        case BlobGone():
            return Problem("expired" if clock.now() >= job.expires_s else "input_lost")
        case SpoolFull():
            if expected_room(job) > quota_bytes:
                return Problem("spool_full", "There is no room for the master.", retry_after_s=error.retry_after_s)
            return TierFault(FaultClass.ROOM, "there was no room for the master", retry_after_s=error.retry_after_s)
        case TierFault() | Problem():
            return error
        case Exception():
            log_exception(error)
            return TierFault(FaultClass.OURS, "something broke on the router's side")
    return error


def _source(services: Services, blob: BlobRef) -> Source:
    spool, ref, size_bytes = services.spool, blob.ref, blob.size_bytes
    return Source(size_bytes, lambda: spool.read(ref), lambda: spool.open_reader(ref, 0, size_bytes))


class OutputWriter:
    """The outputs of one attempt, as they land in the spool beside the job's input."""

    def __init__(self, services: Services, job: Job, facts: Facts) -> None:
        self._services, self._job, self._facts = services, job, facts
        self._taps: dict[OutputFormat, StreamTap[VerifiedMaster]] = {}
        self.outputs: dict[OutputFormat, BlobRef] = {}
        self.expires_s = 0.0

    def close(self) -> None:
        for tap in self._taps.values():
            tap.close()

    async def keep(self, begins: OutputBegins, events: AsyncGenerator[Event]) -> None:
        """Take one output from `events`. Raises TierFault, Full."""
        services, job, size_bytes = self._services, self._job, begins.size_bytes
        if begins.format in self.outputs or begins.format not in job.settings.outputs:
            raise TierFault(FaultClass.BAD_OUTPUT, "the backend sent a format twice, or one that nobody asked for")
        if size_bytes > _largest_output(job, services.settings.max_bytes):
            raise TierFault(FaultClass.BAD_OUTPUT, "the master is larger than its song allows")
        self.expires_s = self.expires_s or clock.now() + services.settings.output_ttl_s
        await eviction.evict(services, size_bytes)
        ref = await services.spool.reserve(size_bytes, self.expires_s, beside=job.input.ref if job.input else None)
        self.outputs[begins.format] = BlobRef(ref=ref, size_bytes=size_bytes)
        body = begins.body or _exactly(events, size_bytes)
        tap = services.probe.tap_master(**self._announced(begins.format, size_bytes))
        if tap is not None:
            self._taps[begins.format] = tap
        await services.spool.append(ref, 0, body, size_bytes, tap.write if tap else None)

    async def verify(self, output_format: OutputFormat) -> None:
        """Raise TierFault(BAD_OUTPUT) unless the output is sound and as long as the song, to a codec's padding."""
        blob, tap = self.outputs[output_format], self._taps.get(output_format)
        try:
            if tap is None or await tap.result() is None:
                announced = self._announced(output_format, blob.size_bytes)
                await self._services.probe.verify(self._services.spool.read(blob.ref), **announced)
        except Fault as fault:
            if fault.code is FaultCode.INTERNAL:  # our own probe broke: no backend is to blame
                raise
            what = f"the router's own check refused the master: {fault.message}"
            raise TierFault(FaultClass.BAD_OUTPUT, what) from fault

    def _announced(self, output_format: OutputFormat, size_bytes: int) -> AnnouncedMaster:
        facts = self._facts
        rate_hz = output_format.rate_hz(self._job.settings.rate_hz or facts.rate_hz)
        return AnnouncedMaster(
            frames=round(facts.frames * rate_hz / facts.rate_hz),
            rate_hz=rate_hz,
            channels=facts.channels,
            tolerance_frames=CODER_PADDING_FRAMES if output_format.is_lossy else 2,
            size=size_bytes,
        )


async def _receive(services: Services, job: Job, events: AsyncGenerator[Event], shelf: OutputWriter) -> Report | None:
    noted_s = 0.0
    async for event in events:
        match event:
            case Finished(report):
                return report
            case OutputBegins():
                await shelf.keep(event, events)
            case Working(stage, fraction) if clock.now() - noted_s >= PROGRESS_EVERY_S:
                noted_s = clock.now()
                await _note_progress(services, job, Progress(stage=stage, fraction=fraction))
            case Working() | Accepted() | Alive():
                continue
            case bytes():
                raise TierFault(FaultClass.BAD_OUTPUT, "the backend sent more than it announced")
    raise TierFault(FaultClass.CRASH, "the backend's answer ended before the master was whole")


async def _verify(job: Job, shelf: OutputWriter) -> None:
    """To the probe every output is sound, and as long as the song. Raises TierFault(BAD_OUTPUT)."""
    if set(shelf.outputs) != set(job.settings.outputs):
        raise TierFault(FaultClass.BAD_OUTPUT, "not every format that was asked for came")
    async with asyncio.TaskGroup() as checks:
        for output_format in shelf.outputs:
            checks.create_task(shelf.verify(output_format))


async def _note_progress(services: Services, job: Job, progress: Progress) -> None:
    def note(current: Job) -> Job | None:
        mine = current.state is JobState.RUNNING and current.generation == job.generation
        return current.with_(progress=progress) if mine else None

    await services.change(job.id, note)


async def drop(services: Services, outputs: dict[OutputFormat, BlobRef]) -> None:
    """Destroy outputs that will not be committed."""
    for blob in outputs.values():
        await services.spool.drop(blob.ref)


async def _exactly(events: AsyncGenerator[Event], size_bytes: int) -> AsyncIterator[bytes]:
    """The next `size_bytes` of bytes events."""
    left = size_bytes
    while left > 0:
        event = await anext(events, None)
        match event:
            case bytes():
                left -= len(event)
                if left < 0:
                    raise TierFault(FaultClass.BAD_OUTPUT, "the backend sent more than it announced")
                yield event
            case Alive() | Working():
                continue
            case _:
                raise TierFault(FaultClass.BAD_OUTPUT, "the master ended before its announced size")


def expected_room(job: Job) -> int:
    """What the job takes in the spool when its masters lie beside its song, by and large."""
    brought = [blob.size_bytes for blob in (job.input, *job.references.values()) if blob]
    return sum(brought) + len(job.settings.outputs) * (job.input.size_bytes if job.input else 0)


def _largest_output(job: Job, max_bytes: int) -> int:
    """A 24-bit stereo WAV at the highest rate the song may have, with room for its header."""
    frames = job.facts.frames if job.facts else 0
    ratio = (job.settings.rate_hz or 0) / job.facts.rate_hz if job.facts and job.settings.rate_hz else 1.0
    return max(max_bytes, int(frames * max(1.0, ratio)) * 8 + 1024 * 1024)
