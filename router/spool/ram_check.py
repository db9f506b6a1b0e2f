"""Checks that the folder for keys and job records is in RAM: a key that reaches a disk would survive a reboot."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SMALLEST_FREE_BYTES = 16 * 1024 * 1024
"""Needed for keys and job records; Docker's /dev/shm has 64 MiB unless told otherwise."""
_RAM_TYPES = frozenset({"tmpfs", "ramfs"})


class Mount(NamedTuple):
    """One line of /proc/self/mounts, as far as it matters here."""

    point: str
    type: str
    options: frozenset[str]


class RamProblem(NamedTuple):
    """What is wrong with the folder and the cure, each a sentence."""

    wrong: str
    cure: str


def check(folder: Path, *, mounts: str | None = None, swaps: str | None = None) -> RamProblem | None:
    """The first thing wrong with `folder` (which exists), or None. `mounts` and `swaps` stand in for /proc's files."""
    mount = _mount_of(folder, _mounts(_read("/proc/self/mounts") if mounts is None else mounts))
    if mount is None or mount.type not in _RAM_TYPES:
        return RamProblem(
            "its file system is not kept in RAM",
            "Point ROUTER_RAM_DIR at a tmpfs, as /dev/shm is, or mount one: mount -t tmpfs -o size=64m,mode=0700,noswap"
            " tmpfs /run/mastering-router.",
        )
    free = shutil.disk_usage(folder).free
    if free < SMALLEST_FREE_BYTES:
        return RamProblem(
            f"it has {free / 2**20:.0f} MiB free of the {SMALLEST_FREE_BYTES / 2**20:.0f} MiB needed",
            "Make the tmpfs larger; with Docker: --shm-size=256m.",
        )
    if mount.type == "tmpfs" and "noswap" not in mount.options and _has_swap(swaps):
        return RamProblem(
            "the system may write it to swap",
            "Mount a tmpfs with the option noswap (Linux 6.4 or later) for ROUTER_RAM_DIR, or switch swap off.",
        )
    return None


def _mounts(text: str) -> Iterable[Mount]:
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) >= 4:
            # Spaces in mount points are written as \040 (proc(5)).
            yield Mount(fields[1].replace("\\040", " "), fields[2], frozenset(fields[3].split(",")))


def _mount_of(folder: Path, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that holds `folder`: the longest mount point above it; of several on one point, the last."""
    real = folder.resolve()
    holding = [mount for mount in mounts if real.is_relative_to(mount.point)]
    return max(enumerate(holding), key=lambda pair: (len(pair[1].point), pair[0]))[1] if holding else None


def _has_swap(swaps: str | None) -> bool:
    lines = (_read("/proc/swaps") if swaps is None else swaps).splitlines()
    return len(lines) > 1


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text() if file.exists() else ""
