"""The worker's three routes: reserve a slot, render, tell its health."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mastering.contract import ENGINE_VERSION, Fault
from mastering.protocol.frames import PROTOCOL_VERSION
from mastering.protocol.signing import SignatureVerifier
from mastering.worker.event_log import WorkerEventLog
from mastering.worker.exchange import RenderExchange
from mastering.worker.problems import problem_response
from mastering.worker.render_pool import RenderPool
from mastering.worker.response import HEADERS
from mastering.worker.served_kinds import model_digests, served_paces
from mastering.worker.settings import WorkerSettings
from mastering.worker.signature_check import SignatureMiddleware, keys_of
from mastering.worker.slots import RenderSlots


@dataclass
class Worker:
    """What the routes share."""

    settings: WorkerSettings
    slots: RenderSlots
    render_pool: RenderPool
    log: WorkerEventLog


def create_app(settings: WorkerSettings, log: WorkerEventLog) -> Starlette:
    """The ASGI application of one worker."""
    worker = Worker(
        settings=settings,
        slots=RenderSlots(settings.concurrency, settings.slot_s),
        render_pool=RenderPool(
            settings.engine, settings.concurrency + 1, allows_incomplete_sandbox=settings.allow_incomplete_sandbox
        ),
        log=log,
    )

    verifier = SignatureVerifier(settings.secrets)
    render = RenderExchange(settings, worker.slots, worker.render_pool, log)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        worker.render_pool.start()
        yield
        await worker.render_pool.close()

    app = Starlette(
        routes=[
            Route("/v1/slots", reserve, methods=["POST"]),
            Route("/v1/renders", render, methods=["POST"]),
            Route("/v1/health", health, methods=["GET"]),
        ],
        lifespan=lifespan,
        middleware=[Middleware(SignatureMiddleware, verifier=verifier, authority=settings.authority)],
    )
    app.state.worker = worker
    return app


async def reserve(request: Request) -> Response:
    """201 {slot, expires_in_s}, or 503 with Retry-After."""
    worker: Worker = request.app.state.worker
    try:
        worker.render_pool.check_warm()
        slot = worker.slots.reserve(time.monotonic())
    except Fault as fault:
        return problem_response(fault, keys_of(request.scope).response)
    return JSONResponse({"slot": slot, "expires_in_s": worker.settings.slot_s}, 201, HEADERS)


async def health(request: Request) -> Response:
    """State, kinds of jobs, load and memory: what the router asks every few seconds. Nothing in it is of a song."""
    worker: Worker = request.app.state.worker
    state = "draining" if worker.slots.is_draining else "ready" if worker.render_pool.is_warm else "warming"
    body = {
        "state": state,
        "protocol": PROTOCOL_VERSION,
        "engine_version": ENGINE_VERSION,
        "device": worker.render_pool.device,
        "sandbox_gaps": worker.render_pool.sandbox_gaps,
        "kinds": model_digests(),
        "paces": served_paces(),
        "failed_starts": worker.render_pool.failures,
        "slots": worker.slots.counts(time.monotonic()),
        "load": os.getloadavg(),
        "memory": _memory(),
    }
    return JSONResponse(body, 200, HEADERS)


def _memory() -> dict[str, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    return {"total_bytes": total, "free_bytes": free}
