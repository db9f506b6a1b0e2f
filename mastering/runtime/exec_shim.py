"""Replaces itself with a program that the kernel kills when this process's parent ends.

`child_process` starts every child by it. A script of its own, because the kernel must be asked in the child before the
program runs, and Python code between fork and exec (`preexec_fn`) can deadlock in a process that has threads. It
imports nothing of the project and no site packages, so it takes about 15 ms.

    python -I -S exec_shim.py PARENT_PID PROGRAM [ARGUMENT ...]

The kernel keeps the request through exec (prctl(2), PR_SET_PDEATHSIG), but drops it when the program changes its user:
such a program asks again, with `die_with_parent`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NOT_FOUND = 127
"""Exit status when the program can't be run, as a shell gives it."""


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when `parent` (its pid) ends, however it ends.

    `parent` must be known from before: it may have ended already, and the kernel tells of later ends alone. Then, seen
    by the pid of today's parent, this process exits at once. Call it after any change of user, which clears the
    request.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def main(arguments: list[str]) -> None:
    parent, *command = arguments
    die_with_parent(int(parent))
    try:
        os.execvp(command[0], command)  # noqa: S606 - what our own launcher was asked to start
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(_NOT_FOUND)


if __name__ == "__main__":
    main(sys.argv[1:])
