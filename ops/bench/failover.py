"""What dies on the way and what becomes of the song: killed, frozen, vanished workers; HAProxy before the same."""

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
from ops.bench._field import Client, Field, free_port, running_field, song
from ops.bench.line import BenchmarkLine
from router.tiers.in_memory import source_of
from router.tiers.policy.faults import TierFault
from router.tiers.port import Finished, OutputBegins, Work
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
    with running_field(["managed"] * (rounds + 1)) as field:
        client = field.client()
        for _ in range(rounds):
            field.trap.touch()
            asked_s = time.monotonic()
            job_id = client.send(audio)
            victim, _ = field.latest("trapped", asked_s, 30)
            hit_s = victim.stop(how)
            _, accepted_s = field.latest("accepted", hit_s, 40)
            seconds.append(accepted_s - hit_s)
            if client.wait(job_id)["state"] != "mastered":
                raise RuntimeError("a job was lost")
            client.end(job_id)
    return seconds


def _router_dies(audio: bytes) -> list[float]:
    """Seconds from the router's kill -9, while a worker renders, until a worker has the whole song again; the router is
    started at once, as a supervisor would. Each job is finished by one attempt, whatever the first one brought."""
    seconds = []
    with running_field(["managed"] * 2, render_s=1.0) as field:
        for _ in range(_ROUTER_KILLS):
            client, asked_s = field.client(), time.monotonic()
            job_id = client.send(audio)
            field.latest("accepted", asked_s, 30)
            killed_s = time.monotonic()
            field.restart_router()
            _, accepted_s = field.latest("accepted", killed_s, 30)
            seconds.append(accepted_s - killed_s)
            client = field.client()
            job = client.wait(job_id)
            outcomes = [attempt["outcome"] for attempt in job["attempts"]]
            if job["state"] != "mastered" or outcomes != ["interrupted", "done"] or client.fetch(job_id) != audio:
                raise RuntimeError(f"not resumed as promised: {job['state']}, {outcomes}")
            client.end(job_id)
    return seconds


def _cancelled(audio: bytes) -> list[float]:
    """Seconds from a Delete to the moment the worker has let the render go."""
    seconds = []
    with running_field(["managed"], render_s=30.0) as field:
        client = field.client()
        for _ in range(5):
            asked_s = time.monotonic()
            job_id = client.send(audio)
            field.latest("accepted", asked_s, 30)
            ended_s = time.monotonic()
            client.end(job_id)
            _, freed_s = field.latest("freed", ended_s, 30)
            seconds.append(freed_s - ended_s)
    return seconds


def _tier_dies(audio: bytes) -> int:
    """Jobs that end in an error when every managed worker is killed while they run."""
    with running_field(["managed", "managed", "cpu_space"], render_s=0.3, max_running_per_account=8) as field:
        client = field.client()
        jobs: list[str] = []
        for number in range(_JOBS):
            if number == _JOBS // 2:
                for worker in field.workers[:2]:
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
        with running_field(["managed"] * (_KILLS + 1), router=False) as field, _haproxy(field) as url:
            lost += sum(not asyncio.run(_sent_through(url, field, audio)) for _ in range(_KILLS))
    return lost


async def _sent_through(url: str, field: Field, audio: bytes) -> bool:
    field.trap.touch()
    asked_s, backend = time.monotonic(), WorkerBackend("direct", url)
    sending = asyncio.create_task(direct(backend, audio))
    trapped = asyncio.create_task(asyncio.to_thread(field.latest, "trapped", asked_s, 10))
    try:
        await asyncio.wait([sending, trapped], return_when=asyncio.FIRST_COMPLETED)
        if sending.done():  # the proxy sent it to a worker that is dead already
            with suppress(TimeoutError):
                await trapped
            field.trap.unlink(missing_ok=True)
            return sending.result()
        victim, _ = await trapped
        victim.stop()
        return await sending
    finally:
        await backend.close()


class _Nowhere:
    """Where a master goes that nobody keeps."""

    def __init__(self) -> None:
        self.free = memoryview(bytearray(256 * 1024))

    def add(self, count: int) -> None:
        """It is gone."""

    def empty(self) -> None:
        """It is."""


async def direct(backend: WorkerBackend, audio: bytes) -> bool:
    """One render without a router; False when it is lost."""
    facts = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=1, duration_s=100.0, lossy=False)

    nowhere, is_finished = _Nowhere(), False
    try:
        async with aclosing(backend.run(Work(Settings(), facts, source_of(audio), 60.0))) as events:
            async for event in events:
                if isinstance(event, OutputBegins) and event.body is not None:
                    while await event.body.fill(nowhere):
                        pass
                is_finished = isinstance(event, Finished)
            return is_finished
    except TierFault:
        return False


@contextmanager
def _haproxy(field: Field) -> Iterator[str]:
    """HAProxy before the field's workers, told to try three times and elsewhere."""
    port = free_port()
    servers = "\n".join(
        f"  server {worker.name} 127.0.0.1:{worker.port} check inter 1s fall 2" for worker in field.workers
    )
    path = field.folder / "haproxy.cfg"
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
