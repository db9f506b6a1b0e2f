"""Which life of the machine this is. Another life: nothing of the last one may be readable.

In a container the boot id is the host's, so the start time of process 1 belongs to it.
"""

from __future__ import annotations

import shutil
from pathlib import Path


def current() -> str:
    """Boot id and start of process 1 (clock ticks since boot), where the system tells them."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    first = Path("/proc/1/stat")
    boot_id = boot.read_text().strip() if boot.exists() else "unknown"
    # Field 22 of proc(5)'s stat; the command in parentheses may hold spaces.
    started = first.read_text().rpartition(")")[2].split()[19] if first.exists() else "0"
    return f"{boot_id}+{started}"


def wipe_if_new(ram_dir: Path, spool_dir: Path) -> bool:
    """Empty both folders if they were written in another life. True if so. Keys go before ciphertext."""
    note = ram_dir / "incarnation"
    now = current()
    if note.exists() and note.read_text() == now:
        return False
    had = any(ram_dir.iterdir()) if ram_dir.exists() else False
    had |= any(spool_dir.iterdir()) if spool_dir.exists() else False
    for folder in (ram_dir, spool_dir):
        _empty(folder)
    note.write_text(now)
    return had


def _empty(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
