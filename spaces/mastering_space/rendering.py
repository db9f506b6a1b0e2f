"""One job, as the events that the endpoint of its kind yields (/master).

The work is a task of its own, with a process of its own for the song (`worker.render_pool`); the generator passes on
its events. It yields at least every `EVENT_INTERVAL_S`, because Gradio checks only between two yields whether the
caller is still connected; to close it ends the task, which kills the process. The last event alone holds all the caller
needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mastering.contract import ENGINE_VERSION, Fault, FaultCode
from mastering.contract.kinds import JobKind
from mastering.protocol.frames import AcceptedEvent, FaultEvent, HeartbeatEvent, PartEvent, ProgressEvent, ReportEvent
from mastering.worker.budget import check_duration
from mastering.worker.render_pool import RenderPool
from mastering.worker.render_process import Message, RenderProcess, fault_of
from mastering.worker.request import JobRequest
from mastering_space.descent_relay import DescendFunction, DescentRelay, ZeroGpuError
from mastering_space.jobs import AUDIO, SpaceJob, SpaceJobs
from mastering_space.logs import SpaceLog
from mastering_space.memory import MemoryFile
from mastering_space.settings import SpaceSettings

EVENT_INTERVAL_S = 0.5
"""Seconds between two yields at most, and between two heartbeats of the rendering process."""

SpaceEvent = dict[str, Any]
EmitEvent = Callable[[SpaceEvent], None]
_DEADLINE: TypeAdapter[float | None] = TypeAdapter(float | None)


class Rendering:
    """Renders what `jobs` holds, `settings.concurrency` songs at a time."""

    def __init__(
        self,
        settings: SpaceSettings,
        jobs: SpaceJobs,
        renderers: RenderPool,
        log: SpaceLog,
        descend: DescendFunction | None = None,
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._renderers = renderers
        self._log = log
        self._descend = descend
        self._slots = asyncio.Semaphore(settings.concurrency)

    async def events(
        self, kind: JobKind[Any], job_id: str, options: dict[str, Any], deadline_s: float | None
    ) -> AsyncIterator[SpaceEvent]:
        """The events of one job, from its start; the last is end or fault. Raises ZeroGPU's own errors alone."""
        events: asyncio.Queue[SpaceEvent] = asyncio.Queue()
        try:
            request, limit_s = self._read(kind, options, deadline_s)
            job = self._jobs.begin(job_id)
        except Fault as fault:
            self._jobs.forget(job_id)
            yield _fault(fault)
            return
        job.work = asyncio.create_task(self._work(job_id, job, request, limit_s, events.put_nowait))
        try:
            async for event in _with_heartbeats(events):
                if "raise" in event:  # Gradio's own title says which quota it was
                    raise event["raise"]
                yield event
        finally:
            job.work.cancel()

    def _read(self, kind: JobKind[Any], options: dict[str, Any], deadline_s: float | None) -> tuple[JobRequest, float]:
        """The job and the time limit in seconds. Raises Fault(bad_settings), before anything is decoded."""
        try:
            asked_s = _DEADLINE.validate_python(deadline_s)
        except ValidationError:
            raise Fault(FaultCode.BAD_SETTINGS, "deadline_s is no number of seconds.") from None
        request = JobRequest(kind, kind.parse(options), asked_s)
        return request, min(self._settings.max_render_s, asked_s if asked_s is not None else float("inf"))

    async def _work(self, job_id: str, job: SpaceJob, request: JobRequest, limit_s: float, emit: EmitEvent) -> None:
        """Render, and emit the last event, whatever happens."""
        began, outcome = time.monotonic(), "done"
        try:
            async with asyncio.timeout(limit_s), self._slots:
                report = await self._render(job, request, emit)
            last = await _results(job, report, emit)
        except TimeoutError:
            message = f"The render took longer than its {limit_s:.0f} s."
            last = _fault(Fault(FaultCode.DEADLINE, message, allowed_s=limit_s))
        except asyncio.CancelledError:
            last = _fault(self._cancelled())
        except Fault as fault:
            last = _fault(fault)
        except ZeroGpuError as error:
            last = {"type": "fault", "code": FaultCode.BUSY, "raise": error.__cause__}
        except Exception as error:
            self._log.broken(error)
            last = _fault(Fault(FaultCode.INTERNAL, "The Space failed on this song."))
        if last["type"] == "fault":
            outcome = last["code"]
            job.drop_outputs()
        work = request.kind.work(request.options)
        self._log.render_ended(outcome, work, time.monotonic() - began)
        self._jobs.ended(job_id, job)
        emit(last)

    def _cancelled(self) -> Fault:
        if self._jobs.is_draining:
            return Fault(FaultCode.BUSY, "This Space is stopping. Ask another one.", retry_after_s=60)
        return Fault(FaultCode.CANCELLED, "The render was stopped, and the song deleted.")

    async def _render(self, job: SpaceJob, request: JobRequest, emit: EmitEvent) -> dict[str, Any]:
        """The report, by its kind's record; the outputs are in the job when this returns. Raises Fault."""
        async with self._renderers.take() as renderer:
            emit(AcceptedEvent(engine_version=ENGINE_VERSION, device=renderer.device[:64]).model_dump(mode="json"))
            done = await self._relay(renderer, job, request, emit)
        about, *outputs = done.descriptors
        made = {name: MemoryFile(one) for name, one in zip(done.body["done"], outputs, strict=True)}
        self._jobs.store(job, made)
        with contextlib.closing(MemoryFile(about)) as memory:
            report = request.kind.report.model_validate_json(os.pread(memory.descriptor, memory.size, 0))
        duration_s = request.kind.measured_duration_s(report)
        if duration_s is not None:
            check_duration(duration_s, self._settings.max_duration_s)  # where the header kept it back
        return report.model_dump(mode="json")

    async def _relay(self, renderer: RenderProcess, job: SpaceJob, request: JobRequest, emit: EmitEvent) -> Message:
        """Pass heartbeats and progress on until the results are there. Raises Fault."""
        parts = [job.inputs[AUDIO], *job.references()]
        for part in parts:
            part.rewind()
        kind, options = request.kind, request.options
        asked = {
            "kind": kind.name,
            "options": options.model_dump(mode="json"),
            "heartbeat_s": EVENT_INTERVAL_S,
            "output_bytes": self._jobs.output_bytes(job),
            "unforeseen_bytes": self._jobs.unforeseen_bytes(job, len(options.outputs)),
            "max_duration_s": self._settings.max_duration_s,
        }
        asked["runs_preparation"] = self._descend is not None and kind.pace(options) in kind.gpu_paces
        renderer.ask(asked, [part.descriptor for part in parts])
        async with DescentRelay(self._descend, renderer) as relay:
            return await self._until_done(renderer, relay, job, emit)

    async def _until_done(
        self, renderer: RenderProcess, relay: DescentRelay, job: SpaceJob, emit: EmitEvent
    ) -> Message:
        while True:
            message = await relay.or_fail(self._next(renderer))
            match message.body:
                case {"ask": "descend"}:
                    relay.begin(message)
                case {"needs": size}:
                    self._jobs.reserve(job, size)
                case {"heartbeat": _}:
                    emit(HeartbeatEvent().model_dump(mode="json"))
                case {"progress": progress}:
                    emit(ProgressEvent.model_validate(progress).model_dump(mode="json"))
                case {"fault": fault}:
                    raise fault_of(fault)
                case _:
                    return message

    async def _next(self, renderer: RenderProcess) -> Message:
        try:
            return await _within(renderer.read(), self._settings.stall_s)
        except TimeoutError:
            raise Fault(FaultCode.INTERNAL, "The rendering process stood still.") from None


