"""Processes as the kernel lists them."""

from __future__ import annotations

import contextlib
from pathlib import Path


def children(pid: int) -> set[int]:
    """The processes that this one started, by whichever of its threads, and that nobody has reaped."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found |= {int(child) for child in (task / "children").read_text().split()}
    return found


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
