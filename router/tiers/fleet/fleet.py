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
from router.tiers.fleet.journal import Journal, JournalEntry, Kind
from router.tiers.fleet.member import FleetMember, Reservation, Terms
from router.tiers.fleet.modes import Mode, Modes, NoModes
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.choice import Candidate, Choice, Need
from router.tiers.policy.estimate import Timing
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Backend, BackendHealth

PROBE_EVERY_S = 2.0
PROBE_WARMING_EVERY_S = 0.25
PROBE_TIMEOUT_S = 1.5
"""An adapter asks for a second; this is for one that forgets the time."""
_DEFAULT = Terms()
_BROKEN = frozenset({FaultClass.CRASH, FaultClass.UNREACHABLE})


class ConfiguredBackend(NamedTuple):
    """A backend and the terms under which it is used."""

    backend: Backend
    terms: Terms = _DEFAULT


class Fleet:
    def __init__(
        self,
        configured: Sequence[Backend | ConfiguredBackend],
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
        self._members: dict[str, FleetMember] = {}
        self._leaving: set[FleetMember] = set()
        self._probe_every_s = probe_every_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._probing: set[FleetMember] = set()
        self.catalogue_error: str | None = None
        """What is wrong with the catalogue as it is now, while an older one is in force."""
        for entry in configured:
            self._add(entry if isinstance(entry, ConfiguredBackend) else ConfiguredBackend(entry))

    async def start(self) -> None:
        """Ask every backend once, then go on asking in the background."""
        await self.probe_all()
        self._spawn(self._probe_for_ever(), "fleet probes")

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in [*self._members.values(), *self._leaving]:
            await member.backend.close()

    async def replace(self, configured: Mapping[str, ConfiguredBackend]) -> None:
        """Have these backends from now on. Who stays keeps what is known of it; who goes finishes what it has.

        A member whose backend is the very object that is here already stays; any other is new.
        """
        for name, member in list(self._members.items()):
            kept = configured.get(name)
            if kept is not None and kept.backend is member.backend:
                continue
            del self._members[name]
            self._leaving.add(member)
            await self._bury(member)
        for name, entry in configured.items():
            if name not in self._members:
                self._add(entry)
        await self.probe_all()
        self._changed.set()

    async def probe_all(self) -> None:
        await asyncio.gather(*(self._probe(member) for member in list(self._members.values())))

    def candidates(self) -> list[Candidate]:
        now = clock.now()
        return [member.candidate(now) for member in self._members.values()]

    def members(self) -> list[FleetMember]:
        return list(self._members.values())

    def member(self, name: str) -> FleetMember | None:
        return self._members.get(name)

    def tell(self, name: str, mode: Mode) -> None:
        """An operator's word, kept over restarts. Raises KeyError for a backend that is not here."""
        member = self._members[name]
        member.mode = mode
        self._modes.save(name, mode)
        if mode is Mode.MAINTENANCE:
            member.evict()
        self._look(member)
        self._changed.set()

    def wake(self, name: str) -> None:
        """Have a sleeping backend get up; its probes tell when it has."""
        if (member := self._members.get(name)) is not None:
            self._spawn(member.backend.wake(), f"wake {name}")

    def begin(self, choice: Choice, need: Need) -> Reservation:
        """A place on the chosen backend; whoever calls this calls `end`."""
        return self._members[choice.backend].begin(need, clock.now())

    def end(self, reservation: Reservation, fault: TierFault | None = None, timing: Timing | None = None) -> None:
        """The attempt is over: with a fault, well, or stopped from here (neither)."""
        member, now = reservation.member, clock.now()
        member.end(reservation, now, fault, timing)
        outcome = fault.fault_class.value if fault else "done" if timing else "stopped"
        self._journal(member, "attempt", outcome, fault.detail if fault else "", now - reservation.began_s)
        self.metrics.attempt_ended(member.backend.tier, outcome, now - reservation.began_s)
        if fault is not None and fault.fault_class in _BROKEN:
            self._spawn(self._probe(member), f"instant probe of {member.backend.name}")
        self._look(member)
        self._changed.set()
        if member in self._leaving:
            self._spawn(self._bury(member), f"farewell of {member.backend.name}")

    def note_failover(self, choice: Choice, why: str) -> None:
        """A job that failed elsewhere starts on `choice`."""
        self._journal(self._members[choice.backend], "failover", why, choice.reason)
        self.metrics.failover(choice.tier)

    async def wait_for_change(self, timeout_s: float) -> None:
        """Until a render ended or a backend changed its state, or the time passed."""
        self._changed.clear()
        with suppress(TimeoutError):
            # Not `wait_for`, which before Python 3.12 can swallow a cancellation.
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    def _add(self, entry: ConfiguredBackend) -> None:
        member = FleetMember(entry.backend, entry.terms, clock.now(), self.draw)
        member.mode = self._modes.load().get(entry.backend.name, Mode.READY)
        self._members[entry.backend.name] = member

    async def _bury(self, member: FleetMember) -> None:
        if member.in_flight == 0 and member in self._leaving:
            self._leaving.discard(member)
            await member.backend.close()

    async def _probe_for_ever(self) -> None:
        last_s = clock.now()
        while True:
            await asyncio.sleep(min(PROBE_WARMING_EVERY_S, self._probe_every_s))
            try:
                due = clock.now() - last_s >= self._probe_every_s
                last_s = clock.now() if due else last_s
                self._tick()
                for member in self._members.values():
                    if due or member.state(clock.now()) is BackendState.WARMING:
                        self._spawn(self._probe(member), f"probe of {member.backend.name}")
            except Exception as error:
                # Without probes nothing ever comes back: this loop outlives whatever one round meets.
                log_exception(error)

    def _tick(self) -> None:
        now = clock.now()
        alone = not any(s.breaker.admits() and s.mode is Mode.READY for s in self._members.values())
        for member in self._members.values():
            member.breaker.tick(now, alone=alone)
            if self._look(member) is BackendState.HALF_OPEN:
                self._spawn(self._probe(member), f"first probe of {member.backend.name}")

    async def _probe(self, member: FleetMember) -> None:
        """Ask one backend; a probe that is on its way answers for two."""
        if member in self._probing or member.mode is Mode.MAINTENANCE:
            return
        self._probing.add(member)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                health = await member.backend.probe()
        except TimeoutError:
            health = BackendHealth(False, "no answer in time")
        except Exception as error:
            # One odd answer must end neither the start nor a reload, which wait for all the probes.
            log_exception(error)
            health = BackendHealth(False, "its answer could not be read")
        finally:
            self._probing.discard(member)
        member.note_health(health, clock.now())
        self._look(member)

    def _look(self, member: FleetMember) -> BackendState | None:
        """Tell whoever is concerned when the backend has come to another state."""
        now = clock.now()
        state = member.turned(now)
        if state is not None:
            name, tier = member.backend.name, member.backend.tier
            log(
                "backend",
                tier=tier,
                backend=name,
                up=state in (BackendState.HEALTHY, BackendState.SUSPECT),
                state=state.value,
            )
            self._journal(member, "state", state.value, member.reason(now))
            self._changed.set()
        return state

    def _journal(self, member: FleetMember, kind: Kind, what: str, detail: str, seconds: float | None = None) -> None:
        backend = member.backend
        entry = JournalEntry(clock.now(), kind, backend.tier, backend.name, what, detail, seconds)
        self.journal.note(entry)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
