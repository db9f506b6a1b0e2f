"""Filters of system calls (seccomp) for processes that read untrusted bytes: a decoder's, and a renderer's.

By libseccomp, which every Debian, Ubuntu and Fedora has; its numbers of calls are right on each processor. Six of its
functions are used, by ctypes: its Python bindings are no wheel, and the one wheel that stands in for them
(pyseccomp 0.1.2, of 2021) is not kept. A filter holds for the calling process for good; where the library or the kernel
lacks something the function says so, and trying from inside (`sandbox_check`) decides.

Sources: seccomp(2), seccomp_rule_add(3), seccomp_export_bpf(3), clone(2), fcntl(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from mastering.runtime.sandbox import forbid_new_privileges

_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_NOT_EQUAL, _EQUAL, _MASKED_EQUAL = 1, 4, 7
_BAD_ARCHITECTURE = 2
"""The attribute of a filter that says what becomes of a call of another architecture."""
_UNKNOWN_CALL = -1
_SET_FILTER, _ALL_THREADS = 1, 1
"""Of seccomp(2): the operation, and its flag TSYNC."""
_INSTRUCTION_BYTES = 8
_CLONE_THREAD = 0x10000
_AF_UNIX = 1
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_FIOSETOWN, _SIOCSPGRP, _TIOCSTI = 0x8901, 0x8902, 0x5412

_DECODING = (
    "read", "write", "close", "fstat", "lseek", "mmap", "mprotect", "munmap", "brk", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "pread64", "readv", "writev", "poll", "ppoll", "sched_yield", "mremap", "madvise", "nanosleep",
    "getpid", "exit", "getrusage", "times", "sigaltstack", "gettid", "futex", "sched_getaffinity", "restart_syscall",
    "clock_gettime", "clock_nanosleep", "exit_group", "newfstatat", "getrandom", "rseq",
)  # fmt: skip
"""What decoding a file that is open already needs."""

_BEYOND_RENDERING = (
    # To begin another program or process.
    "execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp",
    "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "tkill", "setpriority",
    "ioprio_set", "migrate_pages", "setsid",
    # Memory and queues that processes share.
    "shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semctl", "semtimedop", "msgget", "msgsnd", "msgrcv",
    "msgctl", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
    # The network.
    "connect", "bind", "listen", "accept", "accept4",
    # Interfaces to the kernel in which faults are found most often.
    "io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "request_key", "keyctl", "bpf",
    "perf_event_open", "userfaultfd",
    # What only the owner of the machine does.
    "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig",
    "fsmount", "name_to_handle_at", "open_by_handle_at", "init_module", "finit_module", "delete_module", "kexec_load",
    "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "quotactl", "syslog", "personality", "settimeofday",
    "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "iopl", "ioperm",
)  # fmt: skip
"""What no render calls; a GPU's driver may `connect` to daemons of its own (`forbid_other_processes`)."""


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: which argument of a call, how it is compared, and with what."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Rule(NamedTuple):
    """What becomes of a call (`action`), where its arguments compare so."""

    action: int
    call: str
    comparisons: tuple[_Comparison, ...] = ()


def _library() -> Any:
    """libseccomp; None on a host without it."""
    try:
        found = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = (ctypes.c_uint32,)
    found.seccomp_release.argtypes = (ctypes.c_void_p,)
    found.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    found.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    found.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    found.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison),
    )  # fmt: skip
    return found


_libc = ctypes.CDLL(None, use_errno=True)
_libseccomp = _library()  # now: a process that is locked up already could not load it


@cache
def decoding_filter() -> bytes | None:
    """The filter of `allow_decoding`, made once: a fork server makes it before it forks. None where it can't be had."""
    # Of fcntl only a descriptor's flags: by others a process can have any signal sent to any process of its user.
    flags = (_Rule(_ALLOW, "fcntl", (_Comparison(1, _EQUAL, command),)) for command in (1, 2, 3, 4))
    own_limits = _Rule(_ALLOW, "prlimit64", (_Comparison(0, _EQUAL, 0), _Comparison(2, _EQUAL, 0)))  # to read them
    return _filter(_refuse(errno.EPERM), [*(_Rule(_ALLOW, call) for call in _DECODING), *flags, own_limits])