async def _within(reading: Awaitable[Message], seconds: float) -> Message:
    async with asyncio.timeout(seconds):
        return await reading


async def _with_heartbeats(events: asyncio.Queue[SpaceEvent]) -> AsyncIterator[SpaceEvent]:
    """The events as they come, up to the last; where none comes for `EVENT_INTERVAL_S` the one before is repeated."""
    event: SpaceEvent = HeartbeatEvent().model_dump(mode="json")
    while event["type"] not in ("end", "fault"):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVENT_INTERVAL_S):
                event = await events.get()
        yield event


async def _results(job: SpaceJob, report: dict[str, Any], emit: EmitEvent) -> SpaceEvent:
    """Emit the report and each output's size and checksum; the event returned holds all of it once more."""
    emit(ReportEvent(report=report).model_dump(mode="json"))
    outputs = []
    for name, memory in job.outputs.items():
        sha256 = await asyncio.to_thread(memory.digest)
        part = PartEvent(name=f"output/{name}", size=memory.size).model_dump(mode="json")
        emit({**part, "sha256": sha256})
        outputs.append({"format": name, "size": memory.size, "sha256": sha256})
    return {"type": "end", "report": report, "outputs": outputs}


def _fault(fault: Fault) -> SpaceEvent:
    event = FaultEvent(code=fault.code, message=fault.message[:500], numbers=fault.numbers)
    return event.model_dump(mode="json", exclude={"mac"})
