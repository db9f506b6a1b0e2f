"""The worker's three routes: a slot, a render, the state of health. One exchange holds everything and keeps nothing.

Before a render begins a refusal is an HTTP status with problem+json (`code` is a `FaultCode`); afterwards it is a
fault frame. The routes are plain ASGI where Starlette's responses would not notice that the caller has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mastering.contract import ENGINE_VERSION, Fault, FaultCode
from mastering.protocol.frames import (
    PROTOCOL_VERSION,
    SEAL_HEADER,
    SLOT_HEADER,
    AcceptedEvent,
    HeartbeatEvent,
    ProgressEvent,
    Seal,
    SettingsEvent,
    problem_seal,
)
from mastering.protocol.signing import SignatureVerifier
from mastering.worker.admission import Admission, keys_of
from mastering.worker.logs import Log
from mastering.worker.render_pool import Message, RenderPool, RenderProcess
from mastering.worker.request import RenderRequest
from mastering.worker.response import HEADERS, CallerGone, ResponseWriter
from mastering.worker.settings import WorkerSettings
from mastering.worker.slots import Claim, RenderSlots

_STATUS = {
    FaultCode.BAD_REQUEST: 400,
    FaultCode.BAD_SETTINGS: 400,
    FaultCode.TOO_LARGE: 413,
    FaultCode.BUSY: 503,
    FaultCode.DEADLINE: 408,
}


@dataclass
class Worker:
    """What the routes share."""

    settings: WorkerSettings
    slots: RenderSlots
    renderers: RenderPool
    log: Log


def problem(fault: Fault, key: bytes | None, status: int | None = None) -> Response:
    """RFC 9457, sealed by `key`. `Connection: close`: a caller in the middle of an upload need not send the rest."""
    headers = {**HEADERS, "connection": "close"}
    if "retry_after_s" in fault.numbers:
        headers["retry-after"] = str(fault.numbers["retry_after_s"])
    status = status or _STATUS.get(fault.code, 500)
    body = {
        "title": fault.code,
        "status": status,
        "code": fault.code,
        "detail": fault.message,
        "numbers": fault.numbers,
    }
    response = JSONResponse(body, status, headers, media_type="application/problem+json")
    if key is not None:
        response.headers[SEAL_HEADER] = problem_seal(key, status, bytes(response.body))
    return response


def create_app(settings: WorkerSettings, log: Log) -> Starlette:
    """The ASGI application of one worker."""
    worker = Worker(
        settings=settings,
        slots=RenderSlots(settings.concurrency, settings.slot_s),
        renderers=RenderPool(settings.engine, settings.concurrency + 1),
        log=log,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        worker.renderers.start()
        yield
        await worker.renderers.close()

    app = Starlette(
        routes=[
            Route("/v1/slots", reserve, methods=["POST"]),
            Route("/v1/renders", Renders(worker), methods=["POST"]),
            Route("/v1/health", health, methods=["GET"]),
        ],
        lifespan=lifespan,
        middleware=[Middleware(Admission, guard=SignatureVerifier(settings.secrets), authority=settings.authority)],
    )
    app.state.worker = worker
    return app


async def reserve(request: Request) -> Response:
    """201 {slot, expires_in_s}, or 503 with Retry-After."""
    worker: Worker = request.app.state.worker
    try:
        worker.renderers.check_warm()
        slot = worker.slots.reserve(time.monotonic())
    except Fault as fault:
        return problem(fault, keys_of(request.scope).response)
    return JSONResponse({"slot": slot, "expires_in_s": worker.settings.slot_s}, 201, HEADERS)


async def health(request: Request) -> Response:
    """What the router's probe asks every few seconds; nothing in it is of a song."""
    worker: Worker = request.app.state.worker
    state = "draining" if worker.slots.is_draining else "ready" if worker.renderers.is_warm else "warming"
    body = {
        "state": state,
        "protocol": PROTOCOL_VERSION,
        "engine_version": ENGINE_VERSION,
        "device": worker.renderers.device,
        "failed_starts": worker.renderers.failures,
        "slots": worker.slots.counts(time.monotonic()),
        "load": os.getloadavg(),
        "memory": _memory(),
    }
    return JSONResponse(body, 200, HEADERS)