def allow_decoding() -> bool:
    """From here on this process may decode a file that it has open, and nothing else; whether that holds.

    Any other call is refused with EPERM.
    """
    return _put_in_force(decoding_filter())


def forbid_other_processes(*, may_connect_locally: bool = False) -> bool:
    """From here on this process, in all its threads, can start, signal and reach no other; whether that holds.

    No fork or exec, no network, no shared memory, no system call that is known for its faults. Memory files and threads
    stay. `may_connect_locally`: to sockets of this machine's file system, as a GPU's driver may want.
    """
    refuse, own = _refuse(errno.EPERM), os.getpid()
    calls = set(_BEYOND_RENDERING) - ({"connect"} if may_connect_locally else set())
    rules = [_Rule(refuse, call) for call in sorted(calls)]
    # A thread is a clone too. The flags of clone3 lie in memory, where no filter sees them: libc takes clone then.
    rules += [_Rule(_refuse(errno.ENOSYS), "clone3")]
    rules += [_Rule(refuse, "clone", (_Comparison(0, _MASKED_EQUAL, _CLONE_THREAD, 0),))]
    # Signals to itself, as of an abort, are nobody else's.
    rules += [_Rule(refuse, call, (_Comparison(0, _NOT_EQUAL, own),)) for call in ("kill", "tgkill")]
    rules += [_Rule(refuse, "prlimit64", (_Comparison(0, _NOT_EQUAL, 0),))]
    rules += [_Rule(refuse, "socket", (_Comparison(0, _NOT_EQUAL, _AF_UNIX),) if may_connect_locally else ())]
    for command in (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX):
        rules.append(_Rule(refuse, "fcntl", (_Comparison(1, _EQUAL, command),)))
    for command in (_FIOSETOWN, _SIOCSPGRP, _TIOCSTI):
        rules.append(_Rule(refuse, "ioctl", (_Comparison(1, _MASKED_EQUAL, 0xFFFFFFFF, command),)))
    return _put_in_force(_filter(_ALLOW, rules))


def _refuse(error: int) -> int:
    return 0x00050000 | error


def _filter(otherwise: int, rules: Iterable[_Rule]) -> bytes | None:
    """The filter of `rules` as the kernel takes it: instructions of classic BPF. None where it can't be had.

    A call that this processor or this library does not know needs no rule.
    """
    found = _libseccomp.seccomp_init(otherwise) if _libseccomp is not None else None
    if not found:
        return None
    try:
        is_whole = _libseccomp.seccomp_attr_set(found, _BAD_ARCHITECTURE, _KILL_PROCESS) == 0
        for rule in rules:
            number = _libseccomp.seccomp_syscall_resolve_name(rule.call.encode())
            if number != _UNKNOWN_CALL:
                array = (_Comparison * len(rule.comparisons))(*rule.comparisons)
                added = _libseccomp.seccomp_rule_add_array(found, rule.action, number, len(array), array)
                is_whole = is_whole and added == 0
        with os.fdopen(os.memfd_create("filter"), "r+b") as file:
            is_whole = is_whole and _libseccomp.seccomp_export_bpf(found, file.fileno()) == 0
            file.seek(0)
            return file.read() if is_whole else None
    finally:
        _libseccomp.seccomp_release(found)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _put_in_force(instructions: bytes | None) -> bool:
    """For all threads of this process, for good."""
    if instructions is None:
        return False
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    program = _Program(len(instructions) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
    forbid_new_privileges()
    number = _libseccomp.seccomp_syscall_resolve_name(b"seccomp")
    return bool(_libc.syscall(ctypes.c_long(number), _SET_FILTER, _ALL_THREADS, ctypes.byref(program)) == 0)
