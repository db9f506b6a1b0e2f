"""One job as one HTTP exchange: the song in, heartbeats and progress and the outputs out. It keeps nothing.

Before a render begins a refusal is an HTTP status (`problems`); afterwards it is a fault frame. Plain ASGI, since
Starlette's responses would not notice that the caller has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from mastering.contract import ENGINE_VERSION, Fault, FaultCode
from mastering.protocol.frames import (
    SLOT_HEADER,
    AcceptedEvent,
    HeartbeatEvent,
    ProgressEvent,
    Seal,
)
from mastering.worker.event_log import WorkerEventLog
from mastering.worker.problems import problem_response
from mastering.worker.render_pool import RenderPool
from mastering.worker.render_process import Message, RenderProcess, fault_of
from mastering.worker.request import JobRequest, RenderRequest
from mastering.worker.response import CallerGone, ResponseWriter
from mastering.worker.settings import WorkerSettings
from mastering.worker.signature_check import keys_of
from mastering.worker.slots import Claim, RenderSlots


class RenderExchange:
    """`POST /v1/renders`: frames in, frames out; whatever ends it frees the slot and ends the rendering process."""

    def __init__(
        self, settings: WorkerSettings, slots: RenderSlots, render_pool: RenderPool, log: WorkerEventLog
    ) -> None:
        self._settings, self._slots, self._render_pool, self._log = settings, slots, render_pool, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        try:
            claim = self._slots.claim(Headers(scope=scope).get(SLOT_HEADER, ""), began)
        except Fault as fault:
            await problem_response(fault, keys_of(scope).response, 409)(scope, receive, send)
            return
        try:
            kind, outcome = await self._exchange(claim, scope, receive, send)
        finally:
            claim.release()
        self._log.render_ended(kind, outcome, time.monotonic() - began)

    async def _exchange(self, claim: Claim, scope: Scope, receive: Receive, send: Send) -> tuple[str | None, str]:
        """The job's kind, where that was told, and how it ended: `done` or a FaultCode."""
        keys = keys_of(scope)
        with RenderRequest(self._settings.max_input_bytes, self._settings.max_references, Seal(keys.request)) as upload:
            try:
                request = await self._read_upload(upload, receive)
            except CallerGone:
                return upload.kind, FaultCode.CANCELLED
            except Fault as fault:
                claim.release()
                await problem_response(fault, keys.response)(scope, receive, send)
                return upload.kind, fault.code
            response = ResponseWriter(send, self._settings.upload_stall_s, claim, Seal(keys.response))
            try:
                outcome = await _until_caller_hangs_up(receive, self._render(request, upload, response))
            except CallerGone:
                outcome = FaultCode.CANCELLED
            return upload.kind, outcome

    async def _read_upload(self, upload: RenderRequest, receive: Receive) -> JobRequest:
        """The whole request body. Raises Fault, CallerGone."""
        more = True
        while more:
            try:
                async with asyncio.timeout(self._settings.upload_stall_s):
                    message = await receive()
            except TimeoutError:
                raise Fault(FaultCode.DEADLINE, "The upload stood still for too long.") from None
            if message["type"] == "http.disconnect":
                raise CallerGone
            upload.feed(message.get("body", b""))
            more = message.get("more_body", False)
        return upload.finish()

    async def _render(self, request: JobRequest, upload: RenderRequest, response: ResponseWriter) -> str:
        limit_s = min(self._settings.max_render_s, request.deadline_s or float("inf"))
        await response.begin()
        # However this ends, the results' memory is freed with it.
        with contextlib.ExitStack() as held:
            try:
                async with asyncio.timeout(limit_s), self._render_pool.take() as process:
                    await response.event(AcceptedEvent(engine_version=ENGINE_VERSION, device=process.device[:64]))
                    done = await self._relay(process, request, upload, response)
                    held.callback(done.close)
            except TimeoutError:
                message = f"The render took longer than its {limit_s:.0f} s."
                return await response.fault(Fault(FaultCode.DEADLINE, message, allowed_s=limit_s))
            except Fault as fault:
                return await response.fault(fault)
            return await response.results(done)

    async def _relay(
        self, process: RenderProcess, request: JobRequest, upload: RenderRequest, response: ResponseWriter
    ) -> Message:
        """Pass heartbeats and progress on until the results are there. Raises Fault."""
        asked = {
            "kind": request.kind.name,
            "options": request.options.model_dump(mode="json"),
            "heartbeat_s": self._settings.heartbeat_s,
            "output_bytes": self._settings.max_output_bytes,
        }
        process.ask(asked, list(upload.parts.values()))
        while True:
            message = await process.read()
            match message.body:
                case {"heartbeat": _}:
                    await response.event(HeartbeatEvent())
                case {"needs": _}:  # the process has compared it with `output_bytes`
                    pass
                case {"progress": progress}:
                    await response.event(ProgressEvent.model_validate(progress))
                case {"fault": fault}:
                    raise fault_of(fault)
                case _:
                    return message


async def _until_caller_hangs_up(receive: Receive, work: Coroutine[None, None, str]) -> str:
    """Run `work`; cancel it the moment the caller hangs up. Raises CallerGone."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_wait_for_hang_up(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise CallerGone
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _wait_for_hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
