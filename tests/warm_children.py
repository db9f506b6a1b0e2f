"""Children by `child_process` that are started warm where they can be: of a warm program, or of a test itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import IO, Any

from mastering.runtime import child_process
from mastering.worker.render_process import wait_until_readable
from tests import warm_start

start_new_program, start_new_program_blocking = child_process.start, child_process.start_blocking
"""What this file takes the place of."""


def starter(addresses: Mapping[str, str]) -> Callable[..., Awaitable[Any]]:
    """What to put in the place of `child_process.start`: the fork servers at `addresses`, by module, start that one."""

    async def start(
        command: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int] = (),
        *,
        longest_line_bytes: int = 64 * 1024,
        **streams: Any,
    ) -> Any:
        match list(command):
            case [sys.executable, "-P", "-m", module, *arguments] if module in addresses:
                request = {"module": module, "arguments": arguments, "environment": dict(environment)}
                return await _start(addresses[module], request, descriptors, longest_line_bytes, streams)
        return await start_new_program(
            command, environment, descriptors, longest_line_bytes=longest_line_bytes, **streams
        )

    return start


def blocking_starter(modules: Collection[str]) -> Callable[..., Any]:
    """What to put in the place of `child_process.start_blocking` in a test's own process."""

    def start(
        command: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int] = (), **streams: Any
    ) -> Any:
        match list(command):
            case [sys.executable, "-P", "-m", module, *arguments] | [sys.executable, module, *arguments] if (
                module in modules and not descriptors
            ):
                errors, folder = streams.get("stderr"), streams.get("cwd")
                return warm_start.start(module, arguments, environment, streams["stdout"], errors, folder)
        return start_new_program_blocking(command, environment, descriptors, **streams)

    return start


def name_of_children(pid: int) -> str:
    """What the kernel calls processes that were started warm for this one (/proc/PID/comm), and all their forks."""
    return f"warm of {pid}"


class WarmChild:
    """What `asyncio.subprocess.Process` has."""

    def __init__(self, pid: int, pidfd: int, link: socket.socket) -> None:
        self.pid = pid
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._link = link
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(link, self._end)

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError."""
        if self.returncode is not None:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._link)
        self.returncode = warm_start.exit_code(self._link)
        self._link.close()
        os.close(self._pidfd)
        self._ended.set()


async def _start(
    address: str,
    request: dict[str, Any],
    descriptors: Sequence[int],
    longest_line_bytes: int,
    streams: Mapping[str, Any],
) -> WarmChild:
    loop = asyncio.get_running_loop()
    ours: dict[int, IO[bytes]] = {}
    theirs = {number: number for number in descriptors}
    opened = []
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        match streams.get(name, subprocess.DEVNULL):
            case subprocess.PIPE:
                reader, writer = os.pipe()
                kept, theirs[number] = (writer, reader) if number == 0 else (reader, writer)
                ours[number] = os.fdopen(kept, "wb" if number == 0 else "rb", buffering=0)
                opened.append(theirs[number])
            case subprocess.DEVNULL:
                theirs[number] = os.open(os.devnull, os.O_RDWR)
                opened.append(theirs[number])
            case subprocess.STDOUT:
                theirs[number] = theirs[1]
            case int() as given:
                theirs[number] = given
            case file:
                theirs[number] = file.fileno()
    request |= {
        "folder": str(streams.get("cwd") or os.getcwd()),  # noqa: PTH109
        "session": streams.get("start_new_session", False),
        "parent": os.getpid(),
    }
    link = warm_start.ask(address, request, theirs)
    for descriptor in opened:
        os.close(descriptor)
    try:
        await wait_until_readable(link.fileno())
        child = WarmChild(*warm_start.started(link), link)
    except BaseException:
        link.close()
        for file in ours.values():
            file.close()
        raise
    if 0 in ours:
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, ours[0])
        child.stdin = asyncio.StreamWriter(transport, protocol, None, loop)
    if 1 in ours:
        child.stdout = asyncio.StreamReader(longest_line_bytes)
        lines = asyncio.StreamReaderProtocol(child.stdout)
        await loop.connect_read_pipe(lambda: lines, ours[1])
    return child
