"""Relays gradient descents from a rendering process, which has no GPU, to the function that has one.

The function is a generator that may block (ZeroGPU queues for a GPU in it), so every step of it is taken in a thread;
to close it frees the GPU at its next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Generator, Iterator
from types import TracebackType
from typing import TypeVar, cast

from mastering.worker.render_process import Message, RenderProcess

DescendFunction = Callable[[bytes], Iterator[float | bytes]]
"""A request in bytes → fractions done, then the result in bytes: `gpu_descent.run_descent`, as ZeroGPU wraps it."""
Answer = TypeVar("Answer")


class ZeroGpuError(Exception):
    """The descent failed; the cause is the error of the `spaces` package: quota, queue, a GPU task that was aborted."""


class DescentRelay:
    """The descents of one render; one that still runs is stopped when the `with` block ends."""

    def __init__(self, descend: DescendFunction | None, renderer: RenderProcess) -> None:
        self._descend = descend
        self._renderer = renderer
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> DescentRelay:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._work is not None:
            self._work.cancel()

    def begin(self, request: Message) -> None:
        """Start the descent that the process asked for; its progress and its result go straight back."""
        with contextlib.closing(request):
            data = os.pread(request.descriptors[0], os.fstat(request.descriptors[0]).st_size, 0)
        self._work = asyncio.create_task(self._steps(data))

    async def or_fail(self, reading: Awaitable[Answer]) -> Answer:
        """What `reading` gives, unless the descent fails before. Raises ZeroGpuError."""
        read = asyncio.ensure_future(reading)
        try:
            waiting = {read} if self._work is None or self._work.done() else {read, self._work}
            while not read.done():
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                self._check()
                waiting = {read}
            self._check()
            return read.result()
        finally:
            read.cancel()

    def _check(self) -> None:
        if self._work is not None and self._work.done() and (error := self._work.exception()) is not None:
            raise ZeroGpuError from error

    async def _steps(self, request: bytes) -> None:
        assert self._descend is not None  # noqa: S101 - without one, `rendering` asks for no relay
        steps = cast("Generator[float | bytes]", self._descend(request))
        step: asyncio.Future[float | bytes | None] | None = None
        try:
            while True:
                # The thread sees the call's own context: ZeroGPU reads from it whose quota this is.
                step = asyncio.ensure_future(asyncio.to_thread(next, steps, None))
                result = await asyncio.shield(step)
                if result is None:
                    return
                self._send_back(result)
        finally:
            asyncio.get_running_loop().create_task(_close(steps, step))

    def _send_back(self, result: float | bytes) -> None:
        if isinstance(result, float):
            self._renderer.ask({"tick": result}, [])
            return
        memory = os.memfd_create("found", os.MFD_CLOEXEC)
        os.write(memory, result)
        self._renderer.ask({"found": True}, [memory])
        os.close(memory)


async def _close(steps: Generator[float | bytes], step: asyncio.Future[float | bytes | None] | None) -> None:
    """Close the generator once no thread is in it: before that it can't be."""
    if step is not None:
        await asyncio.wait({step})
        if not step.cancelled():
            step.exception()
    await asyncio.to_thread(steps.close)
