"""The zygote: a process with the decoders imported that forks one child for each request on its socket.

One thread, before and after: a fork copies only the calling one. Nothing here reads a stranger's bytes. It ends when
its socket does, so it outlives its parent by nothing, kill -9 included; its children are killed with it.

A request is one packet: JSON (`request.Request`) with a descriptor beside it, a stream socket that carries the feed in
and the answer out.

A fork and the pages that a young process copies take longer than a short song's decoding. So two children, a song's and
its master's, are made ahead in a quiet moment and wait. They have seen nothing, and each still hears one file only, or
becomes the one that glances at the beginnings of all (`glance`) and hears none.
"""

from __future__ import annotations

import json
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
from mastering.probe.decoders import resource_fault, undecodable_fault
from mastering.protocol.probe import Request
from mastering.runtime import sandbox

_MAX_REQUEST_BYTES = 16 * 1024
_SPARES = 2
_QUIET_S = 0.1
"""So long nothing has happened when new spares are made: they must not cost the song that took the last one."""
_LEISURE = 5
"""Times as long where one is left: it must not cost a song that is about to take that one."""
_LONGEST_QUIET_S = 60.0
"""Where spares die or can't be made, they are made more and more rarely."""
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS})


@dataclass
class _Child:
    pid: int
    handle: int
    """Its pidfd: readable when it has ended."""
    conversation: socket.socket
    deadline: float
    """Never for one that serves until its caller hangs up."""
    is_killed: bool = False

    @property
    def is_standing(self) -> bool:
        return self.deadline == math.inf


@dataclass
class _Spare:
    pid: int
    handle: int
    lead: socket.socket
    """By which its request comes, when it has said that it is warm."""
    is_warm: bool = False


