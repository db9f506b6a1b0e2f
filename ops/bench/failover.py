"""Failover: seconds until a job runs elsewhere when its worker, a tier or the router is killed or frozen.

HAProxy before the same workers shows what becomes of the songs without a router.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from itertools import chain

from mastering.contract import Facts, Settings
from ops.bench._setup import BenchSetup, Client, running_setup, song
from ops.bench.line import BenchmarkLine
from ops.topology import free_port
from router.tiers.in_memory import audio_source_of
from router.tiers.policy.faults import TierFault
from router.tiers.port import Finished, OutputStarted, Work
from router.tiers.worker.backend import WorkerBackend

_MIB = 1024 * 1024
_BATCHES, _KILLS = 7, 15
"""So many kills in all that their p99 means something; a fresh worker each, since a breaker remembers a death."""
_FREEZES, _ROUTER_KILLS, _JOBS = 2, 10, 12


def measure() -> list[BenchmarkLine]:
    audio = song(20 * _MIB)
    killed = sorted(chain.from_iterable(_after(audio, signal.SIGKILL, _KILLS) for _ in range(_BATCHES)))
    resumed = sorted(_router_dies(audio))
    frozen = max(_after(audio, signal.SIGSTOP, _FREEZES))
    freed = max(_cancelled(song(2 * _MIB)))
    shown, of_proxy = _tier_dies(song(2 * _MIB)), _proxy_loses(audio, _BATCHES)
    lines = [
        BenchmarkLine(
            f"kill -9 with 20 MB in flight, p99 of {len(killed)} until it runs elsewhere",
            killed[math.ceil(0.99 * len(killed)) - 1] * 1000,
            "ms",
            "lower",
            250.0,
        ),
        BenchmarkLine("kill -9 with 20 MB in flight, worst until it runs elsewhere", killed[-1] * 1000, "ms", "lower"),
        BenchmarkLine("kill -9 with 20 MB in flight, median", killed[len(killed) // 2] * 1000, "ms", "lower"),
        BenchmarkLine("router killed, job running elsewhere or again, worst", resumed[-1], "s", "lower", 3.0),
        BenchmarkLine(
            "router killed, job running elsewhere or again, median", resumed[len(resumed) // 2], "s", "lower"
        ),
        BenchmarkLine("SIGSTOP with 20 MB in flight, worst until it runs elsewhere", frozen, "s", "lower", 12.0),
        BenchmarkLine("a job cancelled while it renders, worst until the worker is free", freed, "s", "lower", 1.0),
        BenchmarkLine(f"a whole tier killed under {_JOBS} jobs, errors shown", shown, "jobs", "lower", 0.0),
    ]
    if of_proxy is not None:
        lost = BenchmarkLine(
            f"killed in {len(killed)} uploads, songs lost", 0.0, "jobs", "lower", 0.0, "HAProxy, 3 retries", of_proxy
        )
        lines.append(lost)
    return lines


def _after(audio: bytes, how: signal.Signals, rounds: int) -> list[float]:
    """Seconds from the signal to the moment another worker has the whole song; a fresh worker each round."""
    seconds = []
    with running_setup(["managed"] * (rounds + 1)) as setup:
        client = setup.client()
        for _ in range(rounds):
            setup.stall_file.touch()
            asked_s = time.monotonic()
            job_id = client.send(audio)
            victim, _ = setup.latest("stalled", asked_s, 30)
            hit_s = victim.stop(how)
            try:
                _, accepted_s = setup.latest("accepted", hit_s, 40)
            except TimeoutError:
                job = client.wait(job_id, 0)
                told = [(one["outcome"], one["detail"], one["reason"]) for one in job["attempts"]]
                raise RuntimeError(f"no other worker has the job: {job['state']}, {told}, {job['error']}") from None
            seconds.append(accepted_s - hit_s)
            if client.wait(job_id)["state"] != "mastered":
                raise RuntimeError("a job was lost")
            client.end(job_id)
    return seconds


def _router_dies(audio: bytes) -> list[float]:
    """Seconds from the router's kill -9, while a worker renders, until a worker has the whole song again; the router is
    started at once, as a supervisor would. Each job is finished by one attempt, whatever the first one brought."""
    seconds = []
    with running_setup(["managed"] * 2, render_s=1.0) as setup:
        for _ in range(_ROUTER_KILLS):
            client, asked_s = setup.client(), time.monotonic()
            job_id = client.send(audio)
            setup.latest("accepted", asked_s, 30)
            killed_s = time.monotonic()
            setup.restart_router()
            _, accepted_s = setup.latest("accepted", killed_s, 30)
            seconds.append(accepted_s - killed_s)
            client = setup.client()
            job = client.wait(job_id)
            outcomes = [attempt["outcome"] for attempt in job["attempts"]]
            if job["state"] != "mastered" or outcomes != ["interrupted", "done"] or client.fetch(job_id) != audio:
                raise RuntimeError(f"not resumed as promised: {job['state']}, {outcomes}")
            client.end(job_id)
    return seconds


def _cancelled(audio: bytes) -> list[float]:
    """Seconds from a Delete to the moment the worker has let the render go."""
    seconds = []
    with running_setup(["managed"], render_s=30.0) as setup:
        client = setup.client()
        for _ in range(5):
            asked_s = time.monotonic()
            job_id = client.send(audio)
            setup.latest("accepted", asked_s, 30)
            ended_s = time.monotonic()
            client.end(job_id)
            _, freed_s = setup.latest("freed", ended_s, 30)
            seconds.append(freed_s - ended_s)
    return seconds


def _tier_dies(audio: bytes) -> int:
    """Jobs that end in an error when every managed worker is killed while they run."""
    with running_setup(["managed", "managed", "cpu_space"], render_s=0.3, max_running_per_account=8) as setup:
        client = setup.client()
        jobs: list[str] = []
        for number in range(_JOBS):
            if number == _JOBS // 2:
                for worker in setup.workers[:2]:
                    worker.stop()
            jobs.append(client.send(audio) if number < 10 else _send_when_allowed(client, jobs, audio))
        return sum(client.wait(job_id)["state"] != "mastered" for job_id in jobs)


def _send_when_allowed(client: Client, jobs: list[str], audio: bytes) -> str:
    """An account may have ten jobs at once: wait for the oldest first."""
    for job_id in jobs[:4]:
        client.wait(job_id)
    return client.send(audio)


def _proxy_loses(audio: bytes, batches: int) -> int | None:
    """Songs lost when the same workers are killed behind HAProxy; None where it is not installed."""
    if shutil.which("haproxy") is None:
        return None
    lost = 0
    for _ in range(batches):
        with running_setup(["managed"] * (_KILLS + 1), router=False) as setup, _haproxy(setup) as url:
            lost += sum(not asyncio.run(_sent_through(url, setup, audio)) for _ in range(_KILLS))
    return lost


async def _sent_through(url: str, setup: BenchSetup, audio: bytes) -> bool:
    setup.stall_file.touch()
    asked_s, backend = time.monotonic(), WorkerBackend("direct", url)
    sending = asyncio.create_task(direct(backend, audio))
    stalled = asyncio.create_task(asyncio.to_thread(setup.latest, "stalled", asked_s, 10))
    try:
        await asyncio.wait([sending, stalled], return_when=asyncio.FIRST_COMPLETED)
        if sending.done():  # the proxy sent it to a worker that is dead already
            with suppress(TimeoutError):
                await stalled
            setup.stall_file.unlink(missing_ok=True)
            return sending.result()
        victim, _ = await stalled
        victim.stop()
        return await sending
    finally:
        await backend.close()


class _DiscardBuffer:
    """A buffer that discards what is written to it: the master is not kept."""

    def __init__(self) -> None:
        self.free_view = memoryview(bytearray(256 * 1024))

    def commit(self, count: int) -> None:
        """Discard the bytes."""

    def flush(self) -> None:
        """It always is empty."""


async def direct(backend: WorkerBackend, audio: bytes) -> bool:
    """One render without a router; False when it is lost."""
    facts = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=1, duration_s=100.0, lossy=False)

    discarded, is_finished = _DiscardBuffer(), False
    try:
        async with aclosing(backend.run(Work(Settings(), facts, audio_source_of(audio), 60.0))) as events:
            async for event in events:
                if isinstance(event, OutputStarted) and event.body is not None:
                    while await event.body.fill(discarded):
                        pass
                is_finished = isinstance(event, Finished)
            return is_finished
    except TierFault:
        return False


@contextmanager
def _haproxy(setup: BenchSetup) -> Iterator[str]:
    """HAProxy before the workers, configured to try three times and elsewhere."""
    port = free_port()
    servers = "\n".join(
        f"  server {worker.name} 127.0.0.1:{worker.port} check inter 1s fall 2" for worker in setup.workers
    )
    path = setup.folder / "haproxy.cfg"
    path.write_text(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n"
        "  retries 3\n  option redispatch\n  retry-on all-retryable-errors\n"
        f"listen workers\n  bind 127.0.0.1:{port}\n  balance roundrobin\n{servers}\n"
    )
    process = subprocess.Popen(["haproxy", "-q", "-db", "-f", str(path)])
    try:
        time.sleep(1.0)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(15)
