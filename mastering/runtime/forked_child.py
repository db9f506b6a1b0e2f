"""A child that is forked and not exec'ed: how it begins and ends, and what it must let go of.

For a process of one thread: a fork copies only the calling thread, and a lock that another one holds is never released
in the copy.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path

from mastering.runtime.exec_shim import die_with_parent

_MAX_LOOKS = 64
_MAX_DESCRIPTORS = 4096
"""A fork server's own number of open descriptors stays far below."""


def fork_child(run: Callable[[], None]) -> tuple[int, int]:
    """Fork a child process that calls `run` and then ends; it is killed when this process ends.

    Returns its pid and pidfd, for `reap_child`. Raises OSError where no process can be had.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            die_with_parent(parent)
            run()
            status = 0
        finally:
            os._exit(status)
    return pid, os.pidfd_open(pid)


def reap_child(pid: int, pidfd: int) -> int:
    """Wait for a forked child's end and close its pidfd: its exit code, which is minus the signal that ended it."""
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    return os.waitstatus_to_exitcode(status)


def end_other_children(known: Collection[int]) -> None:
    """Kill every child of this process but those with pids in `known`: what a child has left behind (`adopt_orphans`).

    A killed one may leave some behind in turn, so this looks again, a bounded number of times.
    """
    listed = Path(f"/proc/self/task/{os.getpid()}/children")  # of the main thread, the only one
    for _ in range(_MAX_LOOKS):
        others = {int(pid) for pid in listed.read_text().split()} - set(known)
        for pid in others:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if not others:
            return


def close_all_but(*keep: int) -> None:
    """Close every descriptor of this process from the lowest of `keep` on, but for those in `keep`.

    For a child right after the fork: its parent's own socket and those of other children are none of its business.
    """
    edges = sorted(keep)
    for low, high in zip(edges, [*edges[1:], _MAX_DESCRIPTORS], strict=True):
        os.closerange(low + 1, high)
