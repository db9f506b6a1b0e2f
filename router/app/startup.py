"""What a start does to this process and this machine: locks on the folders, the RAM check, the boot's secret."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from router.core.command_error import CommandError
from router.core.settings import RouterSettings
from router.spool import ram_check


@contextmanager
def sole_owner(folder: Path, kind: str) -> Iterator[None]:
    """One router per folder: two would give the same job to two workers and wipe each other. Raises Complaint."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CommandError(
            f"Another router uses the same {kind} folder. Stop it, or give this one its own ROUTER_RAM_DIR and"
            " ROUTER_SPOOL_DIR."
        ) from None
    finally:
        os.close(fd)


def check_ram(settings: RouterSettings) -> None:
    """Refuse, or warn, when keys could reach a disk. Raises Complaint."""
    finding = ram_check.check(settings.ram_dir)
    if finding is None:
        return
    sentence = f"{settings.ram_dir} is no safe place for keys: {finding.wrong}. {finding.cure}"
    if settings.ram_check == "refuse":
        raise CommandError(f"{sentence} To go on all the same: ROUTER_RAM_CHECK=warn.")
    typer.echo(f"Warning: {sentence}", err=True)


def boot_secret(ram_dir: Path) -> bytes:
    path, part = ram_dir / "secret", ram_dir / "secret.part"
    if not path.exists():
        part.write_bytes(secrets.token_bytes(32))
        part.replace(path)  # whole or not at all, whenever a kill comes
    return path.read_bytes()
