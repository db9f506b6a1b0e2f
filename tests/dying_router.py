"""A router that kills itself with SIGKILL at one step of one job: `python -m tests.dying_router PORT FOLDER`.

It is the real router, but for its probe, which believes what it is told, and for hooks that files in FOLDER govern:

- `plan`: {"job", "before", "after", "moment"}: at that step of that job the process dies, right before or right after
  the compare-and-set. What it was about to write lies in `late` afterwards.
- `end`: {"job", "state"}: the job is ended so, as any part of the router would.
- `hold-probe`, `hold-queue`, `hold-sealed`: jobs wait there while the file exists.
- `journal`: a line for each step that was committed: job, before, after, generation.

This process forks one router for each line "start" on its standard input, so that a start costs no imports.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mastering.runtime import exec_shim
from router.app import compose, server
from router.core.errors import Problem
from router.jobs import lifecycle
from router.jobs.services import Services
from router.store.embedded.sqlite import LocalJobs, LocalLease, LocalQueue
from router.store.port import Owner
from router.store.record import Job
from router.store.state import JobState
from tests.services import BelievingProbe

POLL_S = 0.005


def hook(folder: Path) -> None:
    """Put the hooks in place, in this process."""

    async def while_held(name: str) -> None:
        while (folder / f"hold-{name}").exists():  # noqa: ASYNC110 — a file gives no hint of its end
            await asyncio.sleep(POLL_S)

    class Held(BelievingProbe):
        async def probe(self, *args: Any, **more: Any) -> Any:
            await while_held("probe")
            return await super().probe(*args, **more)

    commit, take, finish = LocalJobs.change, LocalQueue._take, lifecycle.finish_sealed
    make_app = server.make_app

    async def change(self: LocalJobs, job: Job, expected_revision: int) -> int:
        before = (await self.get(job.id)).job.state
        moment = _moment(folder, job, before)
        if moment is not None:
            (folder / "late").write_text(json.dumps([job.model_dump_json(), expected_revision]))
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        revision = await commit(self, job, expected_revision)
        if before is not job.state:
            with (folder / "journal").open("a") as journal:
                journal.write(f"{job.id} {before} {job.state} {job.generation}\n")
        if moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return revision

    async def finish_sealed(services: Services, job_id: str) -> Job:
        await while_held("sealed")
        return await finish(services, job_id)

    def taking(self: LocalQueue, lanes: Sequence[str], owner: Owner) -> LocalLease | None:
        return None if (folder / "hold-queue").exists() else take(self, lanes, owner)

    async def obeying(services: Services) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            if (folder / "end").exists():
                wanted = json.loads((folder / "end").read_text())
                (folder / "end").unlink()
                problem = Problem("internal") if wanted["state"] == JobState.FAILED else None
                await lifecycle.end(services, wanted["job"], JobState(wanted["state"]), problem)

    @asynccontextmanager
    async def obedient(services: Services) -> AsyncIterator[None]:
        task = asyncio.create_task(obeying(services))
        yield
        task.cancel()

    compose.Probe = Held  # type: ignore[misc]
    LocalJobs.change = change  # type: ignore[method-assign]
    LocalQueue._take = taking  # type: ignore[method-assign]
    lifecycle.finish_sealed = finish_sealed
    server.make_app = lambda *args, **more: make_app(*args, **{**more, "within": obedient})


def _moment(folder: Path, job: Job, before: JobState) -> str | None:
    """When the process is to die at this step; None when it is not."""
    plan = folder / "plan"
    if not plan.exists():
        return None
    wanted = json.loads(plan.read_text())
    is_it = (job.id, before, job.state) == (wanted["job"], wanted["before"], wanted["after"])
    return str(wanted["moment"]) if is_it else None


def main() -> None:
    port, folder, ours = int(sys.argv[1]), Path(sys.argv[2]), os.getpid()
    hook(folder)
    while sys.stdin.readline() == "start\n":
        pid = os.fork()
        if pid == 0:
            exec_shim.die_with_parent(ours)
            try:
                server.serve({"port": port})
            finally:
                os._exit(1)
        print(f"started {pid}", flush=True)
        _, status = os.waitpid(pid, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
