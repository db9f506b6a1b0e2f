"""What the tests of every store of audio do with one: fill it, break off, read it back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from router.core.buffers import WriteBuffer
from router.core.threads import run_in_thread
from router.spool import records
from router.spool.port import Blobs, Extent
from tests.services import pieces

RECORD = records.RECORD_BYTES
FAR_S = 1e9


def audio(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


async def stored(spool: Blobs, data: bytes, expires_s: float = FAR_S) -> str:
    ref = await spool.reserve(len(data), expires_s)
    assert await spool.append(ref, 0, pieces(data, 60_000), len(data)) == Extent(len(data), complete=True)
    return ref


async def read(spool: Blobs, ref: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in spool.read(ref, start, end)])


class ConnectionBroke(Exception):
    pass


async def breaking_off(data: bytes, at: int) -> AsyncIterator[bytes]:
    yield data[:at]
    raise ConnectionBroke


async def begun(spool: Blobs, data: bytes, at: int, total: int) -> str:
    """An upload that broke off after `at` bytes."""
    ref = await spool.reserve(total, FAR_S)
    with pytest.raises(ConnectionBroke):
        await spool.append(ref, 0, breaking_off(data, at), total)
    return ref


class Mixed:
    """A body that fills its room three times on the loop, then several records in a thread, and so on."""

    def __init__(self, data: bytes, before_thread: Callable[[], None] = lambda: None) -> None:
        self._rest = memoryview(data)
        self._turns = 0
        self._before_thread = before_thread

    async def fill(self, room: WriteBuffer) -> bool:
        self._turns += 1
        if self._turns % 4:
            self._put(room, len(room.free_view))
        else:
            await run_in_thread(self._in_thread, room)
        return bool(self._rest)

    def _in_thread(self, room: WriteBuffer) -> None:
        self._before_thread()
        for _ in range(3):
            if self._rest and not room.free_view:
                room.flush()
            self._put(room, RECORD - 1000)
        if self._rest and not room.free_view:
            room.flush()

    def _put(self, room: WriteBuffer, count: int) -> None:
        taken = min(count, len(room.free_view), len(self._rest))
        room.free_view[:taken] = self._rest[:taken]
        room.commit(taken)
        self._rest = self._rest[taken:]
