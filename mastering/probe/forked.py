"""Processes that the fork server forks: what is kept of one, and how its caller is told of its end."""

from __future__ import annotations

import math
import os
import signal
import socket
from dataclasses import dataclass

from mastering.contract import Fault
from mastering.probe.recording import resource_fault, undecodable_fault

_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS})


@dataclass
class BusyChild:
    """A child that has a request."""

    pid: int
    pidfd: int
    """Readable when it has ended."""
    conversation: socket.socket
    deadline: float
    """In monotonic seconds; infinite for one that serves until its caller hangs up."""
    is_killed: bool = False

    @property
    def is_long_lived(self) -> bool:
        return self.deadline == math.inf


@dataclass
class WaitingChild:
    """A child that was forked ahead and waits for its request."""

    pid: int
    pidfd: int
    requests: socket.socket
    """By which its request is sent, once it has said that it is ready."""
    is_ready: bool = False

    def end(self) -> None:
        """End it, whether it still lives or not."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.requests.close()


def write_line(conversation: socket.socket, text: bytes) -> None:
    """Write `text` and an end of line. A caller that has hung up is no error."""
    try:
        # write, not send: the system call filter knows no other.
        os.write(conversation.fileno(), text + b"\n")
    except OSError:
        return


def fault_of_status(status: int) -> Fault:
    """Why a child ended without an answer, by its wait status."""
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _CRASHES:
        return undecodable_fault()
    return resource_fault()
