"""The processes that render: kept warm ahead of need, one for each render, killed when it ends however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mastering.contract import Fault, FaultCode
from mastering.runtime import child_process

_START_S = 180.0
_MAX_PACKET_BYTES = 64 * 1024
_MAX_DESCRIPTORS = 64
_MOST_BACKOFF_S = 30.0
_PASSED_ON = ("PYTHONPATH", "HOME", "TMPDIR", "MASTERING_PRESETS")


@dataclass
class Message:
    """One packet of a rendering process; `descriptors` belong to whoever reads it, who closes them."""

    body: dict[str, Any]
    descriptors: list[int]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class RenderProcess:
    """One rendering process that is ready, seen from the worker."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self.device = ""

    @classmethod
    async def start(cls, engine: str, helper: str | None = None) -> RenderProcess:
        """`helper` is of use to renders that ask for it (`child`). Raises Fault(internal) where it does not come up."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            process = await child_process.start(
                child_process.python("mastering.worker.child", theirs.fileno(), engine, *([helper] if helper else [])),
                # A process that parses strangers' audio knows none of the worker's secrets.
                child_process.environment(_PASSED_ON, child_process.RENDER_PREFIXES),
                [theirs.fileno()],
                start_new_session=True,
            )
        renderer = cls(process, ours)
        try:
            async with asyncio.timeout(_START_S):
                renderer.device = (await renderer.read()).body["ready"]["device"]
        except BaseException as error:
            await renderer.end()
            if isinstance(error, TimeoutError):
                raise Fault(FaultCode.INTERNAL, "The rendering process did not start in time.") from None
            raise
        return renderer

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    def ask(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Hand a render over. A process that has died meanwhile shows at the next `read`."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)

    async def read(self) -> Message:
        """The next packet. Raises Fault(internal, out_of_memory) when the process is gone."""
        await _readable(self._control)
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, _MAX_PACKET_BYTES, _MAX_DESCRIPTORS)
        except ConnectionResetError:
            packet, descriptors = b"", []
        if not packet:
            raise _post_mortem(await self._process.wait())
        return Message(json.loads(packet), descriptors)

    async def end(self) -> None:
        """Kill it, if it still runs, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._control.close()
        await self._process.wait()


def _post_mortem(status: int) -> Fault:
    if status == -signal.SIGKILL:
        # Nobody here killed it: on a machine without memory to spare the kernel does.
        return Fault(FaultCode.OUT_OF_MEMORY, "The rendering process was killed, most likely for want of memory.")
    return Fault(FaultCode.INTERNAL, "The rendering process ended in the middle of its work.", status=status)


async def _readable(source: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(source.fileno(), wake)
    try:
        await ready
    finally:
        loop.remove_reader(source.fileno())


@dataclass
class RenderPool:
    """Keeps `spare` processes warm. `take` hands one out and starts its successor at once."""

    engine: str
    spare: int
    helper: str | None = None
    device: str = "unknown"
    failures: int = 0
    """Starts that failed in a row."""
    _warming: list[asyncio.Task[RenderProcess]] = field(default_factory=list)
    _closed: bool = False

    def start(self) -> None:
        while len(self._warming) < self.spare and not self._closed:
            self._warming.append(asyncio.create_task(self._warm()))

    @property
    def is_warm(self) -> bool:
        return any(task.done() and not task.cancelled() for task in self._warming)

    def check_warm(self) -> None:
        """Raises Fault(busy) where no process is ready."""
        if not self.is_warm:
            raise Fault(FaultCode.BUSY, "This worker is still warming up. Ask again soon.", retry_after_s=2)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[RenderProcess]:
        """A process for one render; it is gone when the block ends."""
        renderer = await self._next()
        try:
            yield renderer
        finally:
            # Shielded: a cancelled exchange must not leave its process behind.
            await asyncio.shield(renderer.end())

    async def close(self) -> None:
        self._closed = True
        for task in self._warming:
            task.cancel()
        for outcome in await asyncio.gather(*self._warming, return_exceptions=True):
            if isinstance(outcome, RenderProcess):
                await outcome.end()
        self._warming.clear()

    async def _next(self) -> RenderProcess:
        while True:
            # A warm one before one that still starts.
            self._warming.sort(key=lambda task: not task.done())
            task = self._warming.pop(0)
            self.start()
            try:
                renderer = await asyncio.shield(task)
            except asyncio.CancelledError:
                self._warming.insert(0, task)
                raise
            if renderer.is_alive:
                return renderer
            await renderer.end()

    async def _warm(self) -> RenderProcess:
        while True:
            try:
                renderer = await RenderProcess.start(self.engine, self.helper)
            except Fault:
                self.failures += 1
                await asyncio.sleep(min(_MOST_BACKOFF_S, 0.5 * 2**self.failures))
                continue
            self.failures = 0
            self.device = renderer.device
            return renderer
