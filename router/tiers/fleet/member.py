"""What is known of one backend: breaker, pace, quota, load, and what an operator told it. Time is passed in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from router.tiers.fleet.modes import Mode
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.breaker import Breaker, Ticket
from router.tiers.policy.choice import Candidate, Need
from router.tiers.policy.estimate import Timing
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.policy.quota import Quota, QuotaHold
from router.tiers.policy.tier import PRIORS
from router.tiers.port import Backend, BackendHealth

UNREACHABLE_REST_S = 1.0
"""After a refused connection it is left alone until the instant probe, a second at most, has decided."""
CAPACITY_REST_S = 1.0


class Terms(NamedTuple):
    """Under which terms a backend is used: what the catalogue says of it."""

    max_bytes: int | None = None
    max_duration_s: float | None = None
    quota_s: float | None = None
    quota_period_s: float = 86_400.0
    region: str = "here"
    operator: str = "this service"
    cost_per_hour: float = 0.0
    forgets: bool = True
    """It keeps nothing of a song when the render has ended; an app that only speaks Gradio can't be asked to."""

    @property
    def of_the_place(self) -> tuple[str, str, bool]:
        """What people agree to when they agree to a place."""
        return self.operator, self.region, self.forgets


class Reservation(NamedTuple):
    """One attempt's place on a backend, from `begin` to `end`."""

    member: FleetMember
    need: Need
    ticket: Ticket
    promise: QuotaHold
    began_s: float
    evicted: asyncio.Event
    """Set when the attempt must go elsewhere."""


