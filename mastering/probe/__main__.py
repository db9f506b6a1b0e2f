"""The zygote: imports the decoders once, then forks one child for each request that arrives on its socket.

One thread, before and after: a fork copies only the calling one. Nothing here reads a stranger's bytes. It ends when
its socket does, so it outlives its parent by nothing, kill -9 included; its children are killed with it.

A request is one packet: JSON (`answer.Request`) with one or two descriptors beside it: a stream socket that carries the
feed in and the answer out, and, instead of the feed, a sealed memory file.
"""

from __future__ import annotations

import os

# Before numpy: its BLAS would start a thread for each core.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import gc
import json
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field

from pydantic import ValidationError

from mastering import sandbox
from mastering.contract import Fault, FaultCode
from mastering.probe.answer import Request, answer, fault_answer
from mastering.probe.recordings import resource_fault, undecodable_fault
from mastering.probe.warming import warm_up

_MAX_REQUEST_BYTES = 16 * 1024
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS})


@dataclass
class _Child:
    pid: int
    handle: int
    """Its pidfd: readable when it has ended."""
    conversation: socket.socket
    deadline: float


@dataclass
class Zygote:
    """Listens on `control`; holds one `_Child` for each request in work."""

    control: socket.socket
    layers: dict[str, bool]
    children: list[_Child] = field(default_factory=list)

    def serve(self) -> None:
        """Until the socket's other end is closed."""
        self.control.send(json.dumps({"ready": self.layers}).encode())
        is_open = True
        while is_open:
            ready = self._wait()
            self._reap(ready)
            is_open = self.control.fileno() not in ready or self._accept()
        for child in self.children:
            os.kill(child.pid, signal.SIGKILL)

    def _wait(self) -> set[int]:
        """Descriptors with news: a packet, a child that ended, a caller that hung up; empty at a deadline."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        for child in self.children:
            poll.register(child.handle, select.POLLIN)
            poll.register(
                child.conversation, 0
            )  # a hang-up is always reported; a caller's end of feed is not asked for
        next_s = min((child.deadline for child in self.children), default=None)
        wait_ms = None if next_s is None else max(0.0, next_s - time.monotonic()) * 1000 + 1
        return {fd for fd, _ in poll.poll(wait_ms)}

    def _reap(self, ready: set[int]) -> None:
        now = time.monotonic()
        for child in list(self.children):
            if child.handle in ready:
                self._bury(child)
            elif child.conversation.fileno() in ready or child.deadline <= now:
                os.kill(child.pid, signal.SIGKILL)
                child.deadline = now + 3600

    def _bury(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self.children.remove(child)
        os.close(child.handle)
        with child.conversation:
            if status != 0:
                _tell(child.conversation, _post_mortem(status))

    def _accept(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self.control, _MAX_REQUEST_BYTES, 2)
        if not packet:
            return False
        if not descriptors:
            return True
        conversation, *rest = descriptors
        self._fork(packet, socket.socket(fileno=conversation), rest)
        for descriptor in rest:
            os.close(descriptor)
        return True

    def _fork(self, packet: bytes, conversation: socket.socket, rest: list[int]) -> None:
        _tell(conversation, b"+")
        try:
            request = Request.model_validate_json(packet)
        except ValidationError:
            with conversation:
                _tell(conversation, fault_answer(Fault(FaultCode.BAD_REQUEST, "The probe does not know this request.")))
            return
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            _live(zygote, request, conversation, rest)
        deadline = time.monotonic() + request.timeout_s
        self.children.append(_Child(pid, os.pidfd_open(pid), conversation, deadline))


def _live(zygote: int, request: Request, conversation: socket.socket, rest: list[int]) -> None:
    """The child's whole life."""
    status = 1
    try:
        sandbox.die_with_parent(zygote)
        _close_all_but(2, conversation.fileno(), *rest)
        _tell(conversation, answer(request, conversation, rest[0] if rest else None))
        status = 0
    finally:
        os._exit(status)


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


def _fence() -> dict[str, bool]:
    """What all children inherit, put up once: no network, no root, no files. Each layer says whether it stands."""
    sandbox.forbid_core_dumps()
    layers = {"network namespace": sandbox.leave_network(), "unprivileged user": sandbox.drop_root()}
    sandbox.keep_memory_private()  # after the change of user, which would lift it
    sandbox.forbid_new_privileges()
    return {**layers, "Landlock": sandbox.forbid_files()}


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "--zygote":
        sys.stderr.write("usage: python -m mastering.probe --zygote FD (a SOCK_SEQPACKET socket)\n")
        return 2
    control = socket.socket(fileno=int(arguments[1]))
    for stream in (0, 1, 2):  # C libraries write to descriptor 2
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, stream)
        os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm_up()
    layers = _fence()
    gc.collect()
    gc.freeze()
    Zygote(control, layers).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
