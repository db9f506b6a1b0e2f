"""What can be seen from this machine of an installation that keeps the promises, one function a check.

Each yields findings: what was looked at, whether it holds (None: it can't be told from here, and the cure says how to),
and the cure. Nothing is changed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from mastering.contract import Fault
from mastering.runtime import sandbox as sandbox_of_ours
from router.core import event_log
from router.core.command_error import CommandError
from router.core.settings import RouterSettings, refuse_strangers
from router.privacy import packages
from router.privacy.finding import Finding, Installation
from router.probe.client import Probe
from router.spool import boot_id, ram_check
from router.tiers.connect import catalogue_watcher_of
from router.tiers.fleet.reload import CatalogueWatcher
from router.web import routes
from router.web.pages import privacy_policy

_DAY_S = 86_400
_LISTEN = "0A"
_TIMEOUT_S = 5.0


def storage(where: Installation) -> Iterator[Finding]:
    """RAM is RAM, and the spool tells backup programs to stay away."""
    settings = where.settings
    if settings.ram_dir.is_dir():
        found = ram_check.check(settings.ram_dir)
        yield Finding("keys and job records lie in RAM", found is None, f"{found.wrong}. {found.cure}" if found else "")
    else:
        yield Finding("keys and job records lie in RAM", None, "no router has run with these settings yet: start it")
    tag = settings.spool_dir / boot_id.CACHEDIR_TAG
    if settings.spool_dir.is_dir():
        kept = tag.is_file() and tag.read_text() == boot_id.TAG_TEXT
        yield Finding("backup programs are told to pass the spool over", kept, "start the router, which writes the tag")
    swaps = Path("/proc/swaps")
    swapping = swaps.exists() and len(swaps.read_text().splitlines()) > 1
    yield Finding(
        "memory in which songs are rendered is not swapped",
        not swapping,
        "switch swap off (swapoff -a), or encrypt it with a key of each boot",
    )


def permissions(where: Installation) -> Iterator[Finding]:
    """Folders and files are ours alone."""
    settings = where.settings
    for folder in (settings.ram_dir, settings.spool_dir, settings.state_dir, settings.log_dir):
        if folder is None or not folder.is_dir():
            continue
        wrong = sum(_is_open(path) for path in (folder, *folder.rglob("*")))
        yield Finding(f"{_kind(settings, folder)} can be read by nobody else", wrong == 0, f"chmod -R go= {folder}")


def _is_open(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return bool(found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)) or found.st_uid != os.geteuid()


def _kind(settings: RouterSettings, folder: Path) -> str:
    kinds = {settings.ram_dir: "the folder in RAM", settings.spool_dir: "the spool", settings.state_dir: "the store"}
    return kinds.get(folder, "the log")


def core_dumps(where: Installation) -> Iterator[Finding]:
    """No process may leave a core dump."""
    running = _limits_of(where)
    if running is not None:
        yield Finding("the running router has a core limit of 0", running, "run this version of the router")
        return
    before = resource.getrlimit(resource.RLIMIT_CORE)
    sandbox_of_ours.forbid_core_dumps()
    yield Finding(
        "a router may have a core limit of 0", resource.getrlimit(resource.RLIMIT_CORE) == (0, 0), str(before)
    )


def _limits_of(where: Installation) -> bool | None:
    pid = _listener_pid(urlsplit(where.url).port) if where.url else None
    if pid is None:
        return None
    return re.search(r"^Max core file size +0 +0 ", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE) is not None


def log(where: Installation) -> Iterator[Finding]:
    """Where lines go, and that old ones went."""
    folder = where.settings.log_dir
    if folder is None:
        yield Finding(
            "log lines go after seven days",
            None,
            "the log goes to standard error and its keeper decides: set ROUTER_LOG_DIR, or journald's"
            " MaxRetentionSec=7day",
        )
        return
    oldest = time.time() - (event_log.DAYS_KEPT * _DAY_S + 3600)
    late = [path for path in folder.glob("router-*.jsonl") if path.stat().st_mtime < oldest]
    yield Finding("log lines go after seven days", not late, "start the router, which removes what is too old")
    event_log.learn_routes(routes.templates())
    lines = (line for path in folder.glob("router-*.jsonl") for line in path.read_text("utf-8").splitlines())
    bad = sum(not _is_ours(line) for line in lines)
    yield Finding("every line of the log is on the list", bad == 0, f"{bad} lines are not: remove them")


def _is_ours(line: str) -> bool:
    try:
        said = json.loads(line)
        kinds = event_log.book.events[said["event"]]
    except (ValueError, KeyError, TypeError):
        return False
    return all(name in ("minute", "event") or (name in kinds and kinds[name].admits(said[name])) for name in said)


def sockets(where: Installation) -> Iterator[Finding]:
    """What listens on this machine's outer addresses, of our ports and our user."""
    settings = where.settings
    ports = {settings.port, settings.admin_port, *(urlsplit(url).port for url in settings.workers)}
    strange = sorted({port for port, loopback, uid in _listening() if port in ports and not loopback})
    yield Finding(
        "router, operators' port and workers are reached through loopback alone",
        not strange,
        f"ports {', '.join(map(str, strange))} are open to the network: bind them to 127.0.0.1 behind a proxy, or"
        " close them by a firewall",
    )
    foreign = [url for url in settings.workers if urlsplit(url).scheme == "https"]
    signed = settings.worker_secret is not None or not foreign
    yield Finding("workers elsewhere take signed requests alone", signed, "set ROUTER_WORKER_SECRET")


