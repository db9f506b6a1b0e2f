"""All backends and what is known of them right now; asks each how it is, all the time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from router.core import clock
from router.core.event_log import log, log_exception
from router.core.metrics import Metrics
from router.tiers.fleet.journal import Entry, Journal, Kind
from router.tiers.fleet.member import Standing, Stint, Terms
from router.tiers.fleet.modes import Mode, Modes, NoModes
from router.tiers.policy.breaker import State
from router.tiers.policy.choice import Candidate, Choice, Need
from router.tiers.policy.estimate import Timing
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Backend, Health

PROBE_EVERY_S = 2.0
PROBE_WARMING_EVERY_S = 0.25
PROBE_TIMEOUT_S = 1.5
"""An adapter asks for a second; this is for one that forgets the time."""
_DEFAULT = Terms()
_BROKEN = frozenset({FaultClass.CRASH, FaultClass.UNREACHABLE})


class Member(NamedTuple):
    """A backend and the terms under which it is used."""

    backend: Backend
    terms: Terms = _DEFAULT


class Fleet:
    def __init__(
        self,
        members: Sequence[Backend | Member],
        probe_every_s: float = PROBE_EVERY_S,
        *,
        modes: Modes | None = None,
        metrics: Metrics | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.journal = Journal()
        self.metrics = metrics or Metrics()
        self.draw = draw
        self._modes = modes or NoModes()
        self._standings: dict[str, Standing] = {}
        self._leaving: set[Standing] = set()
        self._probe_every_s = probe_every_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._probing: set[Standing] = set()
        self.catalogue_error: str | None = None
        """What is wrong with the catalogue as it is now, while an older one is in force."""
        for member in members:
            self._add(member if isinstance(member, Member) else Member(member))

    async def start(self) -> None:
        """Ask every backend once, then go on asking in the background."""
        await self.probe_all()
        self._spawn(self._probe_for_ever(), "fleet probes")

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for standing in [*self._standings.values(), *self._leaving]:
            await standing.backend.close()

    async def replace(self, members: Mapping[str, Member]) -> None:
        """Have these backends from now on. Who stays keeps what is known of it; who goes finishes what it has.

        A member whose backend is the very object that is here already stays; any other is new.
        """
        for name, standing in list(self._standings.items()):
            kept = members.get(name)
            if kept is not None and kept.backend is standing.backend:
                continue
            del self._standings[name]
            self._leaving.add(standing)
            await self._bury(standing)
        for name, member in members.items():
            if name not in self._standings:
                self._add(member)
        await self.probe_all()
        self._changed.set()

    async def probe_all(self) -> None:
        await asyncio.gather(*(self._probe(standing) for standing in list(self._standings.values())))

    def candidates(self) -> list[Candidate]:
        now = clock.now()
        return [standing.candidate(now) for standing in self._standings.values()]

    def standings(self) -> list[Standing]:
        return list(self._standings.values())

    def standing(self, name: str) -> Standing | None:
        return self._standings.get(name)

    def tell(self, name: str, mode: Mode) -> None:
        """An operator's word, kept over restarts. Raises KeyError for a backend that is not here."""
        standing = self._standings[name]
        standing.mode = mode
        self._modes.save(name, mode)
        if mode is Mode.MAINTENANCE:
            standing.evict()
        self._look(standing)
        self._changed.set()

    def wake(self, name: str) -> None:
        """Have a sleeping backend get up; its probes tell when it has."""
        if (standing := self._standings.get(name)) is not None:
            self._spawn(standing.backend.wake(), f"wake {name}")

    def begin(self, choice: Choice, need: Need) -> Stint:
        """A place on the chosen backend; whoever calls this calls `end`."""
        return self._standings[choice.backend].begin(need, clock.now())

    def end(self, stint: Stint, fault: TierFault | None = None, timing: Timing | None = None) -> None:
        """The attempt is over: with a fault, well, or stopped from here (neither)."""
        standing, now = stint.standing, clock.now()
        standing.end(stint, now, fault, timing)
        outcome = fault.fault_class.value if fault else "done" if timing else "stopped"
        self._journal(standing, "attempt", outcome, fault.detail if fault else "", now - stint.began_s)
        self.metrics.attempt_ended(standing.backend.tier, outcome, now - stint.began_s)
        if fault is not None and fault.fault_class in _BROKEN:
            self._spawn(self._probe(standing), f"instant probe of {standing.backend.name}")
        self._look(standing)
        self._changed.set()
        if standing in self._leaving:
            self._spawn(self._bury(standing), f"farewell of {standing.backend.name}")

    def note_failover(self, choice: Choice, why: str) -> None:
        """A job that failed elsewhere starts on `choice`."""
        self._journal(self._standings[choice.backend], "failover", why, choice.reason)
        self.metrics.failover(choice.tier)

    async def wait_for_change(self, timeout_s: float) -> None:
        """Until a render ended or a backend changed its state, or the time passed."""
        self._changed.clear()
        with suppress(TimeoutError):
            # Not `wait_for`, which before Python 3.12 can swallow a cancellation.
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    def _add(self, member: Member) -> None:
        standing = Standing(member.backend, member.terms, clock.now(), self.draw)
        standing.mode = self._modes.load().get(member.backend.name, Mode.READY)
        self._standings[member.backend.name] = standing

    async def _bury(self, standing: Standing) -> None:
        if standing.in_flight == 0 and standing in self._leaving:
            self._leaving.discard(standing)
            await standing.backend.close()

    async def _probe_for_ever(self) -> None:
        last_s = clock.now()
        while True:
            await asyncio.sleep(min(PROBE_WARMING_EVERY_S, self._probe_every_s))
            try:
                due = clock.now() - last_s >= self._probe_every_s
                last_s = clock.now() if due else last_s
                self._tick()
                for standing in self._standings.values():
                    if due or standing.state(clock.now()) is State.WARMING:
                        self._spawn(self._probe(standing), f"probe of {standing.backend.name}")
            except Exception as error:
                # Without probes nothing ever comes back: this loop outlives whatever one round meets.
                log_exception(error)

    def _tick(self) -> None:
        now = clock.now()
        alone = not any(s.breaker.admits() and s.mode is Mode.READY for s in self._standings.values())
        for standing in self._standings.values():
            standing.breaker.tick(now, alone=alone)
            if self._look(standing) is State.HALF_OPEN:
                self._spawn(self._probe(standing), f"first probe of {standing.backend.name}")

    async def _probe(self, standing: Standing) -> None:
        """Ask one backend; a probe that is on its way answers for two."""
        if standing in self._probing or standing.mode is Mode.MAINTENANCE:
            return
        self._probing.add(standing)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                health = await standing.backend.probe()
        except TimeoutError:
            health = Health(False, "no answer in time")
        except Exception as error:
            # One odd answer must end neither the start nor a reload, which wait for all the probes.
            log_exception(error)
            health = Health(False, "its answer could not be read")
        finally:
            self._probing.discard(standing)
        standing.note_health(health, clock.now())
        self._look(standing)

    def _look(self, standing: Standing) -> State | None:
        """Tell whoever is concerned when the backend has come to another state."""
        now = clock.now()
        state = standing.turned(now)
        if state is not None:
            name, tier = standing.backend.name, standing.backend.tier
            log("backend", tier=tier, backend=name, up=state in (State.HEALTHY, State.SUSPECT), state=state.value)
            self._journal(standing, "state", state.value, standing.reason(now))
            self._changed.set()
        return state

    def _journal(self, standing: Standing, kind: Kind, what: str, detail: str, seconds: float | None = None) -> None:
        backend = standing.backend
        entry = Entry(clock.now(), kind, backend.tier, backend.name, what, detail, seconds)
        self.journal.note(entry)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
