"""The fork server: a process with the decoders imported that forks one child for each request on its socket.

One thread, before and after: a fork copies only the calling one. Nothing here reads untrusted bytes. It ends when its
socket is closed, so it does not outlive the router, kill -9 included; its children are killed with it.

A fork and the pages that a new process copies take longer than decoding a short song. So two children, a song's and its
master's, are forked ahead in a quiet moment and wait. They have seen no file, and each still gets one file only, or
becomes the long-lived one that reads the headers of plain WAVs (`wav_header`).
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import ValidationError

from mastering.contract import Fault, FaultCode
from mastering.probe.answer import answer, fault_answer
from mastering.probe.forked import BusyChild, WaitingChild, fault_of_exit_code, write_line
from mastering.protocol.probe import MAX_REQUEST_BYTES, TAKEN, Hello, ProbeRequest
from mastering.runtime.forked_child import close_all_but, fork_child, reap_child

_WAITING_CHILDREN = 2
_QUIET_S = 0.1
"""So long nothing has happened when children are forked ahead: they must not cost the song that took the last one."""
_QUIET_FACTOR_WITH_ONE = 5
"""Times as long where one is left: forking must not cost a song that is about to take that one."""
_MAX_QUIET_S = 60.0
"""Where waiting children die or can't be forked, they are forked more and more rarely."""


@dataclass
class ForkServer:
    """Serves requests on `control`; holds one `BusyChild` for each request in work."""

    control: socket.socket
    layers: dict[str, bool]
    """Of the sandbox: which are in force."""
    check_sample: Callable[[], object]
    """What a child does before it waits, so that the pages it will write to are its own by then."""
    busy: list[BusyChild] = field(default_factory=list)
    waiting: list[WaitingChild] = field(default_factory=list)
    quiet_s: float = _QUIET_S

    def serve(self) -> None:
        """Serve until the socket's other end is closed."""
        self.control.send(Hello(ready=self.layers).model_dump_json().encode())
        is_open = True
        while is_open:
            ready = self._wait()
            self._reap(ready)
            if self.control.fileno() in ready:
                is_open = self._accept()
            elif not ready and self._wants_waiting_children():
                self._fork_ahead()
        for pid in [child.pid for child in self.busy] + [child.pid for child in self.waiting]:
            os.kill(pid, signal.SIGKILL)

    def _wants_waiting_children(self) -> bool:
        return len(self.waiting) < _WAITING_CHILDREN and all(child.is_long_lived for child in self.busy)

    def _wait(self) -> set[int]:
        """Descriptors with news: a packet, a child that ended, a caller that hung up; empty when time is up."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        for waiting in self.waiting:
            poll.register(waiting.pidfd, select.POLLIN)
            if not waiting.is_ready:
                poll.register(waiting.requests, select.POLLIN)
        for child in self.busy:
            poll.register(child.pidfd, select.POLLIN)
            if not child.is_killed:  # a hang-up is always reported, and for as long as it lasts
                poll.register(child.conversation, 0)
        if self._wants_waiting_children():
            quiet_s = self.quiet_s * (_QUIET_FACTOR_WITH_ONE if self.waiting else 1)
            return {fd for fd, _ in poll.poll(quiet_s * 1000)}
        next_s = min((child.deadline for child in self.busy if not child.is_killed), default=math.inf)
        wait_ms = None if next_s == math.inf else max(0.0, next_s - time.monotonic()) * 1000 + 1
        return {fd for fd, _ in poll.poll(wait_ms)}

    def _reap(self, ready: set[int]) -> None:
        """Take note of children that ended or became ready, and kill those whose time is up or whose caller left."""
        now = time.monotonic()
        for waiting in list(self.waiting):
            if waiting.pidfd in ready:
                self.waiting.remove(waiting)
                waiting.end()
                self._fork_more_rarely()
            elif waiting.requests.fileno() in ready:
                waiting.is_ready = bool(waiting.requests.recv(1))
        for child in list(self.busy):
            if child.pidfd in ready:
                self._forget(child)
            elif not child.is_killed and (child.conversation.fileno() in ready or child.deadline <= now):
                os.kill(child.pid, signal.SIGKILL)
                child.is_killed = True

    def _forget(self, child: BusyChild) -> None:
        """A child has ended: tell its caller, if it could not do so itself."""
        code = reap_child(child.pid, child.pidfd)
        self.busy.remove(child)
        with child.conversation:
            if code != 0:
                write_line(child.conversation, fault_answer(fault_of_exit_code(code)))

    def _accept(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self.control, MAX_REQUEST_BYTES, 1)
        if not packet:
            return False
        if not descriptors:
            return True
        self._begin(packet, socket.socket(fileno=descriptors[0]))
        return True

    def _begin(self, packet: bytes, conversation: socket.socket) -> None:
        with suppress(OSError):  # the caller hung up
            os.write(conversation.fileno(), TAKEN)
        try:
            request = ProbeRequest.model_validate_json(packet)
        except ValidationError:
            _refuse(conversation, Fault(FaultCode.BAD_REQUEST, "The probe does not know this request."))
            return
        try:
            pid, pidfd = self._hand_over(packet, conversation) or self._fork(request, conversation)
        except OSError:  # no process can be had
            _refuse(conversation, Fault(FaultCode.INTERNAL, "The check of this file could not begin."))
            return
        deadline = math.inf if request.is_long_lived else time.monotonic() + request.timeout_s
        self.busy.append(BusyChild(pid, pidfd, conversation, deadline))

    def _hand_over(self, packet: bytes, conversation: socket.socket) -> tuple[int, int] | None:
        """Pid and pidfd of a waiting child that has the request now; None where none is ready."""
        for waiting in [child for child in self.waiting if child.is_ready]:
            self.waiting.remove(waiting)
            with waiting.requests, suppress(OSError):  # it may have died a moment ago
                socket.send_fds(waiting.requests, [packet], [conversation.fileno()])
                self.quiet_s = _QUIET_S
                return waiting.pid, waiting.pidfd
            waiting.end()
        return None

    def _fork_more_rarely(self) -> None:
        """Waiting children die or can't be forked, most likely for want of memory."""
        self.quiet_s = min(2 * self.quiet_s, _MAX_QUIET_S)

    def _fork(self, request: ProbeRequest, conversation: socket.socket) -> tuple[int, int]:
        def run() -> None:
            close_all_but(2, conversation.fileno())
            write_line(conversation, answer(request, conversation))

        return fork_child(run)

    def _fork_ahead(self) -> None:
        try:
            while len(self.waiting) < _WAITING_CHILDREN:
                self.waiting.append(self._waiting_child())
        except OSError:
            self._fork_more_rarely()

    def _waiting_child(self) -> WaitingChild:
        requests, its_requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def run() -> None:
            self.check_sample()
            close_all_but(2, its_requests.fileno())
            os.write(its_requests.fileno(), b"+")
            packet, descriptors, _, _ = socket.recv_fds(its_requests, MAX_REQUEST_BYTES, 1)
            its_requests.close()
            if packet:
                request = ProbeRequest.model_validate_json(packet)
                caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptors[0])
                write_line(caller, answer(request, caller))

        with its_requests:
            try:
                return WaitingChild(*fork_child(run), requests)
            except OSError:
                requests.close()
                raise


def _refuse(conversation: socket.socket, fault: Fault) -> None:
    with conversation:
        write_line(conversation, fault_answer(fault))
