"""Checks of this machine: RAM and swap, file permissions, core dumps, and the sandbox around the probe."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from mastering.contract import Fault
from mastering.runtime import sandbox as process_sandbox
from router.core.settings import RouterSettings
from router.privacy.finding import Finding, Installation
from router.privacy.network_checks import listening_pid
from router.probe.client import Probe
from router.spool import boot_id, ram_check


def storage(where: Installation) -> Iterator[Finding]:
    """Keys and job records lie in RAM without swap; a CACHEDIR.TAG has backup programs pass the spool over."""
    settings = where.settings
    if settings.ram_dir.is_dir():
        found = ram_check.check(settings.ram_dir)
        yield Finding("keys and job records lie in RAM", found is None, f"{found.wrong}. {found.cure}" if found else "")
    else:
        yield Finding("keys and job records lie in RAM", None, "no router has run with these settings yet: start it")
    tag_file = settings.spool_dir / boot_id.CACHEDIR_TAG
    if settings.spool_dir.is_dir():
        marked = tag_file.is_file() and tag_file.read_text() == boot_id.TAG_TEXT
        yield Finding(
            "backup programs are told to pass the spool over", marked, "start the router, which writes the tag"
        )
    swaps = Path("/proc/swaps")
    swapping = swaps.exists() and len(swaps.read_text().splitlines()) > 1
    yield Finding(
        "memory in which songs are rendered is not swapped",
        not swapping,
        "switch swap off (swapoff -a), or encrypt it with a key of each boot",
    )


def permissions(where: Installation) -> Iterator[Finding]:
    """The router's folders and files can be read by its own user alone."""
    settings = where.settings
    for folder in (settings.ram_dir, settings.spool_dir, settings.state_dir, settings.log_dir):
        if folder is None or not folder.is_dir():
            continue
        wrong = sum(_is_open_to_others(path) for path in (folder, *folder.rglob("*")))
        yield Finding(
            f"{_folder_name(settings, folder)} can be read by nobody else", wrong == 0, f"chmod -R go= {folder}"
        )


def _is_open_to_others(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return bool(found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)) or found.st_uid != os.geteuid()


def _folder_name(settings: RouterSettings, folder: Path) -> str:
    kinds = {settings.ram_dir: "the folder in RAM", settings.spool_dir: "the spool", settings.state_dir: "the store"}
    return kinds.get(folder, "the log")


def core_dumps(where: Installation) -> Iterator[Finding]:
    """No process of the router may write a core dump, which would hold audio and keys."""
    forbidden = _forbids_core_dumps(where)
    if forbidden is not None:
        yield Finding("the running router has a core limit of 0", forbidden, "run this version of the router")
        return
    before = resource.getrlimit(resource.RLIMIT_CORE)
    process_sandbox.forbid_core_dumps()
    yield Finding(
        "a router may have a core limit of 0", resource.getrlimit(resource.RLIMIT_CORE) == (0, 0), str(before)
    )


def _forbids_core_dumps(where: Installation) -> bool | None:
    """Whether the running router has a core limit of 0; None where none runs that we may look at."""
    pid = listening_pid(urlsplit(where.url).port) if where.url else None
    if pid is None:
        return None
    return re.search(r"^Max core file size +0 +0 ", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE) is not None


def sandbox(_: Installation) -> Iterator[Finding]:
    """Each layer of the sandbox around the probe, which parses strangers' bytes, tried from inside a probe process."""

    async def layers() -> list[Finding]:
        probe = Probe()
        try:
            await probe.start()
            return [Finding(layer.name, layer.holds, layer.cure) for layer in await probe.selfcheck()]
        finally:
            await probe.close()

    try:
        yield from asyncio.run(layers())
    except Fault as fault:
        yield Finding("the probe starts", False, fault.message)
