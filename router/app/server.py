"""Running the router as a process: its sockets, its servers, and what runs beside them for as long as they do."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import typer
import uvicorn
from fastapi import FastAPI

from router.admin.app import make_admin
from router.app import local_workers, startup
from router.app.asgi import make_app
from router.core import event_log
from router.core.command_error import CommandError
from router.core.errors import Problem
from router.core.settings import RouterSettings, read_settings
from router.http import connection, problems
from router.http.security_headers import ALWAYS
from router.jobs.services import Services

_REMOVE_LOGS_EVERY_S = 3600
"""Log files are of a day each, so an hour is soon enough."""
ADMIN_PORT = 8081
"""Where `router run` serves the operators' page, if it is free, and where its verbs look for it."""


def serve(options: Mapping[str, Any]) -> None:
    """Serve until interrupted. Raises CommandError."""
    _serve(read_settings(**options), [])


def run(options: Mapping[str, Any], worker_count: int) -> None:
    """Serve with workers of our own on loopback. Raises CommandError."""
    reserved = [local_workers.reserve_port() for _ in range(worker_count)]
    # A person's own machine, one guest: swap is worth a warning there, not a refusal.
    own: dict[str, object] = {} if "ROUTER_RAM_CHECK" in os.environ else {"ram_check": "warn"}
    if "ROUTER_ADMIN_PORT" not in os.environ and _is_free(ADMIN_PORT):
        own["admin_port"] = ADMIN_PORT
    urls = tuple(_address(one) for one in reserved)
    # Nobody else on this machine may speak to our workers: they know a key of ours alone.
    key = {} if "ROUTER_WORKER_SECRET" in os.environ else {"worker_secret": secrets.token_hex(32)}
    try:
        _serve(read_settings(**{**own, **options, "workers": urls, **key}), reserved)
    finally:
        for one in reserved:
            one.close()


def _serve(settings: RouterSettings, reserved: Sequence[socket.socket]) -> None:
    startup.check_folders(settings)
    remove_old_logs = startup.prepare_process(settings)
    with ExitStack() as sockets:
        listening = sockets.enter_context(_listen(settings.host, settings.port))
        operators = None
        if settings.admin_port is not None:
            operators = sockets.enter_context(_listen(settings.admin_host, settings.admin_port))
        app = make_app(
            settings,
            beside=lambda: _beside(settings, reserved, remove_old_logs),
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
        ws="none",  # with the package websockets installed each Upgrade would keep a place for ever
    )


@asynccontextmanager
async def _operators_port(services: Services, listening: socket.socket | None) -> AsyncIterator[None]:
    """Serve the operators' port while the context is open."""
    if listening is None:
        yield
        return
    server = _OperatorsServer(_config(make_admin(services)))
    task = asyncio.create_task(server.serve(sockets=[listening]), name="operators' port")
    try:
        typer.echo(f"Operators: {_address(listening)}")
        yield
    finally:
        server.should_exit = True
        await task


class _Connection(connection.RouterConnection):
    """A connection whose answers to what is no HTTP are this service's own."""

    malformed = problems.as_bytes(Problem("bad_request", "This is not HTTP/1.1. Send a whole, valid request."), ALWAYS)
    upgrading = problems.as_bytes(
        Problem("bad_request", "Only HTTP/1.1 is spoken here. Send this without Upgrade (curl: without --http2)."),
        ALWAYS,
    )
    unknown_coding = problems.as_bytes(
        Problem("transfer_coding", "Send the body as it is, with Content-Length or Transfer-Encoding: chunked."), ALWAYS
    )
    cut_short = problems.as_bytes(
        Problem("bad_request", "The request ended before it was whole. Send all that its head announces."), ALWAYS
    )


class _OperatorsServer(uvicorn.Server):
    """The second server in the process: signals belong to the first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Server(uvicorn.Server):
    """The server of the page and the API: says where it listens, and ends event streams before it stops."""

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
    except OSError as error:
        listening.close()
        raise CommandError(_why_not_listening(error, host, port)) from None
    return listening


def _why_not_listening(error: OSError, host: str, port: int) -> str:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine. Give one of its own by --host or ROUTER_HOST."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs rights that this user has not. Choose one above 1023, behind a proxy (ops/)."
    return f"port {port} on {host} is taken. Choose another one, by --port or ROUTER_PORT."


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@asynccontextmanager
async def _beside(
    settings: RouterSettings, reserved: Sequence[socket.socket], remove_old_logs: Callable[[], int]
) -> AsyncIterator[None]:
    """What runs for as long as the router does: its own workers, and the removal of old log files."""
    removing = asyncio.create_task(_remove_logs_for_ever(remove_old_logs), name="log retention")
    try:
        async with local_workers.running_workers(settings, reserved):
            yield
    finally:
        removing.cancel()
        await asyncio.gather(removing, return_exceptions=True)


async def _remove_logs_for_ever(remove_old_logs: Callable[[], int]) -> None:
    while True:
        await asyncio.sleep(_REMOVE_LOGS_EVERY_S)
        try:
            if gone := remove_old_logs():
                event_log.log("logs_removed", count=gone)
        except OSError as error:  # the next hour tries again
            event_log.log_exception(error)
