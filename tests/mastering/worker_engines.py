"""Engines for the worker's tests: each does one thing that a real one might do."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mastering.contract import (
    ENGINE_VERSION,
    Fault,
    FaultCode,
    Measurements,
    OutputFormat,
    Plan,
    Report,
    Settings,
    Stage,
)
from mastering.runtime.sandbox_check import refused_attempts

Opener = Callable[[OutputFormat], BinaryIO]
Progress = Callable[[Stage, float], None]
GATE = signal.SIGUSR1
"""No file could be a gate: a rendering process reads none."""
signal.pthread_sigmask(signal.SIG_BLOCK, {GATE})  # before any thread, or one of them would take it


_NUMBERS: dict[str, Any] = {
    "rate_hz": 44_100, "channels": 2, "frames": 1, "duration_s": 1.0, "integrated_lufs": None,
    "max_momentary_lufs": None, "max_short_term_lufs": None, "loudness_range_lu": None, "true_peak_dbtp": 0.0,
    "sample_peak_dbfs": 0.0, "crest_db": 0.0, "peak_to_loudness_lu": None, "correlation": None, "width_db": None,
    "dc_offset": 0.0, "clipped_samples": 0, "spectrum": (),
}  # fmt: skip


def _report(settings: Settings) -> Report:
    numbers = Measurements(**_NUMBERS)
    plan = Plan(
        engine_version=ENGINE_VERSION,
        settings=settings,
        rate_hz=44_100,
        loudness_lufs=-14,
        ceiling_dbtp=-1,
        steps=(),
        seed=0,
    )
    return Report(engine_version=ENGINE_VERSION, before=numbers, after=numbers, plan=plan)


def copy(
    source: BinaryIO, settings: Settings, *, references: Sequence[BinaryIO], open_output: Opener, progress: Progress
) -> Report:
    """The output is the input and all references after it."""
    data = source.read() + b"".join(reference.read() for reference in references)
    for at, wanted in enumerate(settings.outputs):
        progress(Stage.ENCODE, at / len(settings.outputs))
        with open_output(wanted) as output:
            output.write(data)
    return _report(settings)


def hang(source: BinaryIO, settings: Settings, *, progress: Progress, **_: object) -> Report:
    """Says that it renders, and never ends."""
    progress(Stage.RENDER, 0.25)
    threading.Event().wait()
    raise AssertionError


def wait_at_gate(
    source: BinaryIO, settings: Settings, *, references: Sequence[BinaryIO], open_output: Opener, progress: Progress
) -> Report:
    """Says that it renders, and waits for GATE."""
    progress(Stage.RENDER, 0.25)
    signal.sigwait({GATE})
    return copy(source, settings, references=references, open_output=open_output, progress=progress)


def die(source: BinaryIO, settings: Settings, **_: object) -> Report:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def be_killed(source: BinaryIO, settings: Settings, **_: object) -> Report:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fail(source: BinaryIO, settings: Settings, **_: object) -> Report:
    raise RuntimeError("/secret/path of the song")


def refuse(source: BinaryIO, settings: Settings, **_: object) -> Report:
    raise Fault(FaultCode.SILENT, "The recording is silent.", peak_dbfs=-120.0)


def run_out_of_memory(source: BinaryIO, settings: Settings, **_: object) -> Report:
    raise MemoryError


def take_memory(source: BinaryIO, settings: Settings, **_: object) -> Report:
    """Takes all that it gets, and touches it."""
    kept = []
    while True:
        kept.append(b"x" * (16 << 20))


def use_up_processor_time(source: BinaryIO, settings: Settings, **_: object) -> Report:
    """Meets the end that the kernel gives a process whose processor time is used up."""
    os.kill(os.getpid(), signal.SIGXCPU)
    raise AssertionError


def try_everything(source: BinaryIO, settings: Settings, *, open_output: Opener, **_: object) -> Report:
    """Tries what the sandbox must refuse, and starts a thread; what was not refused, and the limits, are the output."""
    gaps = [attempt for attempt, refused in refused_attempts().items() if not refused]
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_DATA", "RLIMIT_CPU")}
    for wanted in settings.outputs:
        open_output(wanted).write(json.dumps({"gaps": gaps, "limits": limits}).encode())
    return _report(settings)


def leave_a_process_behind(source: BinaryIO, settings: Settings, *, open_output: Opener, **_: object) -> Report:
    """Has a grandchild in a session of its own, which sleeps; the pid is the output."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if (pid := os.fork()) == 0:
            time.sleep(600)
        os.write(writing, str(pid).encode())
        os._exit(0)
    os.waitpid(child, 0)
    for wanted in settings.outputs:
        open_output(wanted).write(os.read(reading, 16))
    return _report(settings)


def write_files(
    source: BinaryIO, settings: Settings, *, open_output: Opener, progress: Progress, **_: object
) -> Report:
    """Tries to keep the song; what came of it is the output."""
    kept = []
    for folder in ("/tmp", "/var/tmp", "/dev/shm", str(Path.cwd()), str(Path.home())):  # noqa: S108
        try:
            target = Path(folder) / "song-that-must-not-be.wav"
            target.write_bytes(source.read())
            target.unlink()
            kept.append(folder)
        except OSError:
            continue
    for wanted in settings.outputs:
        open_output(wanted).write(repr(kept).encode())
    progress(Stage.ENCODE, 1.0)
    return _report(settings)


def read_files(source: BinaryIO, settings: Settings, *, open_output: Opener, **_: object) -> Report:
    """Tries to read the files that the song names, a line each; those that it could are the output."""
    found = []
    for name in source.read().decode().splitlines():
        with contextlib.suppress(OSError):
            Path(name).read_bytes()
            found.append(name)
    for wanted in settings.outputs:
        open_output(wanted).write("\n".join(found).encode())
    return _report(settings)


def pry(source: BinaryIO, settings: Settings, *, open_output: Opener, **_: object) -> Report:
    """Tries to learn the worker's keys and to speak to the worker; what came of it is the output."""
    worker = Path(f"/proc/{os.getppid()}")
    found: dict[str, Any] = {"environment": " ".join(os.environ), "path": sys.path[0], "read": []}
    for name in ("environ", "mem"):
        with contextlib.suppress(OSError), (worker / name).open("rb") as opened:
            opened.read(1 if name == "environ" else 0)
            found["read"].append(name)
    try:
        with socket.socket() as outside:
            found["connect"] = outside.connect_ex(("127.0.0.1", int(source.read())))
    except PermissionError as error:
        found["connect"] = error.errno
    for wanted in settings.outputs:
        open_output(wanted).write(json.dumps(found).encode())
    return _report(settings)


def chatter(
    source: BinaryIO, settings: Settings, *, references: Sequence[BinaryIO], open_output: Opener, progress: Progress
) -> Report:
    """Prints the song, as a library in C does that complains about it."""
    song = source.read()
    for stream in (1, 2):
        os.write(stream, song)
    print(song)
    source.seek(0)
    return copy(source, settings, references=references, open_output=open_output, progress=progress)
