"""The router killed with SIGKILL at every step of the table of states, right before and right after it is committed.

Whatever the step, the next start brings the job to its master or to the end that was on record; it is sealed once, its
input is destroyed before the master can be seen, what the dead router was about to write is refused, and in the end
nothing lies in the spool.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from ops.bench._setup import song
from router.store.embedded import sqlite
from router.store.port import RevisionConflict
from router.store.record import Job
from router.store.state import CLOSED, DONE, STEPS, JobState
from tests.api import Api
from tests.loopback import TLS
from tests.stack import free_port, own_ram

SONG = song(1_200_000)
"""Larger than what the stub worker reads before it springs its trap."""
ENDS = CLOSED - {JobState.WIPED}
TRANSITIONS = [(before, after) for before, steps in STEPS.items() for after in sorted(steps)]
_LONGEST_S = 60.0


class Mortal:
    """A router that dies on command, its one worker, and their folders."""

    def __init__(self, folder: Path, ram_dir: Path) -> None:
        self.folder, self.ram_dir, self.spool_dir = folder, ram_dir, folder / "spool"
        self.trap = folder / "trap"
        worker_port, self.port = free_port(), free_port()
        command = [sys.executable, "-m", "ops.bench._stub_worker", str(worker_port), "0", str(folder / "notes")]
        self._worker = subprocess.Popen([*command, str(self.trap)])
        self._until(lambda: _answers(f"http://127.0.0.1:{worker_port}/v1/health"))
        settings = {"RAM_DIR": ram_dir, "SPOOL_DIR": self.spool_dir, "STATE_DIR": folder / "state", "RAM_CHECK": "warn",
                    "WORKERS": json.dumps([f"http://127.0.0.1:{worker_port}"])}  # fmt: skip
        self._mother = subprocess.Popen(
            [sys.executable, "-m", "tests.dying_router", str(self.port), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **{f"ROUTER_{name}": str(value) for name, value in settings.items()}},
        )  # fmt: skip
        self.pid = 0
        self._records: sqlite3.Connection | None = None
        self.api = Api(f"http://127.0.0.1:{self.port}")

    def start(self) -> bool:
        """Start the router; False when it died before it was ready."""
        assert self._mother.stdin is not None
        self._mother.stdin.write("start\n")
        self._mother.stdin.flush()
        self.pid = int(self._heard("started").split()[1])
        return self._heard("Ready", "ended").startswith("Ready")

    def has_died(self) -> bool:
        """Wait until it dies by its own hand."""
        return self._heard("ended") == f"ended {-signal.SIGKILL}"

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._heard("ended")

    def close(self) -> None:
        self.api.http.close()
        if self._records is not None:
            self._records.close()
        for process in (self._mother, self._worker):  # the router dies with its mother
            process.kill()
            process.wait()
        for pipe in (self._mother.stdin, self._mother.stdout):
            if pipe is not None:
                pipe.close()

    def plan(self, job_id: str, before: JobState, after: JobState, moment: str) -> None:
        self._put("plan", {"job": job_id, "before": before, "after": after, "moment": moment})

    def end(self, job_id: str, state: JobState) -> None:
        self._put("end", {"job": job_id, "state": state})

    def hold(self, where: str) -> None:
        (self.folder / f"hold-{where}").touch()

    def forget_plans(self) -> None:
        for path in (self.folder / "plan", self.folder / "end", self.trap, *self.folder.glob("hold-*")):
            path.unlink(missing_ok=True)

    def record(self, job_id: str) -> Job:
        if self._records is None:
            self._records = sqlite3.connect(self.ram_dir / "jobs.sqlite")
        (text,) = self._records.execute("SELECT document FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return Job.model_validate_json(text)

    def until(self, job_id: str, *states: JobState) -> Job:
        self._until(lambda: self.record(job_id).state in states)
        return self.record(job_id)

    def upload_beside(self, job_id: str) -> None:
        """Send the song; whether an answer comes does not matter."""

        def send() -> None:
            with suppress(httpx.HTTPError), Api(f"http://127.0.0.1:{self.port}") as api:
                api.upload(job_id, SONG)

        threading.Thread(target=send, daemon=True).start()

    def journal(self, job_id: str) -> list[tuple[str, str]]:
        lines = (self.folder / "journal").read_text().splitlines()
        return [(before, after) for job, before, after, _ in map(str.split, lines) if job == job_id]

    def keys(self) -> list[Path]:
        return list((self.ram_dir / "keys").iterdir())

    def files(self) -> list[Path]:
        return [path for path in self.spool_dir.glob("*/*") if path.is_file()]

    def _put(self, name: str, what: dict[str, str]) -> None:
        part = self.folder / f"{name}.part"
        part.write_text(json.dumps(what))
        part.replace(self.folder / name)

    def _heard(self, *beginnings: str) -> str:
        assert self._mother.stdout is not None
        for line in self._mother.stdout:
            if line.startswith(beginnings):
                return line.strip()
        raise AssertionError("the router's mother is gone")

    def _until(self, holds: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + _LONGEST_S
        while not holds():
            assert time.monotonic() < give_up_s, "it did not come to pass"
            time.sleep(0.005)


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=1, verify=TLS).is_success
    return False


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    with own_ram() as ram_dir:
        router = Mortal(tmp_path_factory.mktemp("mortal"), ram_dir)
        try:
            assert router.start()
            yield router
        finally:
            router.close()


async def write_late(path: Path, late: str) -> int:
    """What the dead router was about to write, or had just written. Raises RevisionConflict."""
    document, revision = json.loads(late)
    async with sqlite.open_store(path) as store:
        return await store.jobs.change(Job.model_validate_json(document), revision)


def bring_to(router: Mortal, job_id: str, state: JobState) -> None:
    """The job in `state`, and held there."""
    if state in (JobState.RECEIVED, *ENDS):
        return
    if state is JobState.RUNNING:
        router.trap.touch()
    elif hold := {JobState.SPOOLED: "probe", JobState.QUEUED: "queue", JobState.SEALED: "sealed"}.get(state):
        router.hold(hold)
    router.upload_beside(job_id)
    reached = JobState.MASTERED if state is JobState.DELIVERED else state
    router.until(job_id, reached)
    if state is JobState.RUNNING:
        router._until(lambda: not router.trap.exists())
    if state is JobState.DELIVERED:
        router.api.fetch({"id": job_id})
        router.until(job_id, JobState.DELIVERED)


def die_at(router: Mortal, job_id: str, before: JobState, after: JobState, moment: str) -> None:
    """Lead the job to the step, and the router to its death there."""
    if before in ENDS:
        router.plan(job_id, before, after, moment)
        router.end(job_id, before)
    elif after in ENDS:
        bring_to(router, job_id, before)
        router.plan(job_id, before, after, moment)
        router.end(job_id, after)
    elif (before, after) == (JobState.RUNNING, JobState.QUEUED):  # what a start does with what ran
        bring_to(router, job_id, before)
        router.kill()
        router.plan(job_id, before, after, moment)
        assert not router.start()
        return
    else:
        if after is JobState.DELIVERED:
            bring_to(router, job_id, before)
        router.plan(job_id, before, after, moment)
        if after is JobState.DELIVERED:
            with suppress(httpx.HTTPError):
                router.api.fetch({"id": job_id})
        else:
            router.upload_beside(job_id)
    assert router.has_died()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("before", "after"), TRANSITIONS, ids=lambda state: str(state))
def test_a_kill_at_any_step_loses_nothing_and_repeats_nothing(
    router: Mortal, before: JobState, after: JobState, moment: str
) -> None:
    job_id = router.api.create(size_bytes=len(SONG))["id"]
    die_at(router, job_id, before, after, moment)
    dead = router.record(job_id)
    assert dead.state is (after if moment == "after" else before)
    router.forget_plans()
    assert router.start()

    has_ended = dead.state in CLOSED
    if has_ended:
        ended = router.until(job_id, JobState.WIPED)
        assert ended.ended_as == (dead.ended_as or dead.state)
        assert router.api.http.get(f"/v1/jobs/{job_id}/outputs/wav24").status_code == 410
    else:
        if router.record(job_id).state is JobState.RECEIVED:
            router.upload_beside(job_id)
        mastered = router.until(job_id, *DONE)
        assert mastered.input is None
        assert len(router.keys()) == 1, "the input's key, or a late attempt's, is still there"
        assert router.api.fetch({"id": job_id}) == SONG
        assert router.journal(job_id).count((JobState.RUNNING, JobState.SEALED)) == 1
        assert router.journal(job_id).count((JobState.SEALED, JobState.MASTERED)) == 1
        assert mastered.faults == 0, "a kill of the router is no fault of a backend"
        if dead.state is JobState.RUNNING:
            assert mastered.generation == dead.generation + 1
            assert mastered.attempts[-2].outcome == "interrupted"

    if not has_ended:
        assert router.api.http.delete(f"/v1/jobs/{job_id}").is_success
    with pytest.raises(RevisionConflict):
        asyncio.run(write_late(router.ram_dir / "jobs.sqlite", (router.folder / "late").read_text()))
    assert (router.keys(), router.files()) == ([], [])
