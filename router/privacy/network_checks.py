"""Checks of what the network sees: listening sockets, TLS at the public address, and the headers of answers."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from router.privacy.finding import Finding, Installation

_LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp: TCP_LISTEN of the kernel's tcp_states.h."""
TIMEOUT_S = 5.0
"""Seconds for each request: the router is on this machine, its public address a proxy before it."""
_TWO_YEARS_S = 2 * 365 * 86_400
"""Seconds for which Strict-Transport-Security must bind browsers."""


def sockets(where: Installation) -> Iterator[Finding]:
    """Router, operators' port and workers listen on loopback alone; workers elsewhere take signed requests alone."""
    settings = where.settings
    ports = {settings.port, settings.admin_port, *(urlsplit(url).port for url in settings.workers)}
    strange = sorted({one.port for one in _listening_sockets() if one.port in ports and not one.is_loopback})
    yield Finding(
        "router, operators' port and workers are reached through loopback alone",
        not strange,
        f"ports {', '.join(map(str, strange))} are open to the network: bind them to 127.0.0.1 behind a proxy, or"
        " close them by a firewall",
    )
    foreign = [url for url in settings.workers if urlsplit(url).scheme == "https"]
    signed = settings.worker_secret is not None or not foreign
    yield Finding("workers elsewhere take signed requests alone", signed, "set ROUTER_WORKER_SECRET")


class _ListeningSocket(NamedTuple):
    """A TCP socket that accepts connections: its port, whether on loopback alone, its user, its inode."""

    port: int
    is_loopback: bool
    uid: int
    inode: str


def _listening_sockets() -> Iterator[_ListeningSocket]:
    """Every listening TCP socket of this machine; /proc/net/tcp as in proc(5)."""
    for name in ("tcp", "tcp6"):
        path = Path(f"/proc/net/{name}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == _LISTEN:
                loopback = address.endswith("7F") or address in ("0" * 24 + "01000000",) or address.endswith("0100007F")
                yield _ListeningSocket(int(port, 16), loopback, int(fields[7]), fields[9])


def listening_pid(port: int | None) -> int | None:
    """The process that listens on a port of this machine, where we may see it."""
    links = {f"socket:[{socket.inode}]" for socket in _listening_sockets() if socket.port == port}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in links for fd in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    return None


def tls(where: Installation) -> Iterator[Finding]:
    """The public address refuses TLS 1.2 and tells browsers to come by TLS for two years (HSTS)."""
    public = where.settings.public_url
    if public is None:
        cure = "none is needed while only this machine is served; else set ROUTER_PUBLIC_URL to the proxy's address"
        yield Finding("people come by TLS 1.3", None, cure)
        return
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        httpx.get(public, verify=context, timeout=TIMEOUT_S, trust_env=False)
        yield Finding("people come by TLS 1.3 alone", False, "let the proxy refuse TLS 1.2 (ops has its configuration)")
    except httpx.HTTPError:
        yield Finding("TLS 1.2 is refused", True)
    try:
        answer = httpx.get(public, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        yield Finding("people come by TLS 1.3", None, f"{public} can't be reached from here: ask from outside")
        return
    found = re.search(r"max-age=(\d+)", answer.headers.get("strict-transport-security", ""))
    long_enough = found is not None and int(found[1]) >= _TWO_YEARS_S
    yield Finding("browsers are told to come by TLS for two years", long_enough, "let no proxy remove the header")


def headers(where: Installation) -> Iterator[Finding]:
    """A page and an error carry the security headers, other sites' requests are refused, a visit sets no cookie."""
    if where.url is None:
        yield Finding("every answer carries the strict headers", None, "start the router, or name it by --url")
        return
    required = ("content-security-policy", "x-content-type-options", "referrer-policy", "cross-origin-opener-policy")
    with httpx.Client(base_url=where.url, timeout=TIMEOUT_S, trust_env=False) as http:
        for path in ("/", "/no-such-page"):
            missing = [name for name in required if name not in http.get(path).headers]
            cure = f"missing: {', '.join(missing)}: let no proxy remove them"
            yield Finding(f"{'a page' if path == '/' else 'an error'} carries the strict headers", not missing, cure)
        foreign = http.post("/v1/jobs", json={}, headers={"origin": "https://elsewhere.example"})
        refused = foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers
        yield Finding(
            "requests from other sites are refused", refused, "let no proxy change Origin or add CORS headers"
        )
        cookies = http.get("/").headers.get_list("set-cookie")
        yield Finding("looking at the page sets no cookie", not cookies, "let no proxy add cookies")
