"""Writes into a SQLite store without end, saying after each change what was acknowledged. Its parent kills it.

python -m tests.conformance.store_writer PATH RUN
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from mastering.contract import Settings
from router.store.embedded import sqlite
from router.store.port import Store
from router.store.record import Job


async def write(path: Path, run: str) -> None:
    async with sqlite.open_store(path, max_queued=1_000_000) as store:
        await _write(store, run)


async def _write(store: Store, run: str) -> None:
    for count in itertools.count():
        job = Job(
            id=f"{run}-{count}", account="a", options=Settings().model_dump(mode="json"), created_s=0.0, expires_s=0.0
        )
        _, revision = await store.jobs.create(job, 3600)
        print("created", job.id, flush=True)
        for faults in (1, 2, 3):
            revision = await store.jobs.change(job.with_(faults=faults), revision)
            print("changed", job.id, faults, flush=True)
        await store.queue.enqueue(job.id, "any", "a", 1)
        print("offered", job.id, flush=True)
        if count % 3 == 0:
            await store.queue.withdraw(job.id)
            print("withdrawn", job.id, flush=True)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2]))
