"""What a job by a Space costs: over one direct POST to a worker, and beside gradio_client as it comes.

The Space is ours, a real Gradio process, with an engine that only copies; the direct POST is an exchange with a worker
that has the same engine. The peer is gradio_client alone: it uploads a file to a Gradio app that hands it back, and
downloads it, one client per job, for jobs that share a client stop each other. It has a process of its own, so that its
start counts for it as ours for us.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mastering.contract import Facts, Settings
from ops.bench.line import BenchmarkLine
from ops.bench.worker import _exchange
from router.tiers.in_memory import audio_source_of
from router.tiers.port import Finished, Work
from router.tiers.space.address import SpaceAddress
from router.tiers.space.backend import SpaceBackend
from tests.mastering.worker_process import running_worker
from tests.rough_space import rough_space
from tests.space_process import running_space

_ROOT = Path(__file__).parents[2]
_ENGINE = "tests.mastering.worker_engines:copy"
_SIZE_BYTES = 20_000_000
_TINY = b"a tiny song" * 100
_ROUNDS = 3
_AT_ONCE, _SLOTS = 50, 8
"""Jobs, and how many of them a router runs at once by default."""


class Spent(NamedTuple):
    wall_s: float
    cpu_s: float
    """Of the caller and its children, the server not counted."""


def measure() -> list[BenchmarkLine]:
    song = os.urandom(_SIZE_BYTES)
    with (
        running_worker() as worker,
        running_space(
            "cpu", engine=_ENGINE, environment={"PYTHONPATH": str(_ROOT)}, concurrency=_SLOTS, places=64
        ) as space,
        rough_space("plain") as plain,
    ):
        big = [(_exchange(worker), _ours(space.url, song), _theirs(plain.url, song, 1)) for _ in range(_ROUNDS)]
        ours, theirs = _ours(space.url, _TINY, _AT_ONCE), _theirs(plain.url, _TINY, _AT_ONCE)
    added = [_median([both[n].wall_s - post_s for post_s, *both in big]) * 1000 for n in (0, 1)]
    cpu_s = [_median([both[n].cpu_s for _, *both in big]) for n in (0, 1)]
    peer = "gradio_client alone"
    flight = f"{_AT_ONCE} tiny jobs at once"
    return [
        BenchmarkLine("20 MB through a Space, added over a direct POST", added[0], "ms", "lower", None, peer, added[1]),
        BenchmarkLine("20 MB through a Space, CPU of the caller", cpu_s[0], "s", "lower", None, peer, cpu_s[1]),
        BenchmarkLine(f"{flight}, {_SLOTS} in flight", ours.wall_s, "s", "lower", None, peer, theirs.wall_s),
        BenchmarkLine(f"{flight}, CPU of the caller", ours.cpu_s, "s", "lower", None, peer, theirs.cpu_s),
    ]


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _ours(url: str, song: bytes, jobs: int = 1) -> Spent:
    return _spent(lambda: asyncio.run(_through(url, song, jobs)))


async def _through(url: str, song: bytes, jobs: int) -> None:
    slots = asyncio.Semaphore(_SLOTS)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as ram:  # noqa: S108
        backend = SpaceBackend("bench", "cpu_space", SpaceAddress(url), Path(ram))

        async def one() -> None:
            async with slots:
                events = [event async for event in backend.run(_work(song))]
            if not isinstance(events[-1], Finished) or b"".join(e for e in events if isinstance(e, bytes)) != song:
                raise RuntimeError("the song did not come back")

        await asyncio.gather(*(one() for _ in range(jobs)))
        await backend.close()


def _work(song: bytes) -> Work:
    facts = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=1, duration_s=1.0, lossy=False)
    return Work(Settings(), facts, audio_source_of(song), 60.0)


def _theirs(url: str, song: bytes, jobs: int) -> Spent:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.wav"
        path.write_bytes(song)
        script = (sys.executable, "-c", _PEER, url, str(path), str(jobs), folder)
        return _spent(lambda: subprocess.run(script, check=True, stdout=subprocess.DEVNULL, timeout=300))


_PEER = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from gradio_client import Client, handle_file
url, path, jobs, folder = sys.argv[1:]
def one(number):
    client = Client(url, token=False, verbose=False, download_files=f"{folder}/{number}", analytics_enabled=False)
    made = client.predict(handle_file(path), api_name="/process")
    assert Path(made).read_bytes() == Path(path).read_bytes()
    client.close()
with ThreadPoolExecutor(int(jobs)) as pool:
    list(pool.map(one, range(int(jobs))))
os._exit(0)
"""


def _spent(run: Callable[[], object]) -> Spent:
    began_s, cpu_s = time.perf_counter(), _cpu_s()
    run()
    return Spent(time.perf_counter() - began_s, _cpu_s() - cpu_s)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
