"""Runs rounds of chaos: starts everything, lets clients work while faults strike, and counts what came of it."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ops.chaos import client, songs
from ops.chaos.client import JobHistory
from ops.chaos.faults import Clocks, Faults, small_disk
from ops.chaos.proxy import FaultProxy, Record
from ops.chaos.schedule import ROUND_JOBS, WORKERS, PlannedFault, PlannedJob, Round, planned_round
from ops.chaos.verdict import RETURN_S, Verdict
from ops.topology import Topology, TopologyProcess, running_topology
from router.identity.accounts import open_accounts

CLIENTS = 5
"""Who send at once: as many as there are backends, so that a fault meets a song."""
_PREFIX = "mastering-chaos-run-"
"""Of its folders: a demo beside it has others."""
_SETTINGS: dict[str, Any] = {
    "max_queued_per_account": 100,
    "max_running_per_account": 8,
    "oidc_client_id": "chaos",
    "oidc_client_secret": "nobody signs in: both accounts have tokens",
    "oidc_issuer": "http://127.0.0.1:9",
}


class Tokens(NamedTuple):
    """Of the accounts that send."""

    honest: str
    hostile: str


class Run(NamedTuple):
    """A running topology with all that is needed to torment it."""

    topology: Topology
    faults: Faults
    record: Record
    tokens: Tokens


Say = Callable[[str], None]


async def run_rounds(seed: int, first: int, jobs: int, end_s: float, say: Say) -> Verdict:
    """Rounds of jobs `first` … `first + jobs`; none begins that may end after `end_s`. Raises RuntimeError."""
    verdict, longest_s = Verdict(), 0.0
    songs.prepare()
    say("starting a router, three workers and two Spaces")
    async with _running() as run:
        number, last = first // ROUND_JOBS, -(-(first + jobs) // ROUND_JOBS)
        while number < last and (not longest_s or time.monotonic() + longest_s < end_s):
            began_s = time.monotonic()
            plan = _within(planned_round(seed, number, songs.hostile_kinds()), first, first + jobs)
            histories = await _play(run, plan, verdict.jobs, jobs, say)
            verdict.add(histories, run.record, run.faults.outages)
            await run.faults.all_well()
            verdict.skipped.update(run.faults.skipped)
            verdict.died.update(run.faults.died)
            seen = run.record.transfers, run.record.strikes
            for kept in (*seen, run.faults.outages, run.faults.skipped, run.faults.died):
                kept.clear()
            longest_s, number = max(longest_s, time.monotonic() - began_s), number + 1
            if number < last:
                await asyncio.sleep(RETURN_S)
    return verdict


def _within(plan: Round, first: int, end: int) -> Round:
    """The round without jobs that were not asked for, and without the faults that follow on these."""
    quiet, storm = ([job for job in jobs if first <= job.number < end] for jobs in (plan.quiet, plan.storm))
    faults = [fault for fault in plan.faults if any(job.number == fault.after_job for job in storm)]
    return plan._replace(quiet=tuple(quiet), storm=tuple(storm), faults=tuple(faults))


async def _play(run: Run, plan: Round, before: int, total: int, say: Say) -> list[JobHistory]:
    """The round's jobs, as many at once as there are clients, and its faults beside."""
    histories: list[JobHistory] = []
    striking: list[asyncio.Task[None]] = []
    stop = threading.Event()
    with ThreadPoolExecutor(CLIENTS, "client") as pool, _setting(stop):

        async def one(job: PlannedJob) -> None:
            due = [fault for fault in plan.faults if fault.after_job == job.number]
            striking.extend(asyncio.create_task(_strike(run, fault, say)) for fault in due)
            token = run.tokens.honest if job.song is not None else run.tokens.hostile
            sending = partial(client.send, run.topology.router.url, token, job, stop)
            histories.append(await asyncio.get_running_loop().run_in_executor(pool, sending))
            say(f"{before + len(histories)} of {total} jobs")

        for jobs in (plan.quiet, plan.storm):
            await _with_clients(jobs, one)
        await asyncio.gather(*striking)
    return histories


@contextmanager
def _setting(event: threading.Event) -> Iterator[None]:
    """Set the event when the block ends, however it does: clients would go on for minutes."""
    try:
        yield
    finally:
        event.set()


async def _strike(run: Run, fault: PlannedFault, say: Say) -> None:
    say(f"{fault.kind.value} on {fault.target}")
    await run.faults.strike(fault)


async def _with_clients(jobs: Sequence[PlannedJob], one: Callable[[PlannedJob], Awaitable[None]]) -> None:
    """Go through the jobs in their order, CLIENTS at a time."""
    waiting = list(reversed(jobs))

    async def work() -> None:
        while waiting:
            await one(waiting.pop())

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(work())


@asynccontextmanager
async def _running() -> AsyncIterator[Run]:
    """The topology, each backend behind a proxy, the router's disk a small one, clocks that can jump."""
    record = Record()
    async with AsyncExitStack() as cleanup:
        clocks = Clocks(Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="mastering-chaos-"))))
        cleanup.callback(clocks.remove_remains)
        sockets: dict[str, socket.socket] = {}

        def reached_by(child: TopologyProcess) -> str:
            sockets[child.name] = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
            return f"http://127.0.0.1:{sockets[child.name].getsockname()[1]}"

        def prepare(topology: Topology) -> None:
            for child in (topology.router, *topology.workers):
                child.environment = {**child.environment, **clocks.environment(child.name)}

        topology = cleanup.enter_context(
            running_topology(
                workers=len(WORKERS),
                reached_by=reached_by,
                prepare=prepare,
                with_router=False,
                prefix=_PREFIX,
                **_SETTINGS,
            )
        )
        disk = cleanup.enter_context(small_disk(topology.folder / "spool"))
        topology.router.command = disk.seen_by(topology.router.command)
        tokens = await _tokens(topology.folder / "state")
        proxies = {child.name: FaultProxy(child.name, child.url, record) for child in topology.backends}
        for name, proxy in proxies.items():
            await cleanup.enter_async_context(proxy.listening(sockets[name]))
        cleanup.callback(topology.router.stop)  # before its disk goes
        topology.router.start()
        await asyncio.to_thread(topology.router.wait)
        yield Run(topology, Faults(topology, proxies, record, clocks, disk), record, tokens)


async def _tokens(state: Path) -> Tokens:
    async with open_accounts(state) as accounts:
        made = [(await accounts.make_token(name, "jobs", 0))[1] for name in ("chaos-honest", "chaos-hostile")]
    return Tokens(*made)
