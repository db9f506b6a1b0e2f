"""The HTTP routes for audio, beside Gradio: PUT an input, GET an output, DELETE, health. Streamed, never on disk."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mastering.contract import ENGINE_VERSION, Fault, FaultCode
from mastering.protocol.frames import PROTOCOL_VERSION
from mastering.worker.render_pool import RenderPool
from mastering.worker.served_kinds import model_digests, served_kinds, served_paces
from mastering_space.jobs import AUDIO, SpaceJobs, UploadConflict
from mastering_space.memory import MemoryFile
from mastering_space.problems import problem, refused
from mastering_space.settings import SpaceKind, SpaceSettings

_ID = re.compile(r"[0-9a-f]{32}")
_NO_STORE = {"cache-control": "no-store"}
_BYTES = "application/octet-stream"


@dataclass
class SpaceState:
    """The parts of the Space that its routes use."""

    kind: SpaceKind
    settings: SpaceSettings
    jobs: SpaceJobs
    renderers: RenderPool


def create_routes(state: SpaceState) -> Starlette:
    """The application below /v1."""
    endpoints = Endpoints(state)
    return Starlette(
        routes=[
            Route("/v1/health", endpoints.health, methods=["GET"]),
            Route("/v1/jobs/{job}/audio", endpoints.put_audio, methods=["PUT"]),
            Route("/v1/jobs/{job}/references/{number:int}", endpoints.put_reference, methods=["PUT"]),
            Route("/v1/jobs/{job}/outputs/{name}", endpoints.get_output, methods=["GET"]),
            Route("/v1/jobs/{job}", endpoints.show, methods=["GET"]),
            Route("/v1/jobs/{job}", endpoints.delete, methods=["DELETE"]),
        ],
        exception_handlers={HTTPException: _http},
    )


async def _http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return refused(status, "There is nothing at this address, or not by this method.")


class Endpoints:
    """The routes, one method each."""

    def __init__(self, state: SpaceState) -> None:
        self._state = state

    async def health(self, _: Request) -> Response:
        """State, free slots and limits: what the router asks every few seconds. Nothing in it is of a song."""
        state = self._state
        total = state.settings.concurrency
        idle_state = "draining" if state.jobs.is_draining else "ready" if state.renderers.is_warm else "warming"
        body = {
            "protocol": PROTOCOL_VERSION,
            "engine_version": ENGINE_VERSION,
            "device": "zero_gpu" if state.kind == "zero_gpu" else state.renderers.device,
            "sandbox_gaps": state.renderers.sandbox_gaps,
            "state": "ready" if state.jobs.rendering and idle_state == "warming" else idle_state,
            "slots": {"total": total, "free": max(0, total - state.jobs.rendering)},
            "max_bytes": state.settings.max_bytes,
            "max_duration_s": state.settings.max_duration_s,
            "kinds": model_digests(),
            "paces": served_paces(),
            "hardware": state.kind,
        }
        return JSONResponse(body, headers=_NO_STORE)

    async def put_audio(self, request: Request) -> Response:
        return await self._put(request, AUDIO)

    async def put_reference(self, request: Request) -> Response:
        number = request.path_params["number"]
        if number >= self._state.settings.max_references:
            allowed = self._state.settings.max_references
            return refused(400, f"At most {allowed} references are taken, numbered from 0.")
        return await self._put(request, f"references/{number}")

    async def _put(self, request: Request, part: str) -> Response:
        """201; 409 if it is there, 413 if it is too large, 503 where there is no room, 408 where it stands still."""
        job_id, stated = _job_id(request), request.headers.get("content-length", "")
        try:
            memory = self._state.jobs.receive(job_id, part, int(stated[:20]) if stated.isdecimal() else None)
        except UploadConflict:
            return refused(409, "This part of the job is here already, or the job takes no more.")
        except Fault as fault:
            return problem(fault)
        is_whole = False
        try:
            await self._receive(request, memory)
            is_whole = True
        except ClientDisconnect:
            return Response(status_code=400)
        except TimeoutError:
            return problem(Fault(FaultCode.DEADLINE, "The upload stood still, or took too long."))
        except ValueError:
            return refused(409, "The job was deleted while its upload was on the way.")
        except Fault as fault:
            return problem(fault)
        finally:
            self._state.jobs.received(job_id, part, memory, is_whole)
        return Response(status_code=201, headers=_NO_STORE)

    async def _receive(self, request: Request, memory: MemoryFile) -> None:
        """Write the request's body to the file. Raises Fault, TimeoutError; ValueError once the job was deleted."""
        settings, jobs = self._state.settings, self._state.jobs
        chunks = request.stream()
        async with asyncio.timeout(settings.upload_s):
            while True:
                async with asyncio.timeout(settings.stall_s):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                jobs.check_size(memory.size + len(chunk))
                jobs.check_memory(len(chunk))
                memory.write(chunk)

    async def get_output(self, request: Request) -> Response:
        job = self._state.jobs.get(_job_id(request))
        name = request.path_params["name"]
        memory = job.outputs.get(name) if job and job.is_over else None
        if memory is None:
            return refused(404, "There is no such output. It is kept for a minute after the render.")
        headers = {**_NO_STORE, "content-length": str(memory.size), "x-content-type-options": "nosniff"}
        return StreamingResponse(_pieces(memory), headers=headers, media_type=_media_type(name))

    async def show(self, request: Request) -> Response:
        """What is held of the job: names of its inputs and outputs. 404 where that is nothing."""
        job = self._state.jobs.get(_job_id(request))
        if job is None:
            return refused(404, "Nothing is held here of such a job.")
        return JSONResponse({"inputs": sorted(job.inputs), "outputs": sorted(job.outputs)}, headers=_NO_STORE)

    async def delete(self, request: Request) -> Response:
        self._state.jobs.forget(_job_id(request))
        return Response(status_code=204, headers=_NO_STORE)


def _media_type(output: str) -> str:
    """The media type of an output by its name; kinds that have one of the same name mean the same by it."""
    return next((kind.outputs[output].media_type for kind in served_kinds().values() if output in kind.outputs), _BYTES)


async def _pieces(memory: MemoryFile) -> AsyncIterator[bytes]:
    """The file's bytes. The connection ends if the file is closed meanwhile: nobody gets another job's bytes."""
    at = 0
    while at < memory.size:
        piece = memory.read(at)
        at += len(piece)
        yield piece


def _job_id(request: Request) -> str:
    found: str = request.path_params["job"]
    if not _ID.fullmatch(found):
        raise HTTPException(404)
    return found
