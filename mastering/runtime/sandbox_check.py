"""Try from inside what the sandbox must refuse: the only proof that it works."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable


def refused_attempts() -> dict[str, bool]:
    """Try, once each, what a sandboxed process must not be able to do; True where it was refused."""
    return {name: _is_refused(attempt) for name, attempt in _FORBIDDEN.items()}


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError as error:
        return error.errno in _REFUSALS
    return False


def _start_process() -> None:
    # One attempt, never a loop: where it is not refused there is a second process, which leaves at once.
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _run_program() -> None:
    if os.posix_spawn("/bin/true", ["true"], {}):
        os.wait()


def _connect() -> None:
    with socket.socket() as outside:
        outside.settimeout(0.2)
        outside.connect(("127.0.0.1", 9))


_REFUSALS = frozenset(
    {errno.EPERM, errno.EACCES, errno.EAGAIN, errno.EMFILE, errno.EROFS, errno.ENETUNREACH, errno.EADDRNOTAVAIL}
)
"""How the sandbox refuses; a connection that nobody takes, say, was not refused by it."""

_FORBIDDEN: dict[str, Callable[[], object]] = {
    "read a file": lambda: os.close(os.open("/etc/passwd", os.O_RDONLY)),
    "list a folder": lambda: os.listdir("/"),  # noqa: PTH208 - the call itself is tried
    "create a file": lambda: os.close(os.open("/dev/shm", os.O_WRONLY | os.O_TMPFILE, 0o600)),  # noqa: S108 - leaves nothing
    "open a socket": lambda: socket.socket().close(),
    "connect": _connect,
    "start a process": _start_process,
    "run a program": _run_program,
    "signal another process": lambda: os.kill(os.getppid(), 0),
    "have a signal sent": lambda: fcntl.fcntl(2, fcntl.F_SETOWN, os.getppid()),
}