@dataclass
class ForkServer:
    """Listens on `control`; holds one `_Child` for each request in work."""

    control: socket.socket
    layers: dict[str, bool]
    rehearse: Callable[[], object]
    """What a spare does while it waits, so that its pages are its own by then."""
    children: list[_Child] = field(default_factory=list)
    spares: list[_Spare] = field(default_factory=list)
    quiet_s: float = _QUIET_S

    def serve(self) -> None:
        """Until the socket's other end is closed."""
        self.control.send(json.dumps({"ready": self.layers}).encode())
        is_open = True
        while is_open:
            ready = self._wait()
            self._reap(ready)
            if self.control.fileno() in ready:
                is_open = self._accept()
            elif not ready and self._wants_spares():
                self._make_spares()
        for pid in [child.pid for child in self.children] + [spare.pid for spare in self.spares]:
            os.kill(pid, signal.SIGKILL)

    def _wants_spares(self) -> bool:
        return len(self.spares) < _SPARES and all(child.is_standing for child in self.children)

    def _wait(self) -> set[int]:
        """Descriptors with news: a packet, a child that ended, a caller that hung up; empty when time is up."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        for spare in self.spares:
            poll.register(spare.handle, select.POLLIN)
            if not spare.is_warm:
                poll.register(spare.lead, select.POLLIN)
        for child in self.children:
            poll.register(child.handle, select.POLLIN)
            if not child.is_killed:  # a hang-up is always reported, and for as long as it lasts
                poll.register(child.conversation, 0)
        if self._wants_spares():
            quiet_s = self.quiet_s * (_LEISURE if self.spares else 1)
            return {fd for fd, _ in poll.poll(quiet_s * 1000)}
        next_s = min((child.deadline for child in self.children if not child.is_killed), default=math.inf)
        wait_ms = None if next_s == math.inf else max(0.0, next_s - time.monotonic()) * 1000 + 1
        return {fd for fd, _ in poll.poll(wait_ms)}

    def _reap(self, ready: set[int]) -> None:
        now = time.monotonic()
        for spare in list(self.spares):
            if spare.handle in ready:
                self.spares.remove(spare)
                _end(spare)
                self._be_slower()
            elif spare.lead.fileno() in ready:
                spare.is_warm = bool(spare.lead.recv(1))
        for child in list(self.children):
            if child.handle in ready:
                self._bury(child)
            elif not child.is_killed and (child.conversation.fileno() in ready or child.deadline <= now):
                os.kill(child.pid, signal.SIGKILL)
                child.is_killed = True

    def _bury(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self.children.remove(child)
        os.close(child.handle)
        with child.conversation:
            if status != 0:
                _tell(child.conversation, _post_mortem(status))

    def _accept(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self.control, _MAX_REQUEST_BYTES, 1)
        if not packet:
            return False
        if not descriptors:
            return True
        self._take_up(packet, socket.socket(fileno=descriptors[0]))
        return True

    def _take_up(self, packet: bytes, conversation: socket.socket) -> None:
        _tell(conversation, b"+")
        try:
            request = Request.model_validate_json(packet)
        except ValidationError:
            with conversation:
                _tell(conversation, fault_answer(Fault(FaultCode.BAD_REQUEST, "The probe does not know this request.")))
            return
        try:
            pid, handle = self._hand_over(packet, conversation) or self._fork(request, conversation)
        except OSError:  # no process can be had
            with conversation:
                _tell(conversation, fault_answer(Fault(FaultCode.INTERNAL, "The check of this file could not begin.")))
            return
        deadline = math.inf if request.is_standing else time.monotonic() + request.timeout_s
        self.children.append(_Child(pid, handle, conversation, deadline))

    def _hand_over(self, packet: bytes, conversation: socket.socket) -> tuple[int, int] | None:
        """A spare that has the request now; None where there is none."""
        for spare in [spare for spare in self.spares if spare.is_warm]:
            self.spares.remove(spare)
            with spare.lead, suppress(OSError):  # it may have died a moment ago
                socket.send_fds(spare.lead, [packet], [conversation.fileno()])
                self.quiet_s = _QUIET_S
                return spare.pid, spare.handle
            _end(spare)
        return None

    def _be_slower(self) -> None:
        """Spares die or can't be made for want of memory, as like as not."""
        self.quiet_s = min(2 * self.quiet_s, _LONGEST_QUIET_S)

    def _fork(self, request: Request, conversation: socket.socket) -> tuple[int, int]:
        def live() -> None:
            _close_all_but(2, conversation.fileno())
            _tell(conversation, answer(request, conversation))

        return _born(live)

    def _make_spares(self) -> None:
        try:
            while len(self.spares) < _SPARES:
                self.spares.append(self._spare())
        except OSError:
            self._be_slower()

    def _spare(self) -> _Spare:
        lead, led = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def live() -> None:
            self.rehearse()
            _close_all_but(2, led.fileno())
            os.write(led.fileno(), b"+")
            packet, descriptors, _, _ = socket.recv_fds(led, _MAX_REQUEST_BYTES, 1)
            led.close()
            if packet:
                request = Request.model_validate_json(packet)
                caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptors[0])
                _tell(caller, answer(request, caller))

        with led:
            try:
                return _Spare(*_born(live), lead)
            except OSError:
                lead.close()
                raise


def _end(spare: _Spare) -> None:
    """A spare that has no request, dead or alive."""
    os.kill(spare.pid, signal.SIGKILL)
    os.waitpid(spare.pid, 0)
    os.close(spare.handle)
    spare.lead.close()


def _born(live: Callable[[], None]) -> tuple[int, int]:
    """A child that does `live` and nothing after it: its pid, and a descriptor that tells its end."""
    zygote = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            sandbox.die_with_parent(zygote)
            live()
            status = 0
        finally:
            os._exit(status)
    return pid, os.pidfd_open(pid)


def _close_all_but(*keep: int) -> None:
    """The zygote's own socket and those of the other children are none of this child's business."""
    edges = sorted(keep)
    for low, high in zip(edges, [*edges[1:], 4096], strict=True):
        os.closerange(low + 1, high)


def _tell(conversation: socket.socket, text: bytes) -> None:
    try:
        # write, not send: the system call filter knows no other.
        os.write(conversation.fileno(), text + b"\n")
    except OSError:
        return  # the caller hung up


def _post_mortem(status: int) -> bytes:
    """Why a child ended without an answer."""
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _CRASHES:
        return fault_answer(undecodable_fault())
    return fault_answer(resource_fault())
