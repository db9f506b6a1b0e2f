"""The probe under test, and the processes behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from router.probe.client import Probe
from tests.processes import children


async def feed(data: bytes, chunk: int = 65_536) -> AsyncIterator[bytes]:
    for at in range(0, len(data), chunk):
        yield data[at : at + chunk]


async def running_fork_server(probe: Probe) -> int:
    """The fork server's pid, after it has answered once and has its child for WAV headers."""
    await probe.selfcheck()
    await probe.start()
    return fork_server_of(probe)


async def waiting_children(probe: Probe) -> set[int]:
    """The children that the fork server has forked ahead, once they are there."""
    await running_fork_server(probe)
    header_pid = await header_child(probe)
    for _ in range(50):
        seen = decoding_children(probe, header_pid)
        await asyncio.sleep(0.1)
        if len(seen) == 2 and seen == decoding_children(probe, header_pid):  # else one of them was about to end
            return seen
    raise AssertionError("no children wait")


def decoding_children(probe: Probe, header_pid: int) -> set[int]:
    """The fork server's children, but for the one that reads WAV headers."""
    return children(fork_server_of(probe)) - {header_pid}


async def header_child(probe: Probe) -> int:
    """The child for WAV headers, once it alone is sandboxed: another one has a file, and may be about to end."""
    before: list[int] = []
    for _ in range(100):
        locked = [pid for pid in children(fork_server_of(probe)) if _is_locked_up(pid)]
        if len(locked) == 1 and locked == before and probe._wav_headers._is_open():
            return locked[0]
        before = locked
        await asyncio.sleep(0.1)
    raise AssertionError("no child reads headers")


def _is_locked_up(pid: int) -> bool:
    """It can open nothing any more: a child that waits for its file still can."""
    with suppress(OSError):
        limits = Path(f"/proc/{pid}/limits").read_text()
        return next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3] == "0"
    return False


def fork_server_of(probe: Probe) -> int:
    process = probe._process.process
    assert process is not None
    return process.pid


async def until(condition: object, tries: int = 500) -> None:
    """Poll until `condition()` holds; five seconds at most."""
    assert callable(condition)
    for _ in range(tries):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass")
