"""`python -m ops.demo`: all tiers on this machine, to be watched and killed by hand. `--check` does both by itself.

The check masters the same song on each tier, compares the 24-bit samples, kills one tier after another and brings
them back; it prints a line per step and ends with 1 at the first that fails.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile

from mastering.engine.demo import demo_song
from ops.topology import Topology, TopologyProcess, running_topology

PAGE_PORT, OPERATORS_PORT = 8080, 8081
RETURNS_S = 20.0
"""Seconds before a killed process is started again: long enough to watch what the router does without it."""
_JOB_LIMIT_S = 180.0
"""Seconds that a job, or a tier's return, may take before the check fails."""
_RATE_HZ = 44_100
_SONGS = Path(os.environ.get("MASTERING_TEST_AUDIO") or Path(__file__).parents[2] / "shared" / "audio")


class Failed(Exception):
    """A step did not come out as it must."""


def show() -> None:
    """Run all tiers until Ctrl+C. Raises RuntimeError where one does not start."""
    print("Starting a router, two workers and two Spaces; a Space takes a while.", flush=True)
    with running_topology(port=_or_any(PAGE_PORT), operators_port=_or_any(OPERATORS_PORT)) as topology:
        print(f"\nPage:       {topology.router.url}\nOperators:  {topology.operators}\n")
        print(f"Kill what you like; it comes back after {RETURNS_S:.0f} s:")
        for child in topology.backends:
            print(f"  kill -9 {_pid(child):<8} {child.tier:10} {child.name}  {child.url}")
        print("\nStop with Ctrl+C.", flush=True)
        _restart_killed(topology)


def _restart_killed(topology: Topology) -> None:
    gone_s: dict[str, float] = {}
    while True:
        time.sleep(0.5)
        if not topology.router.is_alive:
            raise RuntimeError("the router ended")
        for child in topology.backends:
            if child.is_alive:
                continue
            if child.name not in gone_s:
                gone_s[child.name] = time.monotonic()
                print(f"{child.name} is gone", flush=True)
            elif time.monotonic() - gone_s[child.name] > RETURNS_S:
                del gone_s[child.name]
                child.start()
                print(f"{child.name} is back: kill -9 {_pid(child)}", flush=True)


def check(song: bytes, say: Callable[[str], None] = print) -> None:
    """Master the song on each tier while others are killed and come back. Raises Failed, RuntimeError."""
    with (
        running_topology() as topology,
        httpx.Client(base_url=topology.router.url, timeout=60, trust_env=False) as http,
    ):
        say("ok    a router, two workers and two Spaces are up")
        client = _RouterClient(http, song)
        first = client.master_on("managed")
        say("ok    mastered by a worker")
        for worker in topology.workers:
            worker.kill()
        _same(first, client.master_on("gpu_space"), "the GPU Space")
        say("ok    both workers killed: the GPU Space has it, the samples are the same")
        topology.gpu_space.kill()
        _same(first, client.master_on("cpu_space"), "the CPU Space")
        say("ok    the GPU Space killed: the CPU Space has it, the samples are the same")
        topology.gpu_space.start()
        topology.gpu_space.wait()
        client.until_served_by("gpu_space")
        say("ok    the GPU Space is back, and so is its traffic")
        for worker in topology.workers:
            worker.start()
        client.until_served_by("managed")
        say("ok    the workers are back, and so is their traffic")
        _nothing_left(topology)
        say("ok    no job is left at any Space, and none is owed")


class _RouterClient:
    """Sends the same song again and again."""

    def __init__(self, http: httpx.Client, song: bytes) -> None:
        self._http, self._song = http, song

    def master_on(self, tier: str) -> bytes:
        """The master's file, made by that tier. Raises Failed."""
        job = self._send()
        if job["state"] not in ("mastered", "delivered") or job["attempts"][-1]["tier"] != tier:
            attempts = [(attempt["tier"], attempt["outcome"], attempt["detail"]) for attempt in job["attempts"]]
            raise Failed(f"the job should have been done by {tier}; it is {job['state']}, after {attempts}")
        master = self._http.get(f"/v1/jobs/{job['id']}/outputs/wav24").raise_for_status().content
        self._http.delete(f"/v1/jobs/{job['id']}").raise_for_status()
        return master

    def until_served_by(self, tier: str) -> None:
        """Send until a job goes there. Raises Failed."""
        give_up_s = time.monotonic() + _JOB_LIMIT_S
        while time.monotonic() < give_up_s:
            job = self._send()
            self._http.delete(f"/v1/jobs/{job['id']}")
            if job["attempts"][-1]["tier"] == tier and job["attempts"][-1]["outcome"] == "done":
                return
        raise Failed(f"the traffic did not come back to {tier}")

    def _send(self) -> dict[str, Any]:
        job = self._http.post("/v1/jobs", json={}).raise_for_status().json()
        self._http.put(f"/v1/jobs/{job['id']}/audio", content=self._song).raise_for_status()
        give_up_s = time.monotonic() + _JOB_LIMIT_S
        while job["state"] not in ("mastered", "delivered", "failed", "cancelled", "expired"):
            if time.monotonic() > give_up_s:
                raise Failed(f"a job is still {job['state']}")
            job = self._http.get(f"/v1/jobs/{job['id']}", headers={"prefer": "wait=5"}).raise_for_status().json()
        return dict(job)


def _same(expected: bytes, found: bytes, where: str) -> None:
    if not np.array_equal(_samples(expected), _samples(found)):
        raise Failed(f"{where} made other samples than the worker")


def _samples(wav: bytes) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.asarray(soundfile.read(io.BytesIO(wav), dtype="int32", always_2d=True)[0])


def _nothing_left(topology: Topology) -> None:
    give_up_s = time.monotonic() + 10
    while owed := list((topology.ram / "router" / "spaces").glob("*/*/*")):
        if time.monotonic() > give_up_s:
            raise Failed(f"{len(owed)} jobs are still owed to the Spaces")
        time.sleep(0.1)


def song_wav(seconds: float | None = None) -> bytes:
    """A real song where there is one, else half a minute of synthesised music; its first `seconds` if given."""
    real = sorted(_SONGS.glob("*.ogg"))
    if not real:
        return demo_wav(seconds)
    samples, rate_hz = soundfile.read(real[0], dtype="float32")
    return _wav(samples[: round(seconds * rate_hz) if seconds else None], rate_hz)


def demo_wav(seconds: float | None = None) -> bytes:
    """Half a minute of synthesised music, or its first `seconds`."""
    return _wav(demo_song(_RATE_HZ).T[: round(seconds * _RATE_HZ) if seconds else None], _RATE_HZ)


def _wav(samples: Any, rate_hz: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _or_any(port: int) -> int:
    """The port if it is free, else 0, which takes any."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def _pid(child: TopologyProcess) -> int:
    return child.process.pid if child.process else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="go through the tiers and compare what they make")
    parser.add_argument("--seconds", type=float, help="of the song for the check; all of it by default")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        # Whoever reads it by a pipe sees each line as it comes.
        check(song_wav(asked.seconds), partial(print, flush=True)) if asked.check else show()
    except Failed as failed:
        print(f"FAIL  {failed}")
        return 1
    except RuntimeError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
