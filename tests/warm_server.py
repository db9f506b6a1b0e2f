"""The fork server of `warm_start`: a process that has imported modules and forks a program for each request.

Command line: its listening socket (SOCK_SEQPACKET), the modules to import. A connection is one request, as JSON, with
descriptors; the answers on it are the pid, with a pidfd, and at the end the exit code. A process whose connection is
closed is killed. The server ends when its standard input does.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any

from mastering.runtime import blas, child_process
from mastering.runtime.forked_child import close_all_but, fork_child, reap_child
from tests import warm_children

_UPLOADED = ("mastering", "mastering_space", "router", "tests")
"""Packages of this checkout: `app.py` is to import those that lie beside it."""
_MAX_PACKET_BYTES = 128 * 1024
_MAX_DESCRIPTORS = 16
_UNUSED_DESCRIPTORS = 256
"""From here on descriptors wait for the number that the program is to find them under."""
_PR_SET_NAME = 15
_IS_CLOSED = select.POLLHUP | select.POLLERR


class WarmServer:
    """Forks a process for each request. One thread, before and after."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._links: dict[int, socket.socket] = {}
        """By descriptor: connections that have asked for nothing yet."""
        self._running: dict[int, tuple[int, socket.socket]] = {}
        """By pidfd: the process, and the connection to tell of its end."""
        self._pidfd_of: dict[int, int] = {}
        """By a connection's descriptor, while its process runs."""
        self._poll = select.poll()

    def serve(self) -> None:
        self._poll.register(0, select.POLLHUP)
        self._poll.register(self._listener, select.POLLIN)
        while True:
            for descriptor, event in self._poll.poll():
                if descriptor == 0:
                    return
                if descriptor == self._listener.fileno():
                    link, _ = self._listener.accept()
                    self._links[link.fileno()] = link
                    self._poll.register(link, select.POLLIN)
                elif descriptor in self._links:
                    self._accept(self._links.pop(descriptor))
                elif descriptor in self._running:
                    self._reap(descriptor)
                elif event & _IS_CLOSED and descriptor in self._pidfd_of:
                    self._poll.unregister(descriptor)
                    signal.pidfd_send_signal(self._pidfd_of[descriptor], signal.SIGKILL)

    def _accept(self, link: socket.socket) -> None:
        self._poll.unregister(link)
        packet, descriptors, _, _ = socket.recv_fds(link, _MAX_PACKET_BYTES, _MAX_DESCRIPTORS)
        if packet:
            request = json.loads(packet)
            pid, pidfd = fork_child(lambda: _run(request, descriptors))
            self._running[pidfd] = pid, link
            self._pidfd_of[link.fileno()] = pidfd
            self._poll.register(pidfd, select.POLLIN)
            self._poll.register(link, 0)  # its end is always told
            with suppress(OSError):  # nobody may wait any more
                socket.send_fds(link, [str(pid).encode()], [pidfd])
        else:
            link.close()
        for descriptor in descriptors:
            os.close(descriptor)

    def _reap(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        pid, link = self._running.pop(pidfd)
        code = reap_child(pid, pidfd)
        del self._pidfd_of[link.fileno()]
        with suppress(KeyError):  # it was closed first
            self._poll.unregister(link)
        with link, suppress(OSError):
            link.send(str(code).encode())


def _run(request: dict[str, Any], descriptors: list[int]) -> None:
    """The child: the program in the place of the fork server."""
    _place(dict(zip(request["descriptors"], descriptors, strict=True)))
    # That of the server was asked once whether it can be sought, and was another file.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    tempfile.tempdir = None
    if "parent" in request:
        _set_name(warm_children.name_of_children(request["parent"]))
    if request.get("session"):
        os.setsid()
    if children := request.get("children"):
        child_process.start = warm_children.starter(children)
    module = request["module"]
    sys.argv = [module, *request["arguments"]]
    code: object = 0
    try:
        if module.endswith(".py"):
            for name in [name for name in sys.modules if name.partition(".")[0] in _UPLOADED]:
                del sys.modules[name]
            sys.path[0] = request["folder"]
            runpy.run_path(module, run_name="__main__")
        elif ":" in module:
            module, _, function = module.partition(":")
            sys.argv[0] = module.partition(".")[0]
            getattr(import_module(module), function)()
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _place(given: dict[int, int]) -> None:
    """Give descriptors the numbers that are their keys, and close all others."""
    null = os.open(os.devnull, os.O_RDWR)
    waiting = {
        number: fcntl.fcntl(descriptor, fcntl.F_DUPFD, _UNUSED_DESCRIPTORS)
        for number, descriptor in {0: null, **given}.items()
    }
    close_all_but(-1, *waiting.values())
    for number, descriptor in waiting.items():
        os.dup2(descriptor, number)
        os.close(descriptor)


def _set_name(name: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


if __name__ == "__main__":
    blas.one_thread()
    for preloaded in sys.argv[2:]:
        import_module(preloaded)
    gc.freeze()
    WarmServer(socket.socket(fileno=int(sys.argv[1]))).serve()