class FleetMember:
    def __init__(self, backend: Backend, terms: Terms, now_s: float, draw: Callable[[], float]) -> None:
        self.backend, self.terms = backend, terms
        self.mode = Mode.READY
        self.health = BackendHealth(False, "not asked yet")
        self.breaker = Breaker(now_s, draw)
        self.quota = Quota(terms.quota_s, terms.quota_period_s, now_s)
        self.pace = PRIORS[backend.tier]
        self.in_flight = 0
        self.evicted = asyncio.Event()
        self._rest_until_s = now_s
        self._shown: tuple[BackendState, float] = (BackendState.UNKNOWN, now_s)

    def state(self, now_s: float) -> BackendState:
        """What it is to the router now: an operator's word before its own, that before what the breaker found."""
        if self.mode is not Mode.READY:
            return BackendState(self.mode.value)
        if self.health.resting in (BackendState.PAUSED, BackendState.DRAINING):
            return self.health.resting
        if self.quota.out_until_s(now_s) is not None:
            return BackendState.QUOTA_OUT
        return BackendState.SLEEPING if self.health.resting is BackendState.SLEEPING else self.breaker.state

    def reason(self, now_s: float) -> str:
        match self.state(now_s):
            case BackendState.MAINTENANCE | BackendState.DRAINING if self.mode is not Mode.READY:
                return "an operator said so"
            case BackendState.QUOTA_OUT:
                return "its quota is used up"
            case BackendState.SLEEPING | BackendState.PAUSED | BackendState.DRAINING:
                return self.health.detail
            case _:
                return self.breaker.reason

    def since_s(self, now_s: float) -> float:
        self.turned(now_s)
        return self._shown[1]

    def turned(self, now_s: float) -> BackendState | None:
        """The state it has come to since the last call, or None when it is the same."""
        state = self.state(now_s)
        if state is self._shown[0]:
            return None
        self._shown = (state, now_s)
        return state

    def back_in_s(self, now_s: float) -> float | None:
        """Seconds until it may take work again; None where nobody knows."""
        match self.state(now_s):
            case BackendState.OPEN:
                return self.breaker.reopens_in_s(now_s)
            case BackendState.QUOTA_OUT:
                return (self.quota.out_until_s(now_s) or now_s) - now_s
            case BackendState.DRAINING | BackendState.MAINTENANCE | BackendState.PAUSED:
                return None
            case _:
                return 0.0

    def candidate(self, now_s: float) -> Candidate:
        half_open = self.breaker.state is BackendState.HALF_OPEN
        return Candidate(
            name=self.backend.name,
            tier=self.backend.tier,
            state=self.state(now_s),
            in_flight=self.in_flight,
            slots=1 if half_open else self.health.slots,
            admits=self.breaker.admits(),
            rest_s=max(0.0, self._rest_until_s - now_s),
            weight=self.breaker.weight(now_s),
            pace=self.pace,
            max_bytes=_least(self.terms.max_bytes, self.health.max_bytes),
            max_duration_s=_least(self.terms.max_duration_s, self.health.max_duration_s),
            quota_left_s=self.quota.left_s(now_s),
            engine_version=self.health.engine_version,
        )

    def note_health(self, health: BackendHealth, now_s: float) -> None:
        busy_warming = (
            health.resting is BackendState.WARMING and self.in_flight > 0
        )  # its next renderer, while one works
        # A backend that fell silent is still what it said of itself last: as large, of the same version.
        self.health = health if health.up or health.resting else self.health._replace(up=False, detail=health.detail)
        if health.quota_left_s is not None:
            self.quota.told(health.quota_left_s, health.quota_resets_in_s, now_s)
        if (
            health.up
            or busy_warming
            or health.resting in (BackendState.DRAINING, BackendState.PAUSED, BackendState.SLEEPING)
        ):
            self.breaker.probe_answered(now_s, health.detail)
        elif health.resting is BackendState.WARMING:
            self.breaker.probe_warming(now_s, health.detail)
        else:
            self.breaker.probe_failed(now_s, health.detail)

    def evict(self) -> None:
        """Send the attempts that run there elsewhere."""
        self.evicted.set()
        self.evicted = asyncio.Event()

    def begin(self, need: Need, now_s: float) -> Reservation:
        """One more attempt there; whoever calls this calls `end` when it is over, however it is over."""
        self.in_flight += 1
        promise = self.quota.promise(self.pace.render_s(need.duration_s, need.effort), now_s)
        return Reservation(self, need, self.breaker.begin(), promise, now_s, self.evicted)

    def end(self, reservation: Reservation, now_s: float, fault: TierFault | None, timing: Timing | None) -> None:
        """The attempt is over: with a fault, or well (then `timing` says how long it took), or neither when it was
        stopped from here."""
        self.in_flight -= 1
        self.quota.settle(reservation.promise, now_s - reservation.began_s if fault or timing else 0.0, now_s)
        if fault is not None:
            self._note_fault(reservation, fault, now_s)
        elif timing is not None:
            self.pace = self.pace.fold(
                timing, reservation.need.size_bytes, reservation.need.duration_s, reservation.need.effort
            )
            self.breaker.succeeded(reservation.ticket, now_s)
        else:
            self.breaker.ended(reservation.ticket)

    def _note_fault(self, reservation: Reservation, fault: TierFault, now_s: float) -> None:
        match fault.fault_class:
            case FaultClass.CAPACITY:
                self._rest_until_s = now_s + (fault.retry_after_s or CAPACITY_REST_S)
            case FaultClass.QUOTA:
                self.quota.exhausted(now_s, fault.retry_after_s)
            case FaultClass.ASLEEP:
                self.health = self.health._replace(up=False, resting=BackendState.SLEEPING, detail=fault.detail)
            case FaultClass.UNREACHABLE:
                self._rest_until_s = now_s + UNREACHABLE_REST_S
            case FaultClass.CONFIGURATION:
                self.breaker.trip(now_s, fault.detail)
        if fault.consequence.counts:
            broken = fault.fault_class in (FaultClass.CRASH, FaultClass.UNREACHABLE)
            self.breaker.failed(reservation.ticket, now_s, fault.detail, broken=broken)
        else:
            self.breaker.ended(reservation.ticket)


def _least(*limits: float | None) -> Any:
    """The tightest of the limits that there are."""
    return min((limit for limit in limits if limit is not None), default=None)
