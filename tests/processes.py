"""Processes as the kernel lists them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.warm_children import name_of_children


def children(pid: int) -> set[int]:
    """The processes that this one started, by whichever of its threads or warm, and that nobody has reaped."""
    found = _started_warm(pid)
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def _started_warm(pid: int) -> set[int]:
    """Those that a fork server of `warm_start` forked for it; their own forks have their name too."""
    name, named = name_of_children(pid), {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (place / "comm").read_text().strip() == name:
                named[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    return {child for child, parent in named.items() if parent not in named}


def family(pid: int) -> set[int]:
    """Its children, theirs, and so on."""
    found: set[int] = set()
    new = children(pid)
    while new:
        found |= new
        new = set().union(*map(children, new)) - found
    return found


def renderers(pid: int) -> set[int]:
    """The rendering processes of a worker or a Space: its fork server's children."""
    return family(pid) - children(pid)


def is_alive(pid: int) -> bool:
    """Whether the process holds anything yet: one that nobody has reaped holds nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
