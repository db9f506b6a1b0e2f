"""The router behind a real server on loopback, in this process, so that a test can look into its rooms meanwhile.

async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
    job = (await router.http.post("/v1/jobs")).json()
    router.jobs.services.spool.usage()
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from router.app import compose as app_module
from router.app.asgi import make_app
from router.http.connection import RouterConnection
from router.jobs.services import Services
from router.tiers.port import Backend
from tests.loopback import TLS
from tests.services import PATIENCE_S, SONG, BelievingProbe, settings_for
from tests.stack import own_ram

OVER = ("mastered", "delivered", "failed", "cancelled", "expired", "wiped")


class Served(NamedTuple):
    app: FastAPI
    http: httpx.AsyncClient
    port: int

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    async def create(self, **wanted: Any) -> dict[str, Any]:
        response = await self.http.post("/v1/jobs", json=wanted)
        assert response.status_code == 201, response.text
        return dict(response.json())

    async def send(self, song: bytes = SONG, **wanted: Any) -> dict[str, Any]:
        """A job whose song has arrived and was found good."""
        job = await self.create(**wanted)
        response = await self.http.put(f"/v1/jobs/{job['id']}/audio", content=song)
        assert response.status_code == 202, response.text
        return dict(response.json())

    async def over(self, job_id: str) -> dict[str, Any]:
        """The job when nothing more will come."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                job = (await self.http.get(f"/v1/jobs/{job_id}", headers={"prefer": "wait=5"})).json()
                if job["state"] in OVER:
                    return dict(job)

    @asynccontextmanager
    async def events(self, job_id: str, **headers: str) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, Any]]]]:
        """Id and view of each event of the job, as they come."""
        wanted = {"accept": "text/event-stream", **headers}
        async with self.http.stream("GET", f"/v1/jobs/{job_id}", headers=wanted) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            yield _events(stream.aiter_lines())

    async def raw(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which `request` has been sent as it is."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        await writer.drain()
        return reader, writer


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    event_id = ""
    async for line in lines:
        if line.startswith("id: "):
            event_id = line.removeprefix("id: ")
        elif line.startswith("data: "):
            yield event_id, json.loads(line.removeprefix("data: "))
        elif line.startswith(":"):
            yield "comment", {}


@asynccontextmanager
async def served(
    folder: Path, backends: Sequence[Backend] = (), *, probe: type | None = BelievingProbe, **settings: Any
) -> AsyncIterator[Served]:
    """A router with `backends`, and with the real probe where `probe` is None."""
    with own_ram() as ram, pytest.MonkeyPatch.context() as patch:
        if probe is not None:
            patch.setattr(app_module, "Probe", probe)
        listening = socket.create_server(("127.0.0.1", 0))
        port = int(listening.getsockname()[1])
        app = make_app(settings_for(folder, str(ram), port=port, **settings), backends)
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=1,
            http=RouterConnection,
        )
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not server.started:
                    if running.done():
                        running.result()
                        raise RuntimeError("the server ended before it was up")
                    await asyncio.sleep(0.005)
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_S, verify=TLS
            ) as http:
                yield Served(app, http, port)
        finally:
            server.should_exit = True
            await running
