"""One attempt on one backend: the song goes out, events come back, outputs land in the spool and are verified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

from mastering.contract import Facts, Fault, OutputFormat, Report
from router import clock
from router.house import House
from router.jobs.model import BlobRef, Job, Progress
from router.jobs.ports import Missing
from router.jobs.state import State
from router.spool.port import Gone
from router.tiers.choice import Choice
from router.tiers.faults import FaultClass, TierFault
from router.tiers.port import Accepted, Alive, Event, Finished, OutputBegins, Work, Working

PROGRESS_EVERY_S = 0.4
MP3_PADDING_FRAMES = 4 * 1152
SLOWEST_UPLOAD_BYTES_PER_S = 256 * 1024


class LostJob(Exception):
    """The job is not this attempt's any more: cancelled, expired or taken over."""


async def until_lost(house: House, job: Job) -> None:
    """Ends when the job is no longer this generation's to run."""
    async with house.events.listen(job.id) as changes:
        while True:
            with suppress(Missing):
                current, _ = await house.jobs.get(job.id)
                if current.state is State.RUNNING and current.generation == job.generation:
                    await changes.wait(5.0)
                    continue
            return


async def run(house: House, job: Job, choice: Choice) -> tuple[dict[OutputFormat, BlobRef], Report]:
    """One attempt on one backend; its outputs lie verified in the spool when this returns."""
    backend = house.fleet.backend(choice.backend)
    facts, source = job.facts, job.input
    if facts is None or source is None:
        raise TierFault(FaultClass.BUG, "the job has no probed audio")
    deadline_s = min(house.settings.attempt_deadline_s, job.expires_s - clock.now())
    work = Work(job.settings, facts, source.size_bytes, deadline_s, lambda: house.spool.read(source.ref))
    outputs: dict[OutputFormat, BlobRef] = {}
    try:
        async with asyncio.timeout(deadline_s), aclosing(backend.run(work)) as events:
            report = await _receive(house, job, _watched(events, backend.silence_s, work.size_bytes), outputs)
        await _verify(house, job, facts, outputs)
    except TimeoutError:
        await drop(house, outputs)
        raise TierFault(FaultClass.DEADLINE, "the job took longer than allowed") from None
    except Gone:
        await drop(house, outputs)
        raise LostJob from None
    except ExceptionGroup as group:
        await drop(house, outputs)
        raise group.exceptions[0] from None
    except BaseException:
        await drop(house, outputs)
        raise
    return outputs, report


async def _receive(
    house: House, job: Job, events: AsyncGenerator[Event], outputs: dict[OutputFormat, BlobRef]
) -> Report:
    noted_s = 0.0
    async for event in events:
        match event:
            case Finished(report):
                return report
            case OutputBegins(output_format, size_bytes):
                outputs[output_format] = await _keep(house, job, events, size_bytes)
            case Working(stage, fraction) if clock.now() - noted_s >= PROGRESS_EVERY_S:
                noted_s = clock.now()
                await _note_progress(house, job, Progress(stage=stage, fraction=fraction))
            case Working() | Accepted() | Alive():
                continue
            case bytes():
                raise TierFault(FaultClass.BAD_OUTPUT, "the backend sent more than it announced")
    raise TierFault(FaultClass.CRASH, "the backend's answer ended before the master was whole")


async def _keep(house: House, job: Job, events: AsyncGenerator[Event], size_bytes: int) -> BlobRef:
    """Take one output into the spool, beside the job's input."""
    if size_bytes > _largest_output(job, house.settings.max_bytes):
        raise TierFault(FaultClass.BAD_OUTPUT, "the master is larger than its song allows")
    expires_s = clock.now() + house.settings.output_ttl_s
    ref = await house.spool.reserve(size_bytes, expires_s, beside=job.input.ref if job.input else None)
    try:
        extent = await house.spool.append(ref, 0, _exactly(events, size_bytes), size_bytes)
    except BaseException:
        await house.spool.drop(ref)
        raise
    return BlobRef(ref=ref, size_bytes=extent.size_bytes)


async def _verify(house: House, job: Job, facts: Facts, outputs: dict[OutputFormat, BlobRef]) -> None:
    """Every output decodes in the probe and is as long as the song. Raises TierFault(BAD_OUTPUT)."""
    if set(outputs) != set(job.settings.outputs):
        raise TierFault(FaultClass.BAD_OUTPUT, "not every format that was asked for came")
    async with asyncio.TaskGroup() as checks:
        for output_format, blob in outputs.items():
            checks.create_task(_verify_one(house, facts, job.settings.rate_hz, output_format, blob))


async def _note_progress(house: House, job: Job, progress: Progress) -> None:
    def note(current: Job) -> Job | None:
        mine = current.state is State.RUNNING and current.generation == job.generation
        return current.with_(progress=progress) if mine else None

    await house.change(job.id, note)


async def drop(house: House, outputs: dict[OutputFormat, BlobRef]) -> None:
    """Destroy outputs that will not be committed."""
    for blob in outputs.values():
        await house.spool.drop(blob.ref)


async def _verify_one(
    house: House, facts: Facts, rate_hz: int | None, output_format: OutputFormat, blob: BlobRef
) -> None:
    """Raise TierFault(BAD_OUTPUT) unless the output decodes and is as long as the song, to a codec's padding."""
    expected_rate_hz = rate_hz or facts.rate_hz
    try:
        await house.probe.verify(
            house.spool.read(blob.ref),
            frames=round(facts.frames * expected_rate_hz / facts.rate_hz),
            rate_hz=expected_rate_hz,
            channels=facts.channels,
            tolerance_frames=MP3_PADDING_FRAMES if output_format is OutputFormat.MP3 else 2,
            size=blob.size_bytes,
        )
    except Fault as fault:
        raise TierFault(FaultClass.BAD_OUTPUT, f"the router's own check refused the master: {fault.message}") from fault


async def _watched(events: AsyncGenerator[Event], silence_s: float, upload_bytes: int) -> AsyncGenerator[Event]:
    """The same events; a TierFault when the backend says nothing for `silence_s`, after the time an upload may take."""
    allowed_s = silence_s + upload_bytes / SLOWEST_UPLOAD_BYTES_PER_S
    while True:
        try:
            async with asyncio.timeout(allowed_s):
                event = await anext(events)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TierFault(FaultClass.CRASH, "the backend fell silent") from None
        allowed_s = silence_s
        yield event


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


def _largest_output(job: Job, max_bytes: int) -> int:
    """A 24-bit stereo WAV at the highest rate the song may have, with room for its header."""
    frames = job.facts.frames if job.facts else 0
    ratio = (job.settings.rate_hz or 0) / job.facts.rate_hz if job.facts and job.settings.rate_hz else 1.0
    return max(max_bytes, int(frames * max(1.0, ratio)) * 8 + 1024 * 1024)
