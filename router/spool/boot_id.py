"""Which boot of the machine this is: after a reboot nothing of the time before may be readable.

In a container the boot id is the host's, so the start time of process 1 belongs to it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from router.core.command_error import CommandError

_BOOT_FILE = "incarnation"
CACHEDIR_TAG = "CACHEDIR.TAG"
TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# A router's temporary encrypted audio; never back this up.\n"
"""Tells backup programs to stay away, and us that the folder is our spool: others use the same file, not this text."""


def current() -> str:
    """Boot id and start of process 1 (clock ticks since boot), where the system tells them."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    first = Path("/proc/1/stat")
    boot_id = boot.read_text().strip() if boot.exists() else "unknown"
    # Field 22 of proc(5)'s stat; the command in parentheses may hold spaces.
    started = first.read_text().rpartition(")")[2].split()[19] if first.exists() else "0"
    return f"{boot_id}+{started}"


def wipe_if_new(ram_dir: Path, spool_dir: Path) -> bool:
    """Empty both folders if they were written in another boot. True if so. Keys go before encrypted audio.

    Raises CommandError for a folder that holds files and none of a router's marks: it is somebody else's.
    """
    _own(ram_dir, "ROUTER_RAM_DIR")
    _own(spool_dir, "ROUTER_SPOOL_DIR")
    note = ram_dir / _BOOT_FILE
    now = current()
    if note.exists() and note.read_text() == now:
        return False
    _refuse_foreign(ram_dir, _BOOT_FILE, "ROUTER_RAM_DIR")
    _refuse_foreign(spool_dir, CACHEDIR_TAG, "ROUTER_SPOOL_DIR")
    emptied = [_empty(ram_dir, _BOOT_FILE), _empty(spool_dir, CACHEDIR_TAG)]
    note.write_text(now)
    return any(emptied)


def _own(folder: Path, setting: str) -> None:
    """Make the folder ours alone; both lie where everybody may make one of that name. Raises CommandError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise CommandError(f"{folder} belongs to another user. Remove it, or point {setting} at a folder of your own.")
    folder.chmod(0o700)


def _refuse_foreign(folder: Path, mark: str, setting: str) -> None:
    note = folder / mark
    ours = note.is_file() and (mark == _BOOT_FILE or note.read_text(errors="replace") == TAG_TEXT)
    if any(folder.iterdir()) and not ours:
        raise CommandError(f"{folder} holds files that are not a router's. Point {setting} at an empty folder.")


def _empty(folder: Path, mark: str) -> bool:
    """Remove all that is in `folder`, its mark at last; True if there was anything."""
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name == mark)
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return bool(entries)
