"""The SQLite store under SIGKILL: whatever was acknowledged is there for the next process."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

from router.store.embedded import sqlite
from router.store.port import Store
from tests.services import ram_folder

KILLS = 6


def write_and_kill(path: Path, run: str, after: int) -> list[list[str]]:
    """What the writer had acknowledged when it was killed, at some moment past `after` lines."""
    command = [sys.executable, "-m", "tests.conformance.store_writer", str(path), run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(after)]
        writer.kill()
        lines += writer.stdout.readlines()
    # The last line may be cut; what it says was true before it was written.
    return [line.split() for line in lines if line.endswith("\n")]


async def test_every_acknowledged_change_outlives_the_process() -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    chance = random.Random(seed)
    acknowledged: list[list[str]] = []
    with ram_folder() as folder:
        path = Path(folder) / "jobs.sqlite"
        for run in range(KILLS):
            acknowledged += write_and_kill(path, str(run), chance.randrange(1, 400))
            await assert_all_there(path, acknowledged, f"seed {seed}, run {run}")
    assert len(acknowledged) > KILLS


async def assert_all_there(path: Path, acknowledged: list[list[str]], where: str) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), where
    connection.close()
    async with sqlite.open_store(path) as store:
        await assert_stored(store, acknowledged, where)


async def assert_stored(store: Store, acknowledged: list[list[str]], where: str) -> None:
    offered: dict[str, bool] = {}
    for verb, job_id, *number in acknowledged:
        job, _ = await store.jobs.get(job_id)
        if verb == "changed":
            assert job.faults >= int(number[0]), where
        if verb in ("offered", "withdrawn"):
            offered[job_id] = verb == "offered"
    # The jobs that were being written when a kill came may be a step further than their last word.
    cut_short = {job_id.partition("-")[0]: job_id for _, job_id, *_ in acknowledged}.values()
    for job_id, is_in_line in offered.items():
        if job_id not in cut_short:
            assert (await store.queue.ahead_of(job_id) is not None) is is_in_line, where
