"""The processes that render: kept ready ahead of need, one for each render, killed when it ends however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mastering.contract import Fault, FaultCode
from mastering.worker.render_process import RenderForkServer, RenderProcess

_MOST_BACKOFF_S = 30.0


@dataclass
class RenderPool:
    """Keeps `spare` processes ready. `take` hands one out and has its successor forked at once.

    `preparation` is of use to renders that ask for it (`child.RenderProgram`). None is handed out whose sandbox lacks
    something, unless `allows_incomplete_sandbox`.
    """

    engine: str
    spare: int
    preparation: str | None = None
    allows_incomplete_sandbox: bool = False
    device: str = "unknown"
    failures: int = 0
    """Starts that failed in a row."""
    sandbox_gaps: tuple[str, ...] = ()
    """What the sandbox should refuse a rendering process and does not."""
    _warming: list[asyncio.Task[RenderProcess]] = field(default_factory=list)
    _closed: bool = False
    _fork_server: RenderForkServer = field(init=False)

    def __post_init__(self) -> None:
        self._fork_server = RenderForkServer(self.engine, self.preparation)

    def start(self) -> None:
        while len(self._warming) < self.spare and not self._closed:
            self._warming.append(asyncio.create_task(self._warm()))

    @property
    def is_warm(self) -> bool:
        return any(task.done() and not task.cancelled() for task in self._warming)

    @property
    def is_refused(self) -> bool:
        """Whether nothing is rendered here: the sandbox lacks something, and nobody has allowed that."""
        return bool(self.sandbox_gaps) and not self.allows_incomplete_sandbox

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
        await self._fork_server.end()

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
                renderer = await RenderProcess.start(self._fork_server)
            except Fault:
                self.failures += 1
                await asyncio.sleep(min(_MOST_BACKOFF_S, 0.5 * 2**self.failures))
                continue
            self.failures = 0
            self.device, self.sandbox_gaps = renderer.device, renderer.sandbox_gaps
            if not self.is_refused:
                return renderer
            await renderer.end()
            await asyncio.Event().wait()  # until the server, which looks at `is_refused`, has stopped
