"""The fork server of renders: a process with the engine imported that forks a rendering process for each request.

A new Python process would import the engine for each song, which takes longer than a short song; a fork has it at
once. Nothing here reads untrusted bytes, and there is one thread, before and after. It ends when its socket is closed,
and its children with it. What a rendering process leaves behind, in whatever session, ends with that process.

Command line: the socket, what makes masters (``module:function``, as `JobKind.run`), and its preparation, if any
(`child.RenderProgram`).
On the socket (SOCK_SEQPACKET), worker → fork server: one byte with a rendering process's end of a socket. On that one,
fork server → worker: {"forked": pid} with a pidfd, and {"ended": exit code}; all else on it is the child's (`child`).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mastering.contract.kinds import MASTER
from mastering.runtime import blas, sandbox
from mastering.runtime.forked_child import close_all_but, end_other_children, fork_child, reap_child
from mastering.worker import child
from mastering.worker.served_kinds import served_kinds

_SYSTEM = (
    "/usr", "/lib", "/lib64", "/nix/store", "/gnu/store", "/etc/ld.so.cache", "/etc/localtime",
    "/sys", "/dev/zero", "/dev/random", "/dev/urandom",
    *(f"/proc/{name}" for name in ("self", "cpuinfo", "meminfo", "stat", "version", "devices", "driver", "sys/vm")),
)  # fmt: skip
"""What libraries read of a machine when they are loaded, or look at its processors and its GPU."""


@dataclass
class ForkServer:
    """Forks a rendering process for each request on `control`, until the worker closes its end of it."""

    control: socket.socket
    program: child.RenderProgram
    _children: dict[int, tuple[int, socket.socket]] = field(default_factory=dict)
    """By pidfd: a child's pid, and its end of the socket, kept to tell of its end."""
    _poll: select.poll = field(default_factory=select.poll)

    def serve(self) -> None:
        self._poll.register(self.control, select.POLLIN)
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self.control.fileno():
                    self._reap(descriptor)
                elif not self._accept():
                    end_other_children(known=())
                    return

    def _accept(self) -> bool:
        """Serve one request; False when the worker is gone.

        A request that can't be served costs no other render anything: its socket is closed, which the worker sees.
        """
        packet, descriptors, _, _ = socket.recv_fds(self.control, 1, 1)
        for descriptor in descriptors:  # none came where this process may open no more
            link = socket.socket(fileno=descriptor)
            try:
                self._fork(link)
            except OSError:  # no process can be had
                link.close()
        return bool(packet)

    def _fork(self, link: socket.socket) -> None:
        fork_server = os.getpid()

        def run() -> None:
            close_all_but(2, link.fileno())
            child.run(link, self.program, fork_server)

        pid, pidfd = fork_child(run)
        self._children[pidfd] = pid, link
        self._poll.register(pidfd, select.POLLIN)
        _tell(link, {"forked": pid}, [pidfd])

    def _reap(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        pid, link = self._children.pop(pidfd)
        with link:
            code = reap_child(pid, pidfd)
            end_other_children(known=[child_pid for child_pid, _ in self._children.values()])
            _tell(link, {"ended": code})


def _tell(link: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    """Send without waiting: a worker that does not read, or is gone, must not hold up the other children."""
    try:
        socket.send_fds(link, [json.dumps(message).encode()], descriptors or [], socket.MSG_DONTWAIT)
    except OSError:
        return


def load_function(path: str) -> Callable[..., Any]:
    """Import the function that `path`, ``module:function``, names."""
    module, name = path.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def program_files() -> list[Path]:
    """Files and folders that a rendering process may read: what may yet be imported, loaded or asked of the machine.

    A process that a song has taken over finds no keys, no spool and no store there, though it may run as the router's
    user.
    """
    # Not by `__path__`: torch has modules that answer any name with an object of their own.
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    packages = [Path(place) for spec in specs for place in getattr(spec, "submodule_search_locations", None) or ()]
    # A checkout's root is no folder of packages: people keep all kinds of things there.
    paths = [place for place in map(Path, filter(None, sys.path)) if not (place / "pyproject.toml").exists()]
    told = [place for name in ("LD_LIBRARY_PATH", "MASTERING_PRESETS") for place in os.environ.get(name, "").split(":")]
    return [
        Path(sys.prefix),
        Path(sys.base_prefix),
        *packages,
        *paths,
        *map(Path, filter(None, told)),
        *map(Path, _SYSTEM),
    ]


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.dont_write_bytecode = True
    sandbox.forbid_core_dumps()
    sandbox.keep_memory_private()
    sandbox.adopt_orphans()
    blas.one_thread()
    control = socket.socket(fileno=int(arguments[0]))
    paths = {name: kind.run for name, kind in served_kinds().items()} | {MASTER.name: arguments[1]}
    runs = {name: load_function(path) for name, path in paths.items()}
    prepare = load_function(arguments[2]) if arguments[2:] else None
    program = child.RenderProgram(runs, prepare, tuple(program_files()))
    gc.collect()
    gc.freeze()  # the children share these objects' pages as long as no collection writes to them
    ForkServer(control, program).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
