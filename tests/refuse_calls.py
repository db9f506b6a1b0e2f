"""Runs a program as on a machine that lacks something: `python -m tests.refuse_calls unshare,seccomp COMMAND …`.

The calls that are named are answered with ENOSYS, as by an old kernel or in a container that forbids them; it holds for
everything that the program starts.
"""

from __future__ import annotations

import errno
import os
import sys

from mastering.runtime import syscall_filter


def main(calls: str, command: list[str]) -> None:
    rules = [syscall_filter._Rule(syscall_filter._refuse(errno.ENOSYS), name) for name in calls.split(",")]
    assert syscall_filter._put_in_force(syscall_filter._filter(syscall_filter._ALLOW, rules))
    os.execvp(command[0], command)  # noqa: S606 - a test's own command


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
