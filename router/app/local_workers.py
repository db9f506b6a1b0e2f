"""The router's own workers: processes on loopback for `router run`, started again when they die.

A worker gets its own settings and none of the router's: no sign-in secret, no pepper, no token of the Hub.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from mastering.contract import kinds
from mastering.runtime import child_process
from router.core import event_log
from router.core.settings import RouterSettings

_RESTART_S = (0.2, 5.0)
"""Seconds from a worker's end to its next start, doubled each time up to the second, and reset by a longer life."""
_RELAY_BYTES = 64 * 1024
"""The longest line of a worker's log that is read as one."""
_KEPT = ("HOME", "TMPDIR", "MASTERING_PRESETS", kinds.VARIABLE)
_KEPT_PREFIXES = (*child_process.RENDER_PREFIXES, "MASTERING_WORKER_", "MASTERING_TEST_", "LC_", "PYTHON")
"""Beside what every program gets: a worker's settings, and what steers the interpreter and a render's libraries."""


def reserve_port(port: int = 0) -> socket.socket:
    """A port of loopback that is ours from now on: bound and never listened on, so that nobody else takes it while no
    worker of ours does, and a caller is refused at once. Sockets of the same user may be bound beside it.

    0 takes a free one. Raises OSError.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", port))
    return reserved


@asynccontextmanager
async def running_workers(settings: RouterSettings, reserved: Sequence[socket.socket]) -> AsyncIterator[None]:
    """A worker on each reserved port, started again when it dies, while the context is open."""
    secret = settings.worker_secret.get_secret_value() if settings.worker_secret else ""
    keys = {"MASTERING_WORKER_KEYS": json.dumps({settings.worker_key_id: secret})} if secret else {}
    ports = [int(one.getsockname()[1]) for one in reserved]
    running = [asyncio.create_task(_keep_running(port, keys)) for port in ports]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _keep_running(port: int, keys: Mapping[str, str]) -> None:
    """A worker on `port`, and another one whenever it ends, until cancelled."""
    wait_s, longest_s = _RESTART_S
    while True:
        process = await _start(port, keys)
        started = asyncio.get_running_loop().time()
        try:
            await relay_log(process)
            event_log.log("own_worker", said="ended", status=await process.wait())
        finally:
            if process.returncode is None:
                process.terminate()
                await relay_log(process)
                await process.wait()
        lived_s = asyncio.get_running_loop().time() - started
        wait_s = _RESTART_S[0] if lived_s > longest_s else min(longest_s, wait_s * 2)
        await asyncio.sleep(wait_s)


async def _start(port: int, keys: Mapping[str, str]) -> asyncio.subprocess.Process:
    with reserve_port(port) as bound:  # the worker listens on it; the port is refused again when the worker is gone
        return await child_process.start(
            child_process.python("mastering.worker", "--fd", bound.fileno()),
            child_process.environment(_KEPT, _KEPT_PREFIXES, keys),
            [bound.fileno()],
            stdout=child_process.PIPE,
            stderr=child_process.STDOUT,
        )


async def relay_log(process: asyncio.subprocess.Process) -> None:
    """Pass a worker's known log events on until it has ended; all else that it writes is dropped and counted."""
    assert process.stdout is not None  # noqa: S101 — for the type checker; it was asked for
    rest = b""
    while chunk := await process.stdout.read(_RELAY_BYTES):
        *lines, rest = (rest[-_RELAY_BYTES:] + chunk).split(b"\n")
        for line in lines:
            _relay_line(line)
    event_log.book.dropped += bool(rest)


def _relay_line(line: bytes) -> None:
    said: dict[str, Any] = {}
    with suppress(ValueError, TypeError):
        said = dict(json.loads(line))
    if event_log.EVENTS["own_worker"]["said"].admits(said.get("event")):
        event_log.log(
            "own_worker", said=said["event"], **{name: said[name] for name in ("type", "at", "gaps") if name in said}
        )
    else:
        event_log.book.dropped += 1
