"""The kernel's sandbox for a process that decodes untrusted bytes: one function for each of its layers.

Linux only, by ctypes and the standard library: the layers are a handful of system calls, and the wheels that wrap
them need a shared library of the host. Each function says whether its layer holds; none of them raises where a
kernel lacks it: trying from inside (`mastering.probe.sandbox_check`) is what decides whether the sandbox holds.

Sources: landlock(7) and include/uapi/linux/landlock.h (ABI 1 to 6), seccomp(2), prctl(2), capset(2),
user_namespaces(7); system call numbers from arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
NOBODY = 65534
"""The user id of `nobody`, as Linux also shows users that a namespace does not know."""

_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION_FLAG = 1
_LANDLOCK_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _IOCTL_DEV = (1 << bit for bit in (0, 1, 2, 3, 15))
_FS_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many file system rights (bits from 0) each Landlock ABI knows; later ones as the last."""

_DEVICES = ("null", "nvidia*", "dri", "kfd")
"""Below /dev. Not /dev itself: /dev/shm is there, where others keep files."""

_FCNTL_COMMANDS = (1, 2, 3, 4)
"""F_GETFD, F_SETFD, F_GETFL, F_SETFL."""
_SECOND_ARGUMENT = 16 + 8
"""Where it lies in struct seccomp_data, on a machine whose lower half comes first."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Machine:
    """One processor architecture: its audit number and the numbers of the system calls a decoder needs."""

    audit: int
    calls: dict[str, int]


_MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        {
            "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
            "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19,
            "writev": 20, "poll": 7, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39,
            "exit": 60, "fcntl": 72, "getrusage": 98, "times": 100, "sigaltstack": 131, "gettid": 186, "futex": 202,
            "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228, "clock_nanosleep": 230,
            "exit_group": 231, "newfstatat": 262, "getrandom": 318, "rseq": 334,
        },
    ),
    "aarch64": Machine(
        0xC00000B7,
        {
            "fcntl": 25, "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67,
            "ppoll": 73, "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "nanosleep": 101,
            "clock_gettime": 113, "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124,
            "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
            "rt_sigreturn": 139, "times": 153, "getrusage": 165, "getpid": 172, "gettid": 178, "brk": 214,
            "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278, "rseq": 293,
        },
    ),
}  # fmt: skip


def leave_network() -> bool:
    """Move to a network namespace of our own, which has no interface up. Needs root or user namespaces."""
    with contextlib.suppress(OSError):
        if os.geteuid() == 0 and _libc.unshare(_CLONE_NEWNET) == 0:
            return True
    return bool(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def drop_root() -> bool:
    """Become nobody, without groups or capabilities; True where the process was no root or is none any more."""
    if os.geteuid() != 0:
        return True
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    return os.geteuid() != 0


def give_up_capabilities() -> bool:
    """Keep the user, and nothing of what root may do beyond a user (read any memory, trace any process)."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    return bool(_libc.capset(header, bytes(24)) == 0)


def keep_memory_private() -> None:
    """Processes of the same user can neither trace this one nor read its memory and environment; no core dump."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def forbid_new_privileges() -> None:
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def limit(*, address_bytes: int, heap_bytes: int, cpu_s: int) -> None:
    """Cap address space, heap and processor time; no new descriptor or process, no core dump, no file may grow."""
    caps = {
        resource.RLIMIT_AS: address_bytes,
        resource.RLIMIT_DATA: heap_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for which, cap in caps.items():
        _, hard = resource.getrlimit(which)
        least = cap if hard == resource.RLIM_INFINITY else min(cap, hard)
        resource.setrlimit(which, (least, least))


def forbid_core_dumps() -> None:
    """A core dump would hold audio."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def forbid_files() -> bool:
    """Landlock: open, create, list and run nothing any more; no TCP; no signals or sockets to the outside."""
    abi = _landlock_abi()
    if abi < 1:
        return False
    return _landlock(struct.pack("=QQQ", _known_rights(abi), 3 if abi >= 4 else 0, 3 if abi >= 6 else 0), abi, {})


def keep_to(readable: Iterable[Path]) -> bool:
    """Landlock: read, list and run only what lies at or below `readable`, and write no file, but for the devices that a
    GPU is driven through. What was open before stays so."""
    abi = _landlock_abi()
    if abi < 1:
        return False
    known = _known_rights(abi)
    rules = dict.fromkeys(readable, _EXECUTE | _READ_FILE | _READ_DIR)
    for pattern in _DEVICES:
        rules |= dict.fromkeys(Path("/dev").glob(pattern), known & (_READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL_DEV))
    return _landlock(struct.pack("=QQQ", known, 0, 0), abi, rules)


def _landlock_abi() -> int:
    return int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG))


def _known_rights(abi: int) -> int:
    return (1 << _FS_RIGHTS_BY_ABI.get(abi, 16)) - 1


def _landlock(attributes: bytes, abi: int, rules: Mapping[Path, int]) -> bool:
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for path, rights in rules.items():
            _allow(ruleset, path, rights)
        forbid_new_privileges()
        return bool(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """`rights` at `path` and below it, if it is there. The kernel refuses a file the right to be listed."""
    with contextlib.suppress(OSError):
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            is_folder = stat.S_ISDIR(os.fstat(at).st_mode)
            rule = struct.pack("=Qi", rights if is_folder else rights & ~_READ_DIR, at)
            _libc.syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0)
        finally:
            os.close(at)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def filter_calls() -> bool:
    """seccomp: an allow-list of the system calls a decoder needs; any other is refused with EPERM."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    program = _program(machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    forbid_new_privileges()
    filled = _Program(len(program) // 8, ctypes.addressof(buffer))
    return bool(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filled), 0, 0) == 0)


def _program(machine: Machine) -> bytes:
    """Classic BPF: another architecture dies, an allowed call passes, all else returns EPERM."""
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
    fcntl = machine.calls["fcntl"]
    calls = sorted(set(machine.calls.values()) - {fcntl})
    steps = [(load, 0, 0, 4), (jump_if_equal, 1, 0, machine.audit), (answer, 0, 0, kill), (load, 0, 0, 0)]
    # Of fcntl only a descriptor's flags: by others a process can have any signal sent to any process of its user.
    steps += [(jump_if_equal, 0, 3 + len(_FCNTL_COMMANDS), fcntl), (load, 0, 0, _SECOND_ARGUMENT)]
    steps += [(jump_if_equal, len(_FCNTL_COMMANDS) - at, 0, command) for at, command in enumerate(_FCNTL_COMMANDS)]
    steps += [(answer, 0, 0, refuse), (answer, 0, 0, allow)]
    steps += [(jump_if_equal, len(calls) - at, 0, call) for at, call in enumerate(calls)]
    steps += [(answer, 0, 0, refuse), (answer, 0, 0, allow)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
