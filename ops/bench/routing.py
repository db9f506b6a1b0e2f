"""What the router costs: time added to a direct call to a worker, small jobs a second, event streams in RAM.

The direct call is the router's own adapter, by the same worker with the same bytes: a slot, the song out, the master
in, both seals. Through the router a person's client comes on top, which is http.client (`_setup.Client`): what
httpx takes to read 20 MB in Python is not the router's doing. Client, router, probe and worker share one machine, which
is why there are lines for four and sixteen cores, too, where it has them: a router's worker has its own.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import uvloop

from mastering.contract import Facts, OutputFormat
from mastering.contract import Settings as MasterSettings
from ops.bench._cores import on_cores
from ops.bench._setup import running_setup, song
from ops.bench._stub_worker import REPORT
from ops.bench.failover import direct
from ops.bench.line import BenchmarkLine
from router.core import clock
from router.core.settings import RouterSettings
from router.dispatch.dispatcher import Dispatcher
from router.identity.accounts import open_accounts
from router.jobs.intake import lane_of
from router.jobs.services import Services
from router.probe.client import Probe
from router.spool.disk import Spool
from router.store.embedded import sqlite
from router.store.port import Owner
from router.store.record import THIS_ROUTER, BlobRef, Job, new_id
from router.store.state import JobState
from router.tiers.fake import FakeBackend, ScriptStep
from router.tiers.fleet.fleet import Fleet
from router.tiers.port import Accepted, Backend, BackendHealth, Finished, OutputStarted
from router.tiers.worker.backend import WorkerBackend

_MIB = 1024 * 1024
_CORES = (2, 4, 16)
_LANE = lane_of("master", managed_only=False)
_BATCHES, _ROUNDS, _SMALL_ROUNDS, _JOBS, _WATCHERS = 4, 15, 100, 400, 1000
_REST_S = 0.4
_FACTS = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=1, duration_s=10.0, lossy=False)


def measure() -> list[BenchmarkLine]:
    there = len(os.sched_getaffinity(0))
    counts = sorted({min(cores, there) for cores in _CORES})
    forwarded_s = uvloop.run(_forwarding(song(1024)))
    return [
        *(_added_line(cores, there, backoff_s=backoff_s) for cores in counts for backoff_s in (0.0, _REST_S)),
        BenchmarkLine("1 KB, added by forwarding alone, p50", forwarded_s * 1000, "ms", "lower", 5.0),
        BenchmarkLine("small jobs, fake tier, without the probe", uvloop.run(_throughput()), "jobs/s", "higher", 200.0),
        BenchmarkLine(f"{_WATCHERS} idle watchers, RAM", asyncio.run(_watchers_mb()), "MB", "lower", 100.0),
    ]  # fmt: skip


def _added_line(cores: int, there: int, *, backoff_s: float) -> BenchmarkLine:
    device = f"{cores} of {there} cores"
    with on_cores(cores):
        straight_s, through_s = _added(song(20 * _MIB), backoff_s)
    added_ms = (through_s - straight_s) * 1000
    how, limit = (", each at rest", None) if backoff_s else ("", 60.0)
    return BenchmarkLine(
        f"20 MB, added to a direct call{how}, p50, {device}", added_ms, "ms", "lower", limit,
        "a direct call takes (ms)", straight_s * 1000, device=device,
    )  # fmt: skip


def _added(audio: bytes, backoff_s: float) -> tuple[float, float]:
    """Medians of a direct call and of the whole way through the router, probes, encryption and deletion included.

    Both callers keep their connections, as a router and a browser do, and nothing of the master. They take turns, so
    that whatever else the machine does falls on both alike; but what a song leaves for a quiet moment, which takes a
    core 10 to 20 ms, falls on one of them or the other, unless each begins after `backoff_s`.
    """
    batches = [_batch(audio, backoff_s) for _ in range(_BATCHES)]  # how memory lies in a process lasts as long as it
    straight, through = ([one for batch in batches for one in batch[which]] for which in (0, 1))
    return statistics.median(straight), statistics.median(through)


def _batch(audio: bytes, backoff_s: float) -> tuple[list[float], list[float]]:
    taken: tuple[list[float], list[float]] = ([], [])
    with running_setup(["managed"]) as setup, asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        client, backend = setup.client(), WorkerBackend("direct", setup.workers[0].url)
        calls: tuple[Callable[[], object], ...] = (
            lambda: loop.run(direct(backend, audio)),
            lambda: client.run_job(audio),
        )
        for number in range(-1, _ROUNDS):
            for call, times in zip(calls, taken, strict=True):
                time.sleep(backoff_s)
                began = time.perf_counter()
                if call() is False:
                    raise RuntimeError("a direct call was lost")
                if number >= 0:
                    times.append(time.perf_counter() - began)
        loop.run(backend.close())
    return taken


async def _forwarding(audio: bytes) -> float:
    """From a queued song to its master in the spool, less the direct call, by the same client in this process."""
    with running_setup(["managed"], router=False) as setup:
        url = setup.workers[0].url
        backend = WorkerBackend("direct", url)
        async with _services([WorkerBackend("stub", url)]) as services:
            straight: list[float] = []
            through: list[float] = []
            for number in range(-1, _SMALL_ROUNDS):
                job = await _queued(services, audio, "a")
                for call, times in ((direct(backend, audio), straight), (_forwarded(services, job), through)):
                    began = time.perf_counter()
                    await call
                    if number >= 0:
                        times.append(time.perf_counter() - began)
        await backend.close()
    return statistics.median(through) - statistics.median(straight)


async def _throughput() -> float:
    audio = song(1024)
    script: list[ScriptStep] = [
        Accepted("fake"),
        OutputStarted(OutputFormat.WAV24, len(audio)),
        audio,
        Finished(REPORT),
    ]
    fake = FakeBackend("fake", [script])
    fake.health = BackendHealth(True, "fake", slots=8)
    async with _services([fake]) as services:
        jobs = [await _queued(services, audio, f"account {n % 8}") for n in range(_JOBS)]
        began = time.perf_counter()
        for job in jobs:
            await services.queue.enqueue(job.id, _LANE, job.account, _FACTS.duration_s)
        for job in jobs:
            await _mastered(services, job.id)
        return _JOBS / (time.perf_counter() - began)


async def _forwarded(services: Services, job: Job) -> None:
    await services.queue.enqueue(job.id, _LANE, job.account, _FACTS.duration_s)
    await _mastered(services, job.id)


async def _queued(services: Services, audio: bytes, account: str) -> Job:
    """A job that is ready to be offered, its song in the spool."""

    async def pieces() -> AsyncIterator[bytes]:
        yield audio

    now = clock.now()
    ref = await services.spool.reserve(len(audio), now + 3000)
    await services.spool.append(ref, 0, pieces(), len(audio))
    source = BlobRef(ref=ref, size_bytes=len(audio))
    job = Job(
        id=new_id(),
        account=account,
        options=MasterSettings().model_dump(mode="json"),
        created_s=now,
        expires_s=now + 3000,
        input=source,
        facts=_FACTS,
        state=JobState.QUEUED,
    )
    await services.jobs.create(job, 3600)
    return job


async def _mastered(services: Services, job_id: str) -> None:
    async with asyncio.timeout(60), services.events.subscribe(job_id) as changes:
        while (await services.jobs.get(job_id)).job.state is not JobState.MASTERED:
            await changes.wait(1.0)


class _Trusting(Probe):
    """A probe that checks nothing: the transfer is measured, not the check."""

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    def tap_output(self, *_: Any, **__: Any) -> None:
        return

    async def verify(self, *_: Any, **__: Any) -> Any:
        return


@asynccontextmanager
async def _services(backends: list[Backend]) -> AsyncIterator[Services]:
    """A router's services in this process, on an encrypted spool, its dispatcher at work."""
    async with AsyncExitStack() as cleanup:
        shm = "/dev/shm"  # noqa: S108 — the folder made in it is random and 0700
        in_ram = shm if os.access(shm, os.W_OK) else None
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        ram = Path(cleanup.enter_context(tempfile.TemporaryDirectory(dir=in_ram)))
        settings = RouterSettings(ram_dir=ram, spool_dir=folder / "spool", state_dir=folder / "state")
        store = await cleanup.enter_async_context(
            sqlite.open_store(ram / "jobs.sqlite", max_queued=10_000, max_running=64)
        )
        accounts = await cleanup.enter_async_context(open_accounts(settings.state_dir))
        spool = Spool(settings.spool_dir, ram / "keys", settings.spool_quota_bytes)
        fleet = Fleet(backends)
        services = Services(
            settings,
            store.jobs,
            store.queue,
            store.events,
            spool,
            _Trusting(),
            fleet,
            accounts,
            b"s" * 32,
            Owner(THIS_ROUTER, "bench"),
        )
        dispatcher = Dispatcher(services)
        await fleet.start()
        await dispatcher.start()
        try:
            yield services
        finally:
            await dispatcher.close()
            await fleet.close()


async def _watchers_mb() -> float:
    """What a thousand open event streams of one waiting job add to the router's memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard > 0 else 8192, hard))
    with running_setup(["managed"], streams_per_account=2 * _WATCHERS) as setup:
        async with httpx.AsyncClient() as client:
            job = (await client.post(f"{setup.url}/v1/jobs", json={})).raise_for_status().json()
        assert setup.router is not None  # noqa: S101 — it was asked for
        streams = [await _watch(setup.url, job["id"]) for _ in range(20)]
        before = _resident_mb(setup.router.pid)
        streams += [await _watch(setup.url, job["id"]) for _ in range(_WATCHERS)]
        added = _resident_mb(setup.router.pid) - before
        for writer in streams:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    return added


async def _watch(url: str, job_id: str) -> asyncio.StreamWriter:
    host = url.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    lines = (f"GET /v1/jobs/{job_id} HTTP/1.1", f"host: {host}", "accept: text/event-stream", "", "")
    writer.write("\r\n".join(lines).encode())
    await reader.readuntil(b"event: job")
    return writer


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
