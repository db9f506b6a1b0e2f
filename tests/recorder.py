"""A TCP proxy on loopback that keeps every byte that went through it: what one process told another, as on a wire."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_READ_BYTES = 64 * 1024


@dataclass
class Recorder:
    """Forwards to `upstream`; `sent` is what its clients sent there and `answers` what came
    back, one entry for each connection."""

    listening: socket.socket
    upstream: tuple[str, int]
    sent: list[bytearray] = field(default_factory=list)
    answers: list[bytearray] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    @property
    def requests(self) -> bytes:
        return b"\0".join(map(bytes, self.sent))

    def accept(self) -> None:
        """Until the listening socket is closed."""
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self.upstream, timeout=10)
            except OSError:  # the upstream is dead: so is the connection
                client.close()
                continue
            server.settimeout(None)
            self.sent.append(bytearray())
            self.answers.append(bytearray())
            threading.Thread(target=_pump, args=(client, server, self.sent[-1]), daemon=True).start()
            threading.Thread(target=_pump, args=(server, client, self.answers[-1]), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_READ_BYTES):
            record += chunk
            sink.sendall(chunk)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextmanager
def recorder(upstream_url: str) -> Iterator[Recorder]:
    parts = urlsplit(upstream_url)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        wire = Recorder(listening, (str(parts.hostname), int(parts.port or 80)))
        accepting = threading.Thread(target=wire.accept, daemon=True)
        accepting.start()
        yield wire
        listening.shutdown(socket.SHUT_RDWR)  # a close alone does not wake a thread that waits in accept
    accepting.join(5)
