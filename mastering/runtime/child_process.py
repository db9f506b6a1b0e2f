"""The one launcher of child processes: what every child gets of this process, and how it ends with it.

A child gets the environment variables on its caller's list and no others, so no secret of this process; the descriptors
that are named and no others; and it is killed when this process ends, however this process ends (`exec_shim`, which
runs in the child before the program).

The kernel takes the end of the *thread* that started the child for the end of its parent: start children from a thread
that lives as long as they are wanted, as the event loop's.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypedDict, Unpack

from mastering.runtime import exec_shim

DEVNULL, PIPE, STDOUT = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
RENDER_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "OPENBLAS_", "MKL_", "PYTORCH_")
"""Variables by which operators steer the libraries of a render: which GPU, how many threads."""
_EVERY_PROGRAM = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
"""Without these a program may not start, or write its text in another encoding."""
_LINE_BYTES = 64 * 1024
"""What asyncio holds of a line that has no end yet, unless a caller needs longer ones."""


class Streams(TypedDict, total=False):
    """A child's standard streams (all `DEVNULL` unless given), its folder, and whether it leaves this session, so that
    a terminal's Ctrl+C does not reach it."""

    stdin: int | IO[bytes]
    stdout: int | IO[bytes]
    stderr: int | IO[bytes]
    cwd: str | Path | None
    start_new_session: bool


def environment(
    names: Iterable[str] = (), prefixes: tuple[str, ...] = (), given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """A child's environment: of this process's variables those named or prefixed and `_EVERY_PROGRAM`, then `given`."""
    kept = {*_EVERY_PROGRAM, *names}
    ours = {name: value for name, value in os.environ.items() if name in kept or name.startswith(prefixes)}
    return {**ours, **(given or {})}


def python(module: str, *arguments: object) -> tuple[str, ...]:
    """The command that runs `module` by this interpreter; its folder of work is no place to import from (`-P`)."""
    return (sys.executable, "-P", "-m", module, *map(str, arguments))


async def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Sequence[int] = (),
    *,
    longest_line_bytes: int = _LINE_BYTES,
    **streams: Unpack[Streams],
) -> asyncio.subprocess.Process:
    """Start `command` with `environment` alone and `descriptors` under their own numbers. Raises OSError.

    A program that is not found shows by its exit status, 127.
    """
    return await asyncio.create_subprocess_exec(
        *_tied(command),
        env=environment,
        pass_fds=descriptors,
        limit=longest_line_bytes,
        **_with_defaults(streams),
    )


def start_blocking(
    command: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int] = (), **streams: Unpack[Streams]
) -> subprocess.Popen[bytes]:
    """The same where there is no event loop."""
    return subprocess.Popen(  # noqa: S603 - the caller's own command, without a shell
        _tied(command), env=environment, pass_fds=descriptors, **_with_defaults(streams)
    )


def _tied(command: Sequence[str]) -> tuple[str, ...]:
    """`command` behind the script that ties it to this process."""
    return (sys.executable, "-I", "-S", exec_shim.__file__, str(os.getpid()), *command)


def _with_defaults(streams: Streams) -> Streams:
    return {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL, **streams}