def _memory() -> dict[str, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    return {"total_bytes": total, "free_bytes": free}


class Renders:
    """`POST /v1/renders`: frames in, frames out; whatever ends it frees the slot and ends the rendering process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        try:
            claim = self._worker.slots.claim(Headers(scope=scope).get(SLOT_HEADER, ""), began)
        except Fault as fault:
            await problem(fault, keys_of(scope).response, 409)(scope, receive, send)
            return
        try:
            outcome = await self._exchange(claim, scope, receive, send)
        finally:
            claim.release()
        self._worker.log.render_ended(outcome, time.monotonic() - began)

    async def _exchange(self, claim: Claim, scope: Scope, receive: Receive, send: Send) -> str:
        """How it ended, in a word."""
        settings = self._worker.settings
        keys = keys_of(scope)
        with RenderRequest(settings.max_input_bytes, settings.max_references, Seal(keys.request)) as intake:
            try:
                request = await self._take_in(intake, receive)
            except CallerGone:
                return FaultCode.CANCELLED
            except Fault as fault:
                claim.release()
                await problem(fault, keys.response)(scope, receive, send)
                return fault.code
            answer = ResponseWriter(send, settings.upload_stall_s, claim, Seal(keys.response))
            try:
                return await _while_caller_listens(receive, self._render(request, intake, answer))
            except CallerGone:
                return FaultCode.CANCELLED

    async def _take_in(self, intake: RenderRequest, receive: Receive) -> SettingsEvent:
        """Raises Fault, or Gone."""
        more = True
        while more:
            try:
                async with asyncio.timeout(self._worker.settings.upload_stall_s):
                    message = await receive()
            except TimeoutError:
                raise Fault(FaultCode.DEADLINE, "The upload stood still for too long.") from None
            if message["type"] == "http.disconnect":
                raise CallerGone
            intake.feed(message.get("body", b""))
            more = message.get("more_body", False)
        return intake.finish()

    async def _render(self, request: SettingsEvent, intake: RenderRequest, answer: ResponseWriter) -> str:
        limit_s = min(self._worker.settings.max_render_s, request.deadline_s or float("inf"))
        await answer.begin()
        # However this ends, the results' memory is given back with it.
        with contextlib.ExitStack() as held:
            try:
                async with asyncio.timeout(limit_s), self._worker.renderers.take() as renderer:
                    await answer.event(AcceptedEvent(engine_version=ENGINE_VERSION, device=renderer.device[:64]))
                    done = await self._relay(renderer, request, intake, answer)
                    held.callback(done.close)
            except TimeoutError:
                message = f"The render took longer than its {limit_s:.0f} s."
                return await answer.fault(Fault(FaultCode.DEADLINE, message, allowed_s=limit_s))
            except Fault as fault:
                return await answer.fault(fault)
            return await answer.results(done)

    async def _relay(
        self, renderer: RenderProcess, request: SettingsEvent, intake: RenderRequest, answer: ResponseWriter
    ) -> Message:
        """Pass heartbeats and progress on until the results are there. Raises Fault."""
        asked = {
            "settings": request.settings.model_dump(mode="json"),
            "heartbeat_s": self._worker.settings.heartbeat_s,
            "output_bytes": self._worker.settings.max_output_bytes,
        }
        renderer.ask(asked, list(intake.parts.values()))
        while True:
            message = await renderer.read()
            match message.body:
                case {"heartbeat": _}:
                    await answer.event(HeartbeatEvent())
                case {"needs": _}:  # the process has held it against `output_bytes`
                    pass
                case {"progress": progress}:
                    await answer.event(ProgressEvent.model_validate(progress))
                case {"fault": fault}:
                    raise Fault(FaultCode(fault["code"]), fault["message"], **fault["numbers"])
                case _:
                    return message


async def _while_caller_listens(receive: Receive, work: Coroutine[None, None, str]) -> str:
    """Run `work`; cancel it the moment the caller hangs up. Raises Gone."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_hang_up(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise CallerGone
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
