"""Random kill -9 of a working router, and what must hold after each: the harness of the kill tests.

Clients make jobs, upload in two parts, wait, fetch and delete, while the router is killed at random moments. With the
router dead, its records, keys and files are read as they lie; then it is started again and must bring all to an end.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from router.store.record import BlobRef, Job
from router.store.state import DONE, JobState
from tests.api import Api
from tests.stack import Stack

OWED = {JobState.SPOOLED, JobState.QUEUED, JobState.RUNNING}
_PAUSE_S = 0.02


@dataclass
class Findings:
    """What broke, in sentences, and how long each start took until the router answered."""

    violations: list[str] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    accepted: int = 0
    mastered: int = 0


class Clients:
    """Two musicians who never give up: what fails for want of a router is tried again."""

    def __init__(self, running: Stack, song: bytes, seed: int) -> None:
        self._running, self._song, self._seed = running, song, seed
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(2)]
        self.accepted: set[str] = set()
        self.deleted: set[str] = set()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self, number: int) -> None:
        choice = random.Random(self._seed * 10 + number)
        with Api(self._running.url) as api:
            while not self._stop.is_set():
                try:
                    self._one_job(api, choice)
                except (httpx.HTTPError, KeyError, ValueError):
                    self._stop.wait(_PAUSE_S)

    def _one_job(self, api: Api, choice: random.Random) -> None:
        job_id = api.create(size_bytes=len(self._song))["id"]
        half = choice.randrange(len(self._song))
        address = f"/v1/jobs/{job_id}/audio"
        api.http.put(address, content=self._song[:half], headers={"upload-offset": "0"})
        response = api.http.put(address, content=self._song[half:], headers={"upload-offset": str(half)})
        if response.status_code != 202 or response.json()["state"] == "received":
            return
        self.accepted.add(job_id)
        if choice.random() < 0.8:  # most wait for their master, so that the line stays short
            for _ in range(10):
                job = api.http.get(f"/v1/jobs/{job_id}", headers={"prefer": "wait=2"}).json()
                if job["state"] in ("mastered", "failed"):
                    break
        if choice.random() < 0.3:
            # Noted first: a kill may come between the deletion and its answer.
            self.deleted.add(job_id)
            api.http.delete(f"/v1/jobs/{job_id}")


def torment(
    running: Stack, song: bytes, canary: bytes, kills: int, seed: int = 1, longest_pause_s: float = 0.9
) -> Findings:
    """Kill the router `kills` times while clients work. `canary` stands in the song's bytes."""
    findings, choice = Findings(), random.Random(seed)
    clients = Clients(running, song, seed)
    clients.start()
    try:
        for number in range(kills):
            time.sleep(choice.uniform(0.0, longest_pause_s))
            running.router.kill()
            findings.violations += [f"kill {number}: {text}" for text in seen_dead(running, canary)]
            started = time.monotonic()
            running.restart_router()
            findings.recoveries_s.append(time.monotonic() - started)
    finally:
        clients.stop()
    findings.accepted = len(clients.accepted - clients.deleted)
    findings.violations += unfinished(running, clients.accepted - clients.deleted, findings)
    findings.violations += seen_at_rest(running)
    return findings


def seen_dead(running: Stack, canary: bytes) -> Iterator[str]:
    """What must hold at any moment, the router dead."""
    for job in records(running):
        if job.state in OWED and not (job.input and lies_there(running, job.input)):
            yield f"a {job.state} job has no input"
        if job.state in {JobState.SEALED, *DONE} and not all(lies_there(running, o) for o in job.outputs.values()):
            yield f"a {job.state} job has no output"
        if job.state in DONE and job.input is not None:
            yield f"a {job.state} job still names its input"
    for path in files(running):
        if canary in path.read_bytes():
            yield "plain audio lies on the disk"


def seen_at_rest(running: Stack) -> Iterator[str]:
    """What must hold once the router has recovered and nobody works: no orphans, and no input of a job that is done."""
    _until_nobody_works(running)
    running.router.kill()
    named = {blob.ref for job in records(running) for blob in (job.input, *job.outputs.values()) if blob is not None}
    keys = {path.name.replace(".", "/") for path in (running.ram_dir / "keys").iterdir()}
    lying = {f"{path.parent.name}/{path.name}" for path in files(running)}
    yield from (f"{len(keys - named)} keys that no job names" for _ in range(bool(keys - named)))
    yield from (f"{len(lying - named)} files that no job names" for _ in range(bool(lying - named)))


def _until_nobody_works(running: Stack, limit_s: float = 60.0) -> None:
    """Also on the jobs of which no client was told that they were accepted: a master that is about to be committed has
    a key that no job names yet."""
    give_up_s = time.monotonic() + limit_s
    while any(job.state in {*OWED, JobState.SEALED} for job in records(running)) and time.monotonic() < give_up_s:
        time.sleep(_PAUSE_S)


def unfinished(running: Stack, accepted: set[str], findings: Findings) -> Iterator[str]:
    """Jobs whose upload was acknowledged and that do not end in a master."""
    with Api(running.url) as api:
        for job_id in accepted:
            try:
                job = api.mastered(job_id)
                assert api.fetch(job)[:4] == b"RIFF"
                findings.mastered += 1
            except (AssertionError, httpx.HTTPError) as error:
                yield f"an accepted job did not end in a master: {error}"


def records(running: Stack) -> list[Job]:
    with closing(sqlite3.connect(running.ram_dir / "jobs.sqlite")) as connection:
        return [Job.model_validate_json(text) for (text,) in connection.execute("SELECT document FROM jobs")]


def lies_there(running: Stack, blob: BlobRef) -> bool:
    key = running.ram_dir / "keys" / blob.ref.replace("/", ".")
    return key.is_file() and (running.spool_dir / blob.ref).is_file()


def files(running: Stack) -> list[Path]:
    return [path for path in running.spool_dir.glob("*/*") if path.is_file()]
