"""Processes that the fork server forks: what is kept of one, and how its caller is told of its end."""

from __future__ import annotations

import math
import os
import signal
import socket
from dataclasses import dataclass

from mastering.audio import refusals
from mastering.contract import Fault
from mastering.runtime.forked_child import reap_child

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
        reap_child(self.pid, self.pidfd)
        self.requests.close()


def write_line(conversation: socket.socket, text: bytes) -> None:
    """Write `text` and an end of line. A caller that has hung up is no error."""
    try:
        # write, not send: the system call filter knows no other.
        os.write(conversation.fileno(), text + b"\n")
    except OSError:
        return


def fault_of_exit_code(code: int) -> Fault:
    """Why a child ended without an answer; a negative `code` is minus the signal that ended it."""
    if -code in _CRASHES:
        return refusals.undecodable_song()
    return refusals.demanding_song()
