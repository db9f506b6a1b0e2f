"""Starts Python programs as forks of a process that has imported them: a start without seconds of imports.

    process = warm_start.start("router", ["serve", "--port", "8000"], environment, output)
    process.kill()

What runs is the program itself, as `python -m MODULE ARGUMENT …` would run it, in a process of its own with the
environment and the streams it is given. What a test looks at in /proc (its command line) is that of the process it was
forked from: tests of that start it by `subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from mastering.runtime import blas
from mastering.runtime.forked_child import close_all_but, fork_child, reap_child

_SERVICES = (
    "router.app.server", "router.cli.doctor", "router.cli.main", "router.cli.operate", "router.cli.submit",
    "router.privacy", "mastering.worker.server",
)  # fmt: skip
_UNDER_GRADIO = (
    "fastapi", "httpx", "jinja2", "numpy", "orjson", "pandas", "PIL.Image", "pydantic_settings", "pydub",
    "rich.console", "structlog", "tomlkit", "typer", "uvicorn", "yaml",
)  # fmt: skip
"""What Gradio imports; itself and huggingface_hub read the environment when they are imported."""
_COMMAND = ("mastering.cli", "mastering.engine.analyse", "mastering.engine.pipeline")
PRELOADED = {
    "router": _SERVICES,
    "mastering.worker": _SERVICES,
    "tests.rough_space": _UNDER_GRADIO,
    "app.py": _UNDER_GRADIO,
    "mastering.cli:main": _COMMAND,
}
"""What a program imports, by the module that is run: one fork server for each set of them."""
_UPLOADED = ("mastering", "mastering_space", "router", "tests")
"""Packages of this checkout: `app.py` is to import those that lie beside it."""
_MAX_PACKET_BYTES = 128 * 1024


class WarmProcess:
    """A process that was started so, with what `subprocess.Popen` has."""

    def __init__(self, pid: int, pidfd: int, status: socket.socket, stdout: IO[bytes] | None) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._status = status

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
        if self.returncode is None and _is_readable(self._status, timeout):
            self.returncode = int(self._status.recv(16) or -signal.SIGKILL)
            self._status.close()
            os.close(self._pidfd)
        return self.returncode


def _is_readable(source: socket.socket, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


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
    status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {
        "module": module,
        "arguments": list(arguments),
        "environment": dict(environment),
        "folder": str(folder or Path.cwd()),
    }
    error_sink = 2 if errors is None else writer if errors == subprocess.STDOUT else _number(errors)
    with theirs:
        socket.send_fds(
            _server(PRELOADED.get(module, _SERVICES)),
            [json.dumps(request).encode()],
            [theirs.fileno(), writer, error_sink],
        )
    os.close(writer)
    packet, descriptors, _, _ = socket.recv_fds(status, 16, 1)
    return WarmProcess(int(packet), descriptors[0], status, None if reader is None else os.fdopen(reader, "rb"))


def _number(file: IO[bytes] | int) -> int:
    return file if isinstance(file, int) else file.fileno()


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
def _server(preloaded: tuple[str, ...]) -> socket.socket:
    """The socket of a fork server, which ends when it is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_start", str(theirs.fileno()), *preloaded],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class _ForkServer:
    """Forks a process for each request. One thread, before and after."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, tuple[int, socket.socket]] = {}

    def serve(self) -> None:
        while True:
            for ready in select.select([self._control.fileno(), *self._children], [], [])[0]:
                if ready != self._control.fileno():
                    self._reap(ready)
                elif not self._accept():
                    return

    def _accept(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self._control, _MAX_PACKET_BYTES, 3)
        if not packet:
            return False
        status, *streams = descriptors
        request = json.loads(packet)
        pid, pidfd = fork_child(lambda: _run(request, *streams))
        link = socket.socket(fileno=status)
        self._children[pidfd] = pid, link
        socket.send_fds(link, [str(pid).encode()], [pidfd])
        for stream in streams:
            os.close(stream)
        return True

    def _reap(self, pidfd: int) -> None:
        pid, link = self._children.pop(pidfd)
        code = reap_child(pid, pidfd)
        with link, suppress(OSError):  # nobody may wait any more
            link.send(str(code).encode())


def _run(request: dict[str, Any], output: int, errors: int) -> None:
    """The child: the program in the place of the fork server."""
    os.dup2(output, 1)
    os.dup2(errors, 2)
    close_all_but(2)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    tempfile.tempdir = None
    module = request["module"]
    sys.argv = [module, *request["arguments"]]
    code: object = 0
    try:
        if module.endswith(".py"):
            for name in [name for name in sys.modules if name.partition(".")[0] in _UPLOADED]:
                del sys.modules[name]
            sys.path[0] = request["folder"]
            runpy.run_path(module, run_name="__main__")
        elif ":" in module:
            module, _, function = module.partition(":")
            sys.argv[0] = module.partition(".")[0]
            getattr(import_module(module), function)()
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    blas.one_thread()
    for preloaded in sys.argv[2:]:
        import_module(preloaded)
    gc.freeze()
    _ForkServer(socket.socket(fileno=int(sys.argv[1]))).serve()
