"""Run the worker: its listening socket, its HTTP server, and how it stops."""

from __future__ import annotations

import resource
import signal
import socket
import ssl
from types import FrameType

import uvicorn

from mastering.runtime import sandbox
from mastering.worker.app import Worker, create_app
from mastering.worker.connections import MAX_HEAD_BYTES, WorkerServerConnection
from mastering.worker.event_log import WorkerEventLog
from mastering.worker.settings import WorkerSettings

_MOST_DESCRIPTORS = 65_536
_DEAD_PEER_MS = 10_000
"""A caller's machine that fell silent is noticed in this time while there are bytes to deliver (heartbeats are)."""


class IncompleteSandboxError(Exception):
    """The sandbox of rendering processes lacks something on this machine, and the operator has not allowed that."""


class _DrainingServer(uvicorn.Server):
    """Stops in good order. On SIGTERM: no new slots, running renders end (within drain_s), then the process."""

    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self._worker = worker
        self._log = worker.log
        self._told_gaps: tuple[str, ...] = ()

    async def on_tick(self, counter: int) -> bool:
        pool = self._worker.render_pool
        if pool.sandbox_gaps != self._told_gaps:
            self._told_gaps = pool.sandbox_gaps
            self._log.sandbox_incomplete(pool.sandbox_gaps)
        return await super().on_tick(counter) or pool.is_refused

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own: that raises the signal again in the end, and a stop in good order is no failure.
        if not self.should_exit:
            self._log.stopping()
        self._worker.slots.is_draining = True
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections notice a dead peer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return _listening(listener)


def adopted(descriptor: int) -> socket.socket:
    """The same on a socket that the parent process has bound. Raises OSError."""
    return _listening(socket.socket(fileno=descriptor))


def _listening(bound: socket.socket) -> socket.socket:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_MS)
    bound.listen(128)
    bound.set_inheritable(False)
    return bound


def allow_descriptors() -> None:
    """Raise the limit of descriptors as far as the host allows.

    A TLS handshake may take a minute, and a caller that only begins one holds a socket.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def serve(settings: WorkerSettings, listener: socket.socket | None = None) -> None:
    """Serve until told to stop, on `listener` where one is given. Raises IncompleteSandboxError."""
    sandbox.forbid_core_dumps()
    sandbox.keep_memory_private()  # it holds the keys, and untrusted audio is parsed under the same user
    allow_descriptors()
    log = WorkerEventLog()
    log.capture_process_output()
    app = create_app(settings, log)
    config = uvicorn.Config(
        app,
        http=WorkerServerConnection,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.drain_s),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    listener = listener or listen(settings.host, settings.port)
    log.listening(listener.getsockname()[1], settings.concurrency)
    _DrainingServer(config, app.state.worker).run(sockets=[listener])
    pool = app.state.worker.render_pool
    if pool.is_refused:
        raise IncompleteSandboxError(
            f"This machine does not keep a rendering process from: {', '.join(pool.sandbox_gaps)}. It needs Landlock "
            "(Linux 5.13), seccomp and libseccomp; MASTERING_WORKER_ALLOW_INCOMPLETE_SANDBOX=true renders without."
        )
    log.stopped()
