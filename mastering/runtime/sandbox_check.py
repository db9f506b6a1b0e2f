"""Try from inside what a sandbox must refuse: the only proof that it works, whichever mechanism of the host does it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import resource
import socket
from collections.abc import Callable

_TEBIBYTE = 1 << 40
_KEYCTL_GET_KEYRING_ID, _PROCESS_KEYRING = 0, -2
_MAP_NORESERVE = 0x4000
_CALLS = {
    "x86_64": {"process_vm_readv": 310, "keyctl": 250, "shmget": 29},
    "aarch64": {"process_vm_readv": 270, "keyctl": 219, "shmget": 194},
}
"""Numbers of system calls that Python has no function for (unistd.h)."""
_IO_URING_SETUP = 425
"""The same on every architecture."""
_libc = ctypes.CDLL(None, use_errno=True)


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


def _send_datagram() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as outside:
        outside.sendto(b"", ("127.0.0.1", 9))


def _call(name: str, *arguments: int) -> int:
    """A system call that Python has no function for. Raises OSError."""
    number = _CALLS.get(platform.machine(), {}).get(name)
    if number is None:  # of a processor that nobody has tried this on: not refused, as far as is known
        return 0
    return _call_number(number, *arguments)


def _call_number(number: int, *arguments: int | ctypes.Array[ctypes.c_char]) -> int:
    wide = [one if isinstance(one, ctypes.Array) else ctypes.c_long(one) for one in arguments]
    found = _libc.syscall(ctypes.c_long(number), *wide)
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(found)


def _share_memory() -> None:
    made = _call("shmget", 0, 4096, 0o600)  # IPC_PRIVATE
    _libc.shmctl(made, 0, None)  # IPC_RMID


def _set_up_io_uring() -> None:
    os.close(_call_number(_IO_URING_SETUP, 1, ctypes.create_string_buffer(120)))


def _run_without_end() -> None:
    if resource.getrlimit(resource.RLIMIT_CPU)[0] != resource.RLIM_INFINITY:
        raise OSError(errno.EPERM, "")


_REFUSALS = frozenset(
    {
        errno.EPERM, errno.EACCES, errno.EAGAIN, errno.EMFILE, errno.EROFS, errno.ENETUNREACH, errno.EADDRNOTAVAIL,
        errno.ENOMEM, errno.ENOSYS,
    }
)  # fmt: skip
"""How the sandbox refuses, or a kernel that lacks the call; a connection that nobody takes, say, was not refused."""

_FORBIDDEN: dict[str, Callable[[], object]] = {
    "read a file": lambda: os.close(os.open("/etc/passwd", os.O_RDONLY)),
    "list a folder": lambda: os.listdir("/"),  # noqa: PTH208 - the call itself is tried
    "create a file": lambda: os.close(os.open("/dev/shm", os.O_WRONLY | os.O_TMPFILE, 0o600)),  # noqa: S108 - leaves nothing
    "open a socket": lambda: socket.socket().close(),
    "connect": _connect,
    "send a datagram": _send_datagram,
    "start a process": _start_process,
    "run a program": _run_program,
    "signal another process": lambda: os.kill(os.getppid(), 0),
    "have a signal sent": lambda: fcntl.fcntl(2, fcntl.F_SETOWN, os.getppid()),
    "read another process": lambda: _call("process_vm_readv", os.getppid(), 0, 0, 0, 0, 0),
    "share memory": _share_memory,
    "use the kernel's keyrings": lambda: _call("keyctl", _KEYCTL_GET_KEYRING_ID, _PROCESS_KEYRING, 1),
    "use io_uring": _set_up_io_uring,
    "have memory without end": lambda: mmap.mmap(
        -1, _TEBIBYTE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    ).close(),
    "have processor time without end": _run_without_end,
}

ATTEMPTS = tuple(_FORBIDDEN)
"""Names of all that is tried."""
