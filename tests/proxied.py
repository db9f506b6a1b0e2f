"""The shipped proxy configuration before a real router: HAProxy, with a certificate made for the occasion."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.stack import free_port

CONFIGURATION = Path(__file__).parent.parent / "ops" / "proxy" / "haproxy.cfg"
_START_S = 20.0


class Proxy(NamedTuple):
    https_port: int
    http_port: int
    certificate: Path
    """Whom a client of this proxy has to trust."""


@contextmanager
def proxy(
    folder: Path, upstream_port: int, https_port: int | None = None, more: Sequence[Path] = ()
) -> Iterator[Proxy]:
    """HAProxy with the shipped configuration, before a router on loopback; `more` files add to it."""
    running = Proxy(https_port or free_port(), free_port(), _certificate(folder))
    with (folder / "haproxy.txt").open("wb") as output:
        process = subprocess.Popen(
            [whole_program(), "-db", *(word for path in (CONFIGURATION, *more) for word in ("-f", str(path)))],
            env=environment_of(running, upstream_port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(process, running.https_port, folder / "haproxy.txt")
        yield running
    finally:
        process.kill()
        process.wait(10)


def whole_program() -> str:
    """HAProxy's own path; Debian puts it where only root looks."""
    return shutil.which("haproxy") or "/usr/sbin/haproxy"


def environment_of(running: Proxy, upstream_port: int) -> dict[str, str]:
    return {
        **os.environ,
        "ROUTER_CERTIFICATE": str(running.certificate),
        "ROUTER_UPSTREAM": f"127.0.0.1:{upstream_port}",
        "ROUTER_HTTPS": f"127.0.0.1:{running.https_port}",
        "ROUTER_HTTP": f"127.0.0.1:{running.http_port}",
    }


def _wait(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    give_up_at = time.monotonic() + _START_S
    while time.monotonic() < give_up_at:
        if process.poll() is not None:
            raise RuntimeError(f"HAProxy ended: {output.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"HAProxy did not listen: {output.read_text()}")


def _certificate(folder: Path) -> Path:
    """A PEM file with a self-signed certificate for localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "proxy.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
