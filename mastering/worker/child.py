"""The process that renders: one song, then it ends, and with it all it ever held.

Forked ahead of need by `fork_server`. It gets memory files in and hands memory files back; of all files it can read
those of programs and write none; it reaches no network and no other process, and starts none; its memory and its
processor time are bounded by the song; it keeps no core dump, and is killed with the worker. It tries each of these
before it says that it is ready, and tells what was not refused.
Its heartbeat is a thread of its own: it stops when the process is frozen, or when a call into a library holds the
interpreter.

On the socket (SOCK_SEQPACKET), worker → child: {"kind", "options", "heartbeat_s"} with the input descriptors, and
`runs_preparation`, whether the program's preparation runs first, `output_bytes`, what all outputs together may have,
`unforeseen_bytes`, the same for a song that does not say its length, and `max_duration_s`;
child → worker: {"ready": {"device", "sandbox_gaps": [names]}}, {"heartbeat"}, {"needs": most bytes of the outputs},
{"progress"}, then {"done": [names]} with the report's and the outputs' descriptors, or {"fault"}.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mastering.contract import Fault, FaultCode, Record
from mastering.contract.kinds import job_kind
from mastering.runtime import exec_shim, sandbox, syscall_filter
from mastering.runtime.sandbox_check import refused_attempts
from mastering.worker.budget import Budget
from mastering.worker.work_bounds import check_output_size, longest, read_header

_MAX_PACKET_BYTES = 64 * 1024
_MAX_DESCRIPTORS = 64
_PROGRESS_S = 0.2
_READING_HEADER_BYTES, _READING_HEADER_S = 512 * 1024 * 1024, 120
"""Memory and processor time until the recordings' lengths are known: a GPU's preparation is among it."""


class Link:
    """The child's end of the socket; packets are whole, so two threads may send."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._fraction = 0.0
        self._said: tuple[str | None, float] = (None, 0.0)

    def tell(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)

    def listen(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next request, or None when the worker is gone."""
        packet, descriptors, _, _ = socket.recv_fds(self._control, _MAX_PACKET_BYTES, _MAX_DESCRIPTORS)
        return (json.loads(packet), descriptors) if packet else None

    def progress(self, stage: str, fraction: float) -> None:
        """At most a few times a second, and never backwards."""
        self._fraction = min(1.0, max(self._fraction, fraction))
        last_stage, last_s = self._said
        now = time.monotonic()
        if stage != last_stage or now - last_s >= _PROGRESS_S:
            self._said = (stage, now)
            self.tell({"progress": {"stage": stage, "fraction": self._fraction}})

    def beat(self, every_s: float) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.tell({"heartbeat": True})
                time.sleep(every_s)


def device_name() -> str:
    """The first GPU's model where the driver names one, else cpu."""
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in information.read_text().splitlines():
            if line.startswith("Model:"):
                return line.split(":", 1)[1].strip()
    return "cpu"


def _warmed(gpu: str) -> str:
    """The device that a fit will use: a GPU is made ready before a song comes, torch on a CPU waits until it is asked
    for (it takes 180 MB and two seconds, and most songs never ask)."""
    if gpu == "cpu":
        return gpu
    try:
        from mastering import fit

        return fit.warm_up()
    except (ImportError, RuntimeError):  # no torch, or one that cannot use this GPU
        return "cpu"


@dataclass(frozen=True)
class RenderProgram:
    """What a rendering process runs and may read; put together once, by the fork server."""

    runs: Mapping[str, Callable[..., Record]]
    """Kind of job → what does it (`contract.kinds.JobKind.run`)."""
    prepare: Callable[[Link], None] | None = None
    """Called with the link before a render that asks for it."""
    readable: tuple[Path, ...] = ()
    """Files and folders: `fork_server.program_files`."""


def run(control: socket.socket, program: RenderProgram, parent: int) -> None:
    """Lock this process up, render one song that comes by `control`, and return. `parent`: the fork server's pid."""
    device = _lock_up(parent, program.readable)
    sandbox_gaps = [attempt for attempt, refused in refused_attempts().items() if not refused]
    with contextlib.suppress(BrokenPipeError):
        serve(Link(control), program, {"device": device, "sandbox_gaps": sandbox_gaps})


def serve(link: Link, program: RenderProgram, ready: dict[str, Any]) -> None:
    """One render, start to end. `ready` is what is told first."""
    link.tell({"ready": ready})
    request = link.listen()
    if request is None:
        return
    asked, descriptors = request
    threading.Thread(target=link.beat, args=(asked["heartbeat_s"],), daemon=True).start()
    try:
        if program.prepare is not None and asked.get("runs_preparation"):
            program.prepare(link)
        budget = Budget(asked["output_bytes"], asked.get("unforeseen_bytes"))
        _render(link, program, asked, descriptors, budget)
    except Fault as fault:
        link.tell({"fault": {"code": fault.code, "message": fault.message, "numbers": fault.numbers}})
    except Exception as error:  # its text may hold anything; its type may not
        link.tell({"fault": _unforeseen(error)})


def _render(link: Link, program: RenderProgram, asked: dict[str, Any], descriptors: list[int], budget: Budget) -> None:
    kind = job_kind(asked["kind"])
    options = kind.parse(asked["options"])
    sources = [os.fdopen(descriptor, "rb") for descriptor in descriptors]
    headers, max_duration_s = [read_header(source) for source in sources], asked.get("max_duration_s")
    link.tell({"needs": check_output_size(headers[0], kind, options, budget, max_duration_s)})
    budget.enforce()
    work = longest(headers, max_duration_s)
    sandbox.limit_rendering(
        heap_bytes=sandbox.allocated_bytes() + kind.memory_bytes(options, *work),
        cpu_s=kind.processor_s(options, work.duration_s),
        is_final=True,
    )
    outputs: dict[str, tuple[int, BinaryIO]] = {}

    def open_output(wanted: str) -> BinaryIO:
        # The work may close its file; the memory stays ours by a second descriptor.
        memory = os.memfd_create("output", os.MFD_CLOEXEC)
        outputs[wanted] = memory, budget.open(os.dup(memory))
        return outputs[wanted][1]

    try:
        run = program.runs[kind.name]
        report = run(sources[0], options, references=sources[1:], open_output=open_output, progress=link.progress)
        for _, file in outputs.values():
            if not file.closed:
                file.flush()
    except Exception:
        if budget.is_exceeded:  # a coder tells of a file without room in words of its own
            raise budget.fault() from None
        raise
    if budget.is_exceeded:
        raise budget.fault()
    about = os.memfd_create("report", os.MFD_CLOEXEC)
    os.write(about, report.model_dump_json().encode())
    link.tell({"done": list(outputs)}, (about, *(memory for memory, _ in outputs.values())))


def _unforeseen(error: Exception) -> dict[str, Any]:
    if isinstance(error, MemoryError):  # by the bound that `_render` has set for the song
        message = "This song wanted more memory than an honest recording of its length. Export it as WAV or FLAC."
        return {"code": FaultCode.RESOURCE_LIMIT, "message": message, "numbers": {}}
    # torch has an OutOfMemoryError of its own, which this process may never have imported: a GPU's memory is shared.
    if type(error).__name__ == "OutOfMemoryError":
        return {"code": FaultCode.OUT_OF_MEMORY, "message": "The worker ran out of memory.", "numbers": {}}
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at else ""
    numbers = {"error": type(error).__name__, "where": where}
    return {"code": FaultCode.INTERNAL, "message": "The engine failed on this song.", "numbers": numbers}


def _lock_up(parent: int, readable: tuple[Path, ...]) -> str:
    """Put every layer of the sandbox in force, and make the device ready, which is returned.

    A layer that this machine lacks is passed over here: what it was to refuse is tried afterwards.
    """
    with contextlib.suppress(OSError):  # where memory runs out, this process goes, not the worker
        Path("/proc/self/oom_score_adj").write_text("500")
    has_gpu = device_name() != "cpu"
    if not has_gpu:  # a GPU's driver may speak to daemons; a user namespace wants a process of one thread
        sandbox.leave_network()
    sandbox.give_up_capabilities()
    exec_shim.die_with_parent(parent)  # again: a change of user has cleared what the fork asked for
    sandbox.forbid_core_dumps()
    sandbox.keep_memory_private()
    device = _warmed(device_name())
    sandbox.keep_to(readable)
    syscall_filter.forbid_other_processes(may_connect_locally=has_gpu)
    heap_bytes = sandbox.allocated_bytes() + _READING_HEADER_BYTES
    sandbox.limit_rendering(heap_bytes=heap_bytes, cpu_s=_READING_HEADER_S, is_final=False)
    return device