def _listening() -> Iterator[tuple[int, bool, int]]:
    """Port, whether it is loopback's, and user of every listening socket; /proc/net/tcp as in proc(5)."""
    for name in ("tcp", "tcp6"):
        path = Path(f"/proc/net/{name}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == _LISTEN:
                loopback = address.endswith("7F") or address in ("0" * 24 + "01000000",) or address.endswith("0100007F")
                yield int(port, 16), loopback, int(fields[7])


def _listener_pid(port: int | None) -> int | None:
    """The process that listens on a port of this machine, where we may see it."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        path = Path(f"/proc/net/{name}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == _LISTEN and port is not None and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    return None


def tls(where: Installation) -> Iterator[Finding]:
    """TLS 1.3 alone, and two years of it."""
    public = where.settings.public_url
    if public is None:
        cure = "none is needed while only this machine is served; else set ROUTER_PUBLIC_URL to the proxy's address"
        yield Finding("people come by TLS 1.3", None, cure)
        return
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        httpx.get(public, verify=context, timeout=_TIMEOUT_S, trust_env=False)
        yield Finding("people come by TLS 1.3 alone", False, "let the proxy refuse TLS 1.2 (ops has its configuration)")
    except httpx.HTTPError:
        yield Finding("TLS 1.2 is refused", True)
    try:
        answer = httpx.get(public, timeout=_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        yield Finding("people come by TLS 1.3", None, f"{public} can't be reached from here: ask from outside")
        return
    found = re.search(r"max-age=(\d+)", answer.headers.get("strict-transport-security", ""))
    long_enough = found is not None and int(found[1]) >= 2 * 365 * _DAY_S
    yield Finding("browsers are told to come by TLS for two years", long_enough, "let no proxy remove the header")


def headers(where: Installation) -> Iterator[Finding]:
    """The strict headers on a page and on an error; no other site is let in."""
    if where.url is None:
        yield Finding("every answer carries the strict headers", None, "start the router, or name it by --url")
        return
    wanted = ("content-security-policy", "x-content-type-options", "referrer-policy", "cross-origin-opener-policy")
    with httpx.Client(base_url=where.url, timeout=_TIMEOUT_S, trust_env=False) as http:
        for path in ("/", "/no-such-page"):
            missing = [name for name in wanted if name not in http.get(path).headers]
            cure = f"missing: {', '.join(missing)}: let no proxy remove them"
            yield Finding(f"{'a page' if path == '/' else 'an error'} carries the strict headers", not missing, cure)
        foreign = http.post("/v1/jobs", json={}, headers={"origin": "https://elsewhere.example"})
        refused = foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers
        yield Finding(
            "requests from other sites are refused", refused, "let no proxy change Origin or add CORS headers"
        )
        cookies = http.get("/").headers.get_list("set-cookie")
        yield Finding("looking at the page sets no cookie", not cookies, "let no proxy add cookies")


def sign_in(where: Installation) -> Iterator[Finding]:
    """Guests are served on loopback alone."""
    try:
        if not where.settings.has_sign_in:
            refuse_strangers(where.settings.host)
    except CommandError as command_error:
        yield Finding("strangers need to sign in", False, str(command_error))
    else:
        yield Finding("strangers need to sign in", True)


def tiers(where: Installation) -> Iterator[Finding]:
    """Every backend is of a named tier, in a named region."""
    try:
        catalogue_watcher: CatalogueWatcher = catalogue_watcher_of(where.settings)
        configured = catalogue_watcher.configured()
    except CommandError as command_error:
        yield Finding("every backend can be named", False, str(command_error))
        return
    outside = {name: entry for name, entry in configured.items() if entry.backend.tier != "managed"}
    unnamed = [name for name, entry in outside.items() if entry.terms.region == "here"]
    yield Finding("every place outside has a region's label", not unnamed, f"set region for {', '.join(unnamed)}")
    if where.url is not None:
        with httpx.Client(base_url=where.url, timeout=_TIMEOUT_S, trust_env=False) as http:
            told = {place["tier"] for place in http.get("/privacy.json").json()["tiers"]}
        missing = {entry.backend.tier for entry in configured.values()} - told
        yield Finding("privacy.json names every tier", not missing, "restart the router: it has another catalogue")


def policy(_: Installation) -> Iterator[Finding]:
    current = privacy_policy.editions()[-1]
    cure = "this build says something else than its date: run 'make docs' and release it"
    yield Finding(
        f"the policy of {current.date} is what the code does", current.digest == privacy_policy.digest(), cure
    )


def contact(where: Installation) -> Iterator[Finding]:
    if where.settings.contact is not None:
        yield Finding("there is somebody to write to", True)
        return
    served_alone = where.settings.public_url is None and where.settings.profile == "standalone"
    cure = "set ROUTER_CONTACT to a mailto: or https: address; without it there is no security.txt"
    yield Finding("there is somebody to write to", None if served_alone else False, cure)


def sandbox(_: Installation) -> Iterator[Finding]:
    """The fences around whatever parses strangers' bytes, tried from inside."""

    async def fences() -> list[Finding]:
        probe = Probe()
        try:
            await probe.start()
            return [Finding(layer.name, layer.holds, layer.cure) for layer in await probe.selfcheck()]
        finally:
            await probe.close()

    try:
        yield from asyncio.run(fences())
    except Fault as fault:
        yield Finding("the probe starts", False, fault.message)


CHECKS: dict[str, Callable[[Installation], Iterator[Finding]]] = {
    "storage": storage,
    "permissions": permissions,
    "core dumps": core_dumps,
    "log": log,
    "sockets": sockets,
    "TLS": tls,
    "headers": headers,
    "sign-in": sign_in,
    "tiers": tiers,
    "policy": policy,
    "contact": contact,
    "sandbox": sandbox,
    "dependencies": packages.dependencies,
}
