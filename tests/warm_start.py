"""Starts Python programs as forks of a process that has imported them: a start without seconds of imports.

    process = warm_start.start("router", ["serve", "--port", "8000"], environment, output)
    process.kill()

What runs is the program itself, as `python -m MODULE ARGUMENT …` would run it, in a process of its own with the
environment and the streams it is given; the processes that a router or a worker starts begin in the same way
(`warm_children`). What a test looks at in /proc (a command line, a parent) is that of the process that was forked:
`processes.children` knows; tests of the command line start a new program by `subprocess`.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

_SERVICES = (
    "router.app.server", "router.cli.doctor", "router.cli.main", "router.cli.operate", "router.cli.submit",
    "router.privacy", "mastering.worker.server",
)  # fmt: skip
_UNDER_GRADIO = (
    "fastapi", "httpx", "jinja2", "numpy", "orjson", "pandas", "PIL.Image", "pydantic_settings", "pydub",
    "rich.console", "structlog", "tomlkit", "typer", "uvicorn", "yaml", "filelock", "fsspec", "httpcore2", "httpx2",
    "packaging.version", "tests.image_formats",
)  # fmt: skip
"""What Gradio imports; itself and huggingface_hub read the environment when they are imported."""
_COMMAND = ("mastering.cli", "mastering.engine.analyse", "mastering.engine.pipeline")
_PRELOADED = {
    "router": _SERVICES,
    "mastering.worker": _SERVICES,
    "mastering.worker.fork_server": ("mastering.engine.pipeline", "mastering.worker.child"),
    "mastering.probe": ("mastering.probe.fork_server", "mastering.probe.warm_up"),
    "router.tiers.space.child": ("httpx", "fsspec", "packaging.version", "router.tiers.space.api_prefix", "yaml"),
    "tests.rough_space": _UNDER_GRADIO,
    "app.py": _UNDER_GRADIO,
    "mastering.cli:main": _COMMAND,
}
"""What a program imports, by the module that is run: one fork server for each set of them."""
_OF_ROUTER = ("mastering.probe", "router.tiers.space.child")
_OF_WORKER = ("mastering.worker.fork_server",)
_CHILDREN = {
    "router": _OF_ROUTER,
    "tests.careless_router": _OF_ROUTER,
    "tests.privacy.leaky_router": _OF_ROUTER,
    "mastering.worker": _OF_WORKER,
}
"""Which programs a program starts."""


class WarmProcess:
    """A process that was started so, with what `subprocess.Popen` has."""

    def __init__(self, pid: int, pidfd: int, link: socket.socket, stdout: IO[bytes] | None) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._link = link

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and _is_readable(self._link, timeout):
            self.returncode = exit_code(self._link)
            self._link.close()
            os.close(self._pidfd)
        return self.returncode


def _is_readable(source: socket.socket, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def exit_code(link: socket.socket) -> int:
    """What the fork server says last of a process; where it has ended itself, the kernel has killed the process."""
    return int(link.recv(16) or -signal.SIGKILL)


def start(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes] | int,
    errors: IO[bytes] | int | None = None,
    folder: Path | None = None,
) -> WarmProcess:
    """Run `module` in `folder`, or here, with its `output` to a file or `subprocess.PIPE`.

    `errors` go to this process's unless given. A module that ends in `.py` is a file of the folder; of
    ``module:function`` that function is called, as an installed command does."""
    reader, writer = os.pipe() if output == subprocess.PIPE else (None, os.dup(_number(output)))
    error_sink = 2 if errors is None else writer if errors == subprocess.STDOUT else _number(errors)
    request = {
        "module": module,
        "arguments": list(arguments),
        "environment": dict(environment),
        "folder": str(folder or Path.cwd()),
        "children": addresses(_CHILDREN.get(module, ())),
    }
    link = ask(_address(_PRELOADED.get(module, _SERVICES)), request, {1: writer, 2: error_sink})
    os.close(writer)
    pid, pidfd = started(link)
    return WarmProcess(pid, pidfd, link, None if reader is None else os.fdopen(reader, "rb"))


def addresses(modules: Iterable[str]) -> dict[str, str]:
    """Where the fork servers of these modules listen."""
    return {module: _address(_PRELOADED[module]) for module in modules}


def _number(file: IO[bytes] | int) -> int:
    return file if isinstance(file, int) else file.fileno()


def ask(address: str, request: Mapping[str, object], descriptors: Mapping[int, int]) -> socket.socket:
    """Ask the fork server at `address` for a process, which gets `descriptors` under the numbers that are their keys.

    The process is killed when the socket that this returns is closed."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.connect(address)
    packet = json.dumps({**request, "descriptors": list(descriptors)}).encode()
    socket.send_fds(link, [packet], list(descriptors.values()))
    return link


def started(link: socket.socket) -> tuple[int, int]:
    """The pid and pidfd of the process; waits until there is one."""
    packet, descriptors, _, _ = socket.recv_fds(link, 16, 1)
    return int(packet), descriptors[0]


def run(
    module: str,
    arguments: Sequence[object],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Run `module` to its end, as `subprocess.run` does with captured text. Raises subprocess.TimeoutExpired."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start(module, words, os.environ if environment is None else environment, output, errors, folder)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess([module, *words], code, *said)


@cache
def _address(preloaded: tuple[str, ...]) -> str:
    """Where a fork server listens, which ends with this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("")  # the kernel finds a name that is free
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_server", str(listener.fileno()), *preloaded],
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        address: bytes = listener.getsockname()

    def end() -> None:
        with suppress(OSError):
            process.communicate()

    atexit.register(end)
    return address.decode()
