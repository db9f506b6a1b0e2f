"""Everything that a start does to this process and this machine, so that importing a module does nothing to either.

`prepare_process` is for a router that has the process to itself, `prepare_router` for every router, one inside a test
too; then come the locks on the folders, the check of the RAM folder and the secret of this boot.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpcore
import typer

from mastering.runtime import sandbox
from router.core import event_log, threads
from router.core.command_error import CommandError
from router.core.settings import RouterSettings
from router.http.connection import RouterConnection, connections_for
from router.spool import ram_check

_READ_BYTES = 256 * 1024
"""What httpcore asks a socket for at a time, in place of 64 KiB: each read takes a fifth of a millisecond of Python,
and a master has hundreds."""


def prepare_process(settings: RouterSettings) -> Callable[[], int]:
    """Keep keys and audio in this process, make its log the only way out, and allow it all the connections it can have.

    Returns what removes log files whose time is over (`event_log.configure`).
    """
    sandbox.forbid_core_dumps()
    sandbox.keep_memory_private()  # keys and audio pass through it
    RouterConnection.most_open = connections_for(_raise_descriptor_limit())
    return event_log.configure(settings.log_dir)


def check_folders(settings: RouterSettings) -> None:
    """Make the folders that the settings name. Raises CommandError, which names the setting of one without use."""
    os.umask(0o077)
    for name in ("ram_dir", "state_dir", "spool_dir", "log_dir"):
        folder: Path | None = getattr(settings, name)
        try:
            if folder is not None:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            reason = f"this folder can't be used: {error.strerror}"
            raise CommandError(f"setting {name}: {reason}. Name another by ROUTER_{name.upper()}.", 2) from None


def prepare_router(settings: RouterSettings) -> None:
    """What every router needs: files that are its user's alone, its thread pools, limits for callers who do not read,
    and large reads from Spaces."""
    os.umask(0o077)
    RouterConnection.stall_s = settings.response_stall_s
    RouterConnection.least_bytes_per_s = settings.response_bytes_per_s
    threads.BODY_POOL.resize(settings.body_threads)
    threads.WORKER_POOL.resize(settings.worker_threads)
    httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = _READ_BYTES


def _raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as its hard limit allows; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


@contextmanager
def lock_folder(folder: Path, kind: str) -> Iterator[None]:
    """Make the folder and hold it: two routers would give one job to two workers and wipe each other's files.

    Raises CommandError where another router holds it.
    """
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
    """Refuse, or warn, when keys could reach a disk. Raises CommandError."""
    finding = ram_check.check(settings.ram_dir)
    if finding is None:
        return
    sentence = f"{settings.ram_dir} is no safe place for keys: {finding.wrong}. {finding.cure}"
    if settings.ram_check == "refuse":
        raise CommandError(f"{sentence} To go on all the same: ROUTER_RAM_CHECK=warn.")
    typer.echo(f"Warning: {sentence}", err=True)


def boot_secret(ram_dir: Path) -> bytes:
    """32 random bytes in the RAM folder: the same for every start of the router until the machine boots again."""
    path, part = ram_dir / "secret", ram_dir / "secret.part"
    if not path.exists():
        part.write_bytes(secrets.token_bytes(32))
        part.replace(path)  # whole or not at all, whenever a kill comes
    return path.read_bytes()
