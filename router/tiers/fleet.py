"""All backends and what is known of them right now; asks each how it is, all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from router import clock
from router.logs import log
from router.tiers.choice import Candidate
from router.tiers.port import Backend, Health

PROBE_EVERY_S = 2.0
FAILS_TO_DOWN = 2
_UNKNOWN = Health(False, "not asked yet")


@dataclass
class Standing:
    """What is known of one backend."""

    backend: Backend
    health: Health = _UNKNOWN
    since_s: float = 0.0
    failed_probes: int = 0
    in_flight: int = 0

    def note(self, health: Health) -> None:
        """Believe a good answer at once, a bad one the second time."""
        self.failed_probes = 0 if health.up else self.failed_probes + 1
        if health.up or self.failed_probes >= FAILS_TO_DOWN or not self.health.up:
            self._set(health)

    def note_crash(self, detail: str) -> None:
        """It failed a job by dying: not used again until a probe says otherwise."""
        self.failed_probes = FAILS_TO_DOWN
        self._set(Health(False, detail))

    def _set(self, health: Health) -> None:
        if health.up != self.health.up or not self.since_s:
            self.since_s = clock.now()
            log("backend", tier=self.backend.tier, backend=self.backend.name, up=health.up)
        self.health = health


class Fleet:
    def __init__(self, backends: Sequence[Backend], probe_every_s: float = PROBE_EVERY_S) -> None:
        self._standings = {backend.name: Standing(backend) for backend in backends}
        self._probe_every_s = probe_every_s
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Ask every backend once, then go on asking in the background."""
        await self.probe_all()
        self._task = asyncio.create_task(self._probe_for_ever(), name="fleet probes")

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for standing in self._standings.values():
            await standing.backend.close()

    async def probe_all(self) -> None:
        await asyncio.gather(*(self._probe(standing) for standing in self._standings.values()))

    def candidates(self) -> list[Candidate]:
        return [
            Candidate(name, s.backend.tier, s.health.up, s.in_flight, s.health.slots, s.health.detail)
            for name, s in self._standings.items()
        ]

    def standings(self) -> list[Standing]:
        return list(self._standings.values())

    def backend(self, name: str) -> Backend:
        return self._standings[name].backend

    def note_crash(self, name: str, detail: str) -> None:
        self._standings[name].note_crash(detail)

    def occupy(self, name: str) -> None:
        """One more render in flight there; whoever calls this calls `vacate` when it ends."""
        self._standings[name].in_flight += 1

    def vacate(self, name: str) -> None:
        self._standings[name].in_flight -= 1
        self._changed.set()

    async def wait_for_change(self, timeout_s: float) -> None:
        """Until a render ended or a backend came up, or the time passed."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):  # wait_for of Python 3.11 can swallow a cancellation
                await self._changed.wait()

    async def _probe_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._probe_every_s)
            await self.probe_all()

    async def _probe(self, standing: Standing) -> None:
        was_up = standing.health.up
        standing.note(await standing.backend.probe())
        if standing.health.up and not was_up:
            self._changed.set()
