"""Running the router as a process: its socket, its server, and workers of its own where they are wanted.

(Over 250 lines: the lives of the server and of what runs beside it begin and end together.)
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import typer
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from mastering.runtime import sandbox
from router.admin.app import make_admin
from router.app.asgi import make_app
from router.core import event_log
from router.core.command_error import CommandError
from router.core.errors import Problem
from router.core.settings import RouterSettings
from router.http import connection, problems
from router.http.security_headers import ALWAYS
from router.jobs.services import Services

_PR_SET_PDEATHSIG = 1
_RESTART_S = (0.2, 5.0)
_SWEEP_EVERY_S = 3600
_RELAY_BYTES = 64 * 1024
ADMIN_PORT = 8081
"""Where `router run` serves the operators' page, if it is free, and where its verbs look for it."""


def serve(options: Mapping[str, Any]) -> None:
    """Serve until interrupted. Raises Complaint."""
    _serve(_settings(options), [])


def run(options: Mapping[str, Any], local_workers: int) -> None:
    """Serve with workers of our own on loopback. Raises Complaint."""
    claims = [_claim() for _ in range(local_workers)]
    # A person's own machine, one guest: swap is worth a warning there, not a refusal.
    own: dict[str, object] = {} if "ROUTER_RAM_CHECK" in os.environ else {"ram_check": "warn"}
    if "ROUTER_ADMIN_PORT" not in os.environ and _is_free(ADMIN_PORT):
        own["admin_port"] = ADMIN_PORT
    urls = tuple(_address(claim) for claim in claims)
    # Nobody else on this machine may speak to our workers: they know a key of ours alone.
    key = {} if "ROUTER_WORKER_SECRET" in os.environ else {"worker_secret": secrets.token_hex(32)}
    settings = _settings({**own, **options, "workers": urls, **key})
    _serve(settings, claims)


def _settings(options: Mapping[str, Any]) -> RouterSettings:
    try:
        return RouterSettings(**options)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise CommandError(f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}.", exit_code=2) from None


def _serve(settings: RouterSettings, claims: Sequence[socket.socket]) -> None:
    sandbox.forbid_core_dumps()
    sandbox.keep_memory_private()  # keys and audio pass through it
    sweep = event_log.configure(settings.log_dir)
    listening = _listen(settings.host, settings.port)
    operators = None if settings.admin_port is None else _listen(settings.admin_host, settings.admin_port)
    app = make_app(
        settings,
        beside=lambda: _beside(settings, claims, sweep),
        within=lambda services: _operators_port(services, operators),
    )
    try:
        _Server(_config(app)).run(sockets=[listening])
    except SystemExit:  # how the server ends a start that failed
        raise getattr(app.state, "command_error", CommandError("the start failed.")) from None


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=10,
        http=_Connection,
    )


@asynccontextmanager
async def _operators_port(services: Services, listening: socket.socket | None) -> AsyncIterator[None]:
    """Serve the operators' port while the context is open."""
    if listening is None:
        yield
        return
    server = _Quiet(_config(make_admin(services)))
    task = asyncio.create_task(server.serve(sockets=[listening]), name="operators' port")
    try:
        typer.echo(f"Operators: {_address(listening)}")
        yield
    finally:
        server.should_exit = True
        await task


class _Connection(connection.RouterConnection):
    malformed = problems.as_bytes(Problem("bad_request", "This is not HTTP/1.1. Send a whole, valid request."), ALWAYS)
    upgrading = problems.as_bytes(
        Problem("bad_request", "Only HTTP/1.1 is spoken here. Send this without Upgrade (curl: without --http2)."),
        ALWAYS,
    )


class _Quiet(uvicorn.Server):
    """A second server in the process: signals belong to the first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services | None = getattr(getattr(self.config.app, "state", None), "services", None)
        if services is not None:
            services.events.close()  # an open event stream would hold the stop for as long as it may take
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            typer.echo(f"Ready: {_address(sockets[0])}  (stop with Ctrl+C)")
            sys.stdout.flush()


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise CommandError(f"port {port} on {host} is taken or not ours. Choose another one.") from None
    return listening


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _claim(port: int = 0) -> socket.socket:
    """A port of loopback that is ours from now on: bound and never listened on, so that nobody else takes it while no
    worker of ours does, and a caller is refused at once. Sockets of the same user may be bound beside it."""
    claim = socket.socket()
    claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    claim.bind(("127.0.0.1", port))
    return claim


@asynccontextmanager
async def _beside(
    settings: RouterSettings, claims: Sequence[socket.socket], sweep: Callable[[], int]
) -> AsyncIterator[None]:
    """What runs beside the router in its process: the keepers of its own workers, and of the log's age."""
    sweeping = asyncio.create_task(_sweep_for_ever(sweep), name="log retention")
    try:
        async with _workers(settings, claims):
            yield
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)


async def _sweep_for_ever(sweep: Callable[[], int]) -> None:
    while True:
        await asyncio.sleep(_SWEEP_EVERY_S)
        try:
            if gone := sweep():
                event_log.log("logs_removed", count=gone)
        except OSError as error:  # the next hour tries again
            event_log.log_exception(error)


@asynccontextmanager
async def _workers(settings: RouterSettings, claims: Sequence[socket.socket]) -> AsyncIterator[None]:
    """Workers of our own, restarted when they die, while the context is open."""
    secret = settings.worker_secret.get_secret_value() if settings.worker_secret else ""
    keys = {"MASTERING_WORKER_KEYS": json.dumps({settings.worker_key_id: secret})} if secret else {}
    ports = [int(claim.getsockname()[1]) for claim in claims]
    keepers = [asyncio.create_task(_keep_alive(port, keys)) for port in ports]
    try:
        yield
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


async def _keep_alive(port: int, keys: Mapping[str, str]) -> None:
    wait_s, longest_s = _RESTART_S
    while True:
        with _claim(port) as bound:  # the worker listens on it; the port is refused again when the worker is gone
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mastering.worker", "--fd", str(bound.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                preexec_fn=_die_with_parent,
                env={**os.environ, **keys},
                pass_fds=[bound.fileno()],
            )
        started = asyncio.get_running_loop().time()
        try:
            await _relay(process)
            event_log.log("own_worker", said="ended", status=await process.wait())
        finally:
            if process.returncode is None:
                process.terminate()
                await _relay(process)
                await process.wait()
        lived_s = asyncio.get_running_loop().time() - started
        wait_s = _RESTART_S[0] if lived_s > longest_s else min(longest_s, wait_s * 2)
        await asyncio.sleep(wait_s)


async def _relay(process: asyncio.subprocess.Process) -> None:
    """What a worker of ours says, until it has ended: its known events pass on, all else is dropped and counted."""
    assert process.stdout is not None  # noqa: S101 — for the type checker; it was asked for
    rest = b""
    while chunk := await process.stdout.read(_RELAY_BYTES):
        *lines, rest = (rest[-_RELAY_BYTES:] + chunk).split(b"\n")
        for line in lines:
            _pass_on(line)
    event_log.book.dropped += bool(rest)


def _pass_on(line: bytes) -> None:
    said: dict[str, Any] = {}
    with suppress(ValueError, TypeError):
        said = dict(json.loads(line))
    if event_log.EVENTS["own_worker"]["said"].admits(said.get("event")):
        event_log.log("own_worker", said=said["event"], **{name: said[name] for name in ("type", "at") if name in said})
    else:
        event_log.book.dropped += 1


def _die_with_parent() -> None:
    """In the child, before it runs: a router that is killed takes its own workers with it (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
