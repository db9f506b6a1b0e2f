"""A rendering process and its fork server, as the worker sees them: their start, what they are told, their end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
from dataclasses import dataclass
from typing import Any

from mastering.contract import Fault, FaultCode, accepted_numbers, kinds
from mastering.protocol.frames import MAX_MESSAGE
from mastering.runtime import child_process

_START_S = 180.0
_END_S = 2.0
"""A fork server that does not end by itself in this time is killed: it is frozen, or still imports the engine."""
_MAX_PACKET_BYTES = 64 * 1024
_MAX_DESCRIPTORS = 64
_PASSED_ON = ("PYTHONPATH", "HOME", "TMPDIR", "MASTERING_PRESETS", kinds.VARIABLE)


@dataclass
class Message:
    """One packet that a rendering process sent; its reader closes the `descriptors`."""

    body: dict[str, Any]
    descriptors: list[int]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class RenderForkServer:
    """The worker's handle of the process that forks rendering processes (`fork_server`).

    It is started with the first fork, and again after it has died.
    """

    def __init__(self, engine: str, preparation: str | None = None) -> None:
        self._functions = [engine, *([preparation] if preparation else [])]
        self._running: tuple[asyncio.subprocess.Process, socket.socket] | None = None
        self._starting = asyncio.Lock()

    async def fork(self) -> socket.socket:
        """Have a rendering process forked and return the worker's end of its socket.

        Raises OSError where the fork server can't be started or reached.
        """
        control = await self._control()
        ours, theirs = _socket_pair()
        with theirs:
            try:
                socket.send_fds(control, [b"+"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    async def end(self) -> None:
        """End the fork server, which ends the rendering processes and all that they have begun."""
        if self._running is None:
            return
        process, control = self._running
        self._running = None
        control.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await process.wait()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _control(self) -> socket.socket:
        """Our end of its socket."""
        async with self._starting:
            if self._running is not None and self._running[0].returncode is None:
                return self._running[1]
            await self.end()
            ours, theirs = _socket_pair()
            with theirs:
                command = child_process.python("mastering.worker.fork_server", theirs.fileno(), *self._functions)
                # Processes that parse strangers' audio know none of the worker's secrets.
                known = child_process.environment(_PASSED_ON, child_process.RENDER_PREFIXES)
                process = await child_process.start(command, known, [theirs.fileno()], start_new_session=True)
            self._running = process, ours
            return ours


class RenderProcess:
    """The worker's handle of one rendering process: it renders one song and is killed."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pidfd: int | None = None
        self.pid = 0
        self.device = ""
        self.sandbox_gaps: tuple[str, ...] = ()
        """What the sandbox should refuse and does not (`sandbox_check`)."""

    @classmethod
    async def start(cls, fork_server: RenderForkServer) -> RenderProcess:
        """Have a rendering process forked and wait until it is ready. Raises Fault(internal)."""
        try:
            renderer = cls(await fork_server.fork())
        except OSError:
            raise Fault(FaultCode.INTERNAL, "The rendering process could not be started.") from None
        try:
            async with asyncio.timeout(_START_S):
                await renderer._become_ready()
        except BaseException as error:
            await renderer.end()
            if isinstance(error, TimeoutError):
                raise Fault(FaultCode.INTERNAL, "The rendering process did not start in time.") from None
            raise
        return renderer

    @property
    def is_alive(self) -> bool:
        poll = select.poll()
        if self._pidfd is not None:
            poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def ask(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Send what is asked, and the inputs' descriptors. That the process has died shows at the next `read`."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)

    async def read(self) -> Message:
        """Wait for the next packet. Raises Fault(internal, out_of_memory) when the process is gone."""
        await wait_until_readable(self._control.fileno())
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, _MAX_PACKET_BYTES, _MAX_DESCRIPTORS)
        except ConnectionResetError:
            packet, descriptors = b"", []
        message = Message(json.loads(packet or b'{"ended": null}'), descriptors)
        if "ended" in message.body:
            message.close()
            raise _post_mortem(message.body["ended"])
        return message

    async def end(self) -> None:
        """Kill the rendering process, if it still runs, and wait until it is gone."""
        self._control.close()
        if self._pidfd is None:
            return  # it has begun nothing, and ends by itself now that its socket is closed
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        await wait_until_readable(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = None

    async def _become_ready(self) -> None:
        """The fork server's word and the process's own come in either order, and before any song does: a process that
        a song has taken over can't name another one to be killed."""
        while self._pidfd is None or not self.device:
            message = await self.read()
            if "forked" in message.body:
                if not message.descriptors:  # this process may open no more
                    raise Fault(FaultCode.INTERNAL, "The rendering process could not be taken over.")
                self.pid, self._pidfd = message.body["forked"], message.descriptors[0]
            else:
                ready = message.body["ready"]
                self.device, self.sandbox_gaps = ready["device"], tuple(ready["sandbox_gaps"])


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Ours, which never blocks, and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def _post_mortem(status: int | None) -> Fault:
    """Why a process ended, by its exit code as `subprocess` gives it; None where nobody could tell."""
    if status == -signal.SIGKILL:
        # Nobody here killed it: on a machine without memory to spare the kernel does.
        return Fault(FaultCode.OUT_OF_MEMORY, "The rendering process was killed, most likely for want of memory.")
    if status == -signal.SIGXCPU:
        sentence = (
            "This song took more processor time than an honest recording of its length. Export it as WAV or FLAC."
        )
        return Fault(FaultCode.RESOURCE_LIMIT, sentence)
    numbers = {} if status is None else {"status": status}
    return Fault(FaultCode.INTERNAL, "The rendering process ended in the middle of its work.", **numbers)


def fault_of(said: Any) -> Fault:
    """The fault that a rendering process tells of. A song may have taken it over: what is no fault is one of ours."""
    try:
        numbers = accepted_numbers(said["numbers"])
        return Fault(FaultCode(said["code"]), str(said["message"])[:MAX_MESSAGE], **numbers)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Fault(FaultCode.INTERNAL, "The rendering process said what no honest one does.")


async def wait_until_readable(descriptor: int) -> None:
    """Wait until a descriptor that asyncio has no transport for can be read, or its other end is closed."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
