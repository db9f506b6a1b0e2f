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
import os
import resource
import signal
import stat
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

MIB = 1024 * 1024
NOBODY = 65534
"""The user id of `nobody`, as Linux also shows users that a namespace does not know."""

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION_FLAG = 1
_LANDLOCK_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _IOCTL_DEV = (1 << bit for bit in (0, 1, 2, 3, 15))
_FS_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many file system rights (bits from 0) each Landlock ABI knows; later ones as the last."""

_DEVICES = ("null", "nvidia*", "dri", "kfd")
"""Below /dev. Not /dev itself: /dev/shm is there, where others keep files."""

_libc = ctypes.CDLL(None, use_errno=True)


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


def adopt_orphans() -> None:
    """Processes that descend from this one become its children when their own parent ends, so that they can be found
    and ended, whatever session they are in."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def forbid_new_privileges() -> None:
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def limit_decoding(*, address_bytes: int, heap_bytes: int, cpu_s: int, early_cpu_s: int | None = None) -> None:
    """Cap a decoder's memory and processor time; no new descriptor or process, no core dump, no file may grow.

    `early_cpu_s`: the kernel ends the process by SIGXCPU, in the midst of a library's call too, once it has spent so
    many seconds of processor time since it began, unless it has called `lift_early_cpu_limit` before.
    """
    _cap(
        {
            resource.RLIMIT_AS: address_bytes,
            resource.RLIMIT_DATA: heap_bytes,
            resource.RLIMIT_CPU: cpu_s,
            resource.RLIMIT_NOFILE: 0,
            resource.RLIMIT_NPROC: 0,
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_FSIZE: 0,
            resource.RLIMIT_CORE: 0,
        }
    )
    if early_cpu_s is not None:
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (min(early_cpu_s, hard), hard))


def lift_early_cpu_limit() -> None:
    """From here on only the whole processor time counts, whose end no process survives."""
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)


def limit_rendering(*, heap_bytes: int, cpu_s: int, is_final: bool) -> None:
    """Cap what a renderer has allocated (`allocated_bytes`) and its processor time; a final cap can't be raised.

    Heap and not address space: a GPU's driver maps more addresses than there is memory.
    """
    caps = {resource.RLIMIT_DATA: heap_bytes, resource.RLIMIT_CPU: cpu_s}
    if is_final:
        _cap(caps)
    else:
        for which, cap in caps.items():
            resource.setrlimit(which, (cap, resource.getrlimit(which)[1]))


def allocated_bytes() -> int:
    """What counts against RLIMIT_DATA: memory of this process that is private and can be written, touched or not."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) * 1024


def _cap(caps: Mapping[int, int]) -> None:
    """Lower limits (`resource.RLIMIT_…`), soft and hard: none of them can be raised again."""
    for which, cap in caps.items():
        _, hard = resource.getrlimit(which)
        least = cap if hard == resource.RLIM_INFINITY else min(cap, hard)
        resource.setrlimit(which, (least, least))


def forbid_core_dumps() -> None:
    """A core dump would hold audio."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def forbid_files() -> bool:
    """Landlock: open, create, list and run nothing any more; no TCP; no signals or sockets to the outside."""
    return _landlock({})


def keep_to(readable: Iterable[Path]) -> bool:
    """Landlock: read, list and run only what lies at or below `readable`; write no file, but for the devices that a GPU
    is driven through; no TCP; no signals or abstract sockets to the outside. What was open before stays so."""
    rules = dict.fromkeys(readable, _EXECUTE | _READ_FILE | _READ_DIR)
    for pattern in _DEVICES:
        rules |= dict.fromkeys(Path("/dev").glob(pattern), _READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL_DEV)
    return _landlock(rules)


def _landlock_abi() -> int:
    return int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG))


def _known_rights(abi: int) -> int:
    return (1 << _FS_RIGHTS_BY_ABI.get(abi, 16)) - 1


def _landlock(rules: Mapping[Path, int]) -> bool:
    """Handle all that this kernel's Landlock knows, and allow `rules` alone."""
    abi = _landlock_abi()
    if abi < 1:
        return False
    known, no_tcp, no_signals_or_abstract_sockets = _known_rights(abi), 3 if abi >= 4 else 0, 3 if abi >= 6 else 0
    attributes = struct.pack("=QQQ", known, no_tcp, no_signals_or_abstract_sockets)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for path, rights in rules.items():
            _allow(ruleset, path, known & rights)
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
