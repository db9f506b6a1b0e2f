"""All backends of the router with their present state, which probes keep up to date."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from router.core import clock
from router.core.event_log import log, log_exception
from router.core.metrics import Metrics
from router.tiers.fleet.journal import Journal, JournalEntry, JournalKind
from router.tiers.fleet.member import BackendTerms, FleetMember, Reservation
from router.tiers.fleet.modes import Mode, ModeStore, UnsavedModes
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.choice import Candidate, Choice, JobRequirements
from router.tiers.policy.estimate import AttemptTiming
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Backend, BackendHealth

PROBE_EVERY_S = 2.0
PROBE_WARMING_EVERY_S = 0.25
"""A backend that is starting gets work the sooner the oftener it is asked."""
PROBE_TIMEOUT_S = 1.5
"""An adapter gives up after a second itself; this limit is for one that does not."""
_DEFAULT = BackendTerms()
_BROKEN = frozenset({FaultClass.CRASH, FaultClass.UNREACHABLE})


class ConfiguredBackend(NamedTuple):
    """A backend of the settings or the catalogue, and the terms under which it is used."""

    backend: Backend
    terms: BackendTerms = _DEFAULT


class Fleet:
    """The backends by name, their probes, and the attempts that run on each."""

    def __init__(
        self,
        configured: Sequence[Backend | ConfiguredBackend],
        probe_every_s: float = PROBE_EVERY_S,
        *,
        modes: ModeStore | None = None,
        metrics: Metrics | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.journal = Journal()
        self.metrics = metrics or Metrics()
        self.draw = draw
        self._modes = modes or UnsavedModes()
        self._members: dict[str, FleetMember] = {}
        self._leaving: set[FleetMember] = set()
        self._probe_every_s = probe_every_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._probing: set[FleetMember] = set()
        self.catalogue_error: str | None = None
        """What is wrong with the catalogue as it is now; the last good one stays in force."""
        for entry in configured:
            self._add(entry if isinstance(entry, ConfiguredBackend) else ConfiguredBackend(entry))

    async def start(self) -> None:
        """Probe every backend once, then go on in the background."""
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
        """Have these backends from now on: those that stay keep their state, those that go finish their attempts.

        A backend stays where the very object is here already; any other is new.
        """
        for name, member in list(self._members.items()):
            kept = configured.get(name)
            if kept is not None and kept.backend is member.backend:
                continue
            del self._members[name]
            self._leaving.add(member)
            await self._close_if_idle(member)
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

    async def set_mode(self, name: str, mode: Mode) -> None:
        """Set what an operator wants of a backend, kept over restarts. Raises KeyError for an unknown name."""
        member = self._members[name]
        member.mode = mode
        await self._modes.save(name, mode)
        if mode is Mode.MAINTENANCE:
            member.evict()
        self._announce_change(member)
        self._changed.set()

    def wake(self, name: str) -> None:
        """Wake a sleeping backend; its probes tell when it is up."""
        if (member := self._members.get(name)) is not None:
            self._spawn(member.backend.wake(), f"wake {name}")

    def reserve(self, choice: Choice, need: JobRequirements, job: str = "") -> Reservation:
        """Reserve the chosen backend for an attempt at `job`; the caller gives it back by `release`."""
        return self._members[choice.backend].reserve(need, clock.now(), job)

    def take_back_failures(self, job: str) -> None:
        """Every backend's failures at `job` were the job's own doing."""
        for member in self._members.values():
            member.breaker.take_back(job, clock.now())
            self._announce_change(member)
        self._changed.set()

    def release(
        self, reservation: Reservation, fault: TierFault | None = None, timing: AttemptTiming | None = None
    ) -> None:
        """End a reservation: with the fault, with the timing of a success, or with neither when it was stopped here."""
        member, now = reservation.member, clock.now()
        member.release(reservation, now, fault, timing)
        outcome = fault.fault_class.value if fault else "done" if timing else "stopped"
        self._note(member, "attempt", outcome, fault.detail if fault else "", now - reservation.began_s)
        self.metrics.attempt_ended(member.backend.tier, outcome, now - reservation.began_s)
        if fault is not None and fault.fault_class in _BROKEN:
            self._spawn(self._probe(member), f"instant probe of {member.backend.name}")
        self._announce_change(member)
        self._changed.set()
        if member in self._leaving:
            self._spawn(self._close_if_idle(member), f"closing of {member.backend.name}")

    def note_failover(self, choice: Choice, why: str) -> None:
        """Record that a job that failed elsewhere starts on `choice`."""
        self._note(self._members[choice.backend], "failover", why, choice.reason)
        self.metrics.failover(choice.tier)

    async def wait_for_change(self, timeout_s: float) -> None:
        """Return when an attempt ends, a backend changes its state, or `timeout_s` have passed."""
        self._changed.clear()
        with suppress(TimeoutError):
            # Not `wait_for`, which before Python 3.12 can swallow a cancellation.
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    def _add(self, entry: ConfiguredBackend) -> None:
        member = FleetMember(entry.backend, entry.terms, clock.now(), self.draw)
        member.mode = self._modes.load().get(entry.backend.name, Mode.READY)
        self._members[entry.backend.name] = member

    async def _close_if_idle(self, member: FleetMember) -> None:
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
        alone = not any(m.breaker.admits() and m.mode is Mode.READY for m in self._members.values())
        for member in self._members.values():
            member.breaker.tick(now, alone=alone)
            if self._announce_change(member) is BackendState.HALF_OPEN:
                self._spawn(self._probe(member), f"first probe of {member.backend.name}")

    async def _probe(self, member: FleetMember) -> None:
        """Probe one backend, unless a probe of it is under way."""
        if member in self._probing or member.mode is Mode.MAINTENANCE:
            return
        self._probing.add(member)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                health = await member.backend.probe()
        except TimeoutError:
            health = BackendHealth(False, "no answer in time")
        except Exception as error:
            # One bad answer must end neither the start nor a reload, which wait for all the probes.
            log_exception(error)
            health = BackendHealth(False, "its answer could not be read")
        finally:
            self._probing.discard(member)
        member.note_health(health, clock.now())
        self._announce_change(member)

    def _announce_change(self, member: FleetMember) -> BackendState | None:
        """Log and announce a backend's change of state; the new state, or None where it is the same."""
        now = clock.now()
        state = member.take_state_change(now)
        if state is not None:
            name, tier = member.backend.name, member.backend.tier
            log(
                "backend",
                tier=tier,
                backend=name,
                up=state in (BackendState.HEALTHY, BackendState.SUSPECT),
                state=state.value,
            )
            self._note(member, "state", state.value, member.reason(now))
            self._changed.set()
        return state

    def _note(
        self, member: FleetMember, kind: JournalKind, what: str, detail: str, seconds: float | None = None
    ) -> None:
        backend = member.backend
        entry = JournalEntry(clock.now(), kind, backend.tier, backend.name, what, detail, seconds)
        self.journal.note(entry)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
