"""The probe under test, and the processes behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from router.probing import Probe


async def feed(data: bytes, chunk: int = 65_536) -> AsyncIterator[bytes]:
    for at in range(0, len(data), chunk):
        yield data[at : at + chunk]


async def running_zygote(probe: Probe) -> int:
    """The zygote's pid, after it has answered once."""
    await probe.selfcheck()
    return zygote_of(probe)


async def waiting_children(probe: Probe) -> list[str]:
    """The children that the zygote has made ahead, once they are there."""
    zygote = await running_zygote(probe)
    for _ in range(50):
        seen = children_of(zygote)
        await asyncio.sleep(0.1)
        if seen != children_of(zygote):  # one of them was about to end
            continue
        if len(seen) == 2:
            return seen
        await probe.selfcheck()  # the next two are made when none is left
    raise AssertionError("no children wait")


def zygote_of(probe: Probe) -> int:
    process = probe._zygote.process
    assert process is not None
    return process.pid


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def until(condition: object, tries: int = 500) -> None:
    """Poll until `condition()` holds; five seconds at most."""
    assert callable(condition)
    for _ in range(tries):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass")
