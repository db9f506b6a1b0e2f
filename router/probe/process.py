"""The fork server of the probe, `python -m mastering.probe`, seen from the router: a child of it for each request.

It is started once, replaced when it dies, and ends with the router: when its socket closes, or by the kernel.
"""

from __future__ import annotations

import asyncio
import socket

from mastering.protocol.probe import MAX_HELLO_BYTES, TAKEN, Hello
from mastering.runtime import child_process

_START_S = 60.0
"""Longest time from its start to its first message: it imports decoders and tries each of them."""


class ProbeLost(Exception):
    """The fork server or the child of a request has ended, or a child sends what no honest one does."""


class ProbeProcess:
    """Keeps the process running from `open` to `close`, and opens a socket to a child of it for each request."""

    def __init__(self) -> None:
        self._starting = asyncio.Lock()
        self._is_open = False
        self._control: socket.socket | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.sandbox_layers: dict[str, bool] = {}

    async def open(self) -> None:
        """Start it if it does not run, and wait until it takes requests. Raises ProbeLost."""
        self._is_open = True
        await self._ensure()

    async def close(self) -> None:
        """End it and its children, for good."""
        self._is_open = False
        await self.end()

    async def end(self) -> None:
        """End it and its children; the next conversation starts another one."""
        async with self._starting:
            await self._stop()

    async def converse(self, packet: bytes) -> socket.socket:
        """A socket to a child that has `packet`, a request in JSON. Raises ProbeLost.

        A process that died since the last request is replaced, once.
        """
        for _ in range(2):
            await self._ensure()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with theirs:
                ours.setblocking(False)
                try:
                    assert self._control is not None  # noqa: S101 - _ensure has just set it
                    socket.send_fds(self._control, [packet], [theirs.fileno()])
                    theirs.close()
                    # No byte of the file is sent before a child is there to read it.
                    if await asyncio.get_running_loop().sock_recv(ours, len(TAKEN)) == TAKEN:
                        return ours
                except OSError:
                    pass  # dead or dying; ended below
                except BaseException:
                    ours.close()
                    raise
                ours.close()
                await self.end()
        raise ProbeLost

    async def _ensure(self) -> None:
        async with self._starting:
            if not self._is_open:
                raise ProbeLost
            if self.process is None or self.process.returncode is not None:
                await self._stop()
                await self._spawn()

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self.process = await child_process.start(
                child_process.python("mastering.probe", "--fork-server", theirs.fileno()),
                child_process.environment(["PYTHONPATH"]),
                [theirs.fileno()],
                start_new_session=True,
            )
        self._control = ours
        try:
            async with asyncio.timeout(_START_S):
                hello = await asyncio.get_running_loop().sock_recv(ours, MAX_HELLO_BYTES)
            self.sandbox_layers = Hello.model_validate_json(hello).ready
        except (TimeoutError, OSError, ValueError):
            await self._stop()
            raise ProbeLost from None
        except BaseException:  # a process that has not said that it is ready must not stay
            await self._stop()
            raise

    async def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        process, self.process = self.process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()
