"""A TCP proxy that cuts every connection that has sent so many bytes: a train through many tunnels."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

_READ_BYTES = 64 * 1024


@dataclass
class CuttingProxy:
    """Forwards to `upstream` and cuts each connection that sends `cut_after_bytes`.

    Each, because Chromium by itself sends a request again from its start when a connection it used before breaks:
    only who continues gets a larger file through.
    """

    listening: socket.socket
    upstream: tuple[str, int]
    cut_after_bytes: int
    cuts: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def accept(self) -> None:
        """Until the listening socket is closed."""
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            server = socket.create_connection(self.upstream)
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=_pump, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while chunk := client.recv(_READ_BYTES):
                server.sendall(chunk)
                sent += len(chunk)
                if sent >= self.cut_after_bytes:
                    self.cuts += 1
                    break
        _close(client, server)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_READ_BYTES):
            sink.sendall(chunk)
    _close(source, sink)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextmanager
def cutting_proxy(upstream_url: str, cut_after_bytes: int) -> Iterator[CuttingProxy]:
    parts = urlsplit(upstream_url)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = CuttingProxy(listening, (str(parts.hostname), int(parts.port or 80)), cut_after_bytes)
        accepting = threading.Thread(target=proxy.accept, daemon=True)
        accepting.start()
        yield proxy
        # A close alone does not wake a thread that waits in accept.
        listening.shutdown(socket.SHUT_RDWR)
    accepting.join(5)
