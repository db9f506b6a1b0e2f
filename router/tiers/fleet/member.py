"""One backend's state in the fleet: breaker, speed, quota, load, and the operator's mode. Time is passed in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from mastering.contract import ENGINE_VERSION
from router.tiers.fleet.modes import Mode
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.breaker import Breaker, Ticket
from router.tiers.policy.choice import Candidate, JobRequirements, is_compatible
from router.tiers.policy.estimate import AttemptTiming
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.policy.quota import Quota, QuotaHold
from router.tiers.policy.tier import PRIORS
from router.tiers.port import Backend, BackendHealth

UNREACHABLE_BACKOFF_S = 1.0
"""After a refused connection it gets no attempt until the probe that follows at once, a second at most, has decided."""
_ANSWERED = frozenset({BackendState.DRAINING, BackendState.PAUSED, BackendState.SLEEPING, BackendState.INCOMPATIBLE})
"""What a backend may report of itself without being at fault."""
CAPACITY_BACKOFF_S = 1.0
"""After a busy answer that names no time of its own: a slot may be free at any moment."""


class BackendTerms(NamedTuple):
    """What the catalogue says of a backend beside its address: limits, quota, place, operator and cost."""

    max_bytes: int | None = None
    max_duration_s: float | None = None
    quota_s: float | None = None
    quota_period_s: float = 86_400.0
    region: str = "here"
    operator: str = "this service"
    cost_per_hour: float = 0.0
    forgets: bool = True
    """Whether it keeps nothing of a song once the render has ended; a plain Gradio app can't be asked to."""

    @property
    def consent_key(self) -> tuple[str, str, bool]:
        """Operator, region and `forgets`: people consent to each such combination once."""
        return self.operator, self.region, self.forgets


class Reservation(NamedTuple):
    """A backend's slot and quota, held for one attempt from `reserve` to `release`."""

    member: FleetMember
    need: JobRequirements
    ticket: Ticket
    quota_hold: QuotaHold
    began_s: float
    job: str
    """By which its failures can be taken back."""
    evicted: asyncio.Event
    """Set when the attempt must stop and go elsewhere: the backend is taken out for maintenance."""


class FleetMember:
    """A backend with all that the router knows of it."""

    def __init__(self, backend: Backend, terms: BackendTerms, now_s: float, draw: Callable[[], float]) -> None:
        self.backend, self.terms = backend, terms
        self.mode = Mode.READY
        self.health = BackendHealth(False, "not asked yet")
        self.breaker = Breaker(now_s, draw)
        self.quota = Quota(terms.quota_s, terms.quota_period_s, now_s)
        self.speed = PRIORS[backend.tier]
        self.in_flight = 0
        self.evicted = asyncio.Event()
        self._backoff_until_s = now_s
        self._last_change: tuple[BackendState, float] = (BackendState.UNKNOWN, now_s)

    def state(self, now_s: float) -> BackendState:
        """The state that counts: an operator's mode first, then what the backend reports, then the breaker's state."""
        if self.mode is not Mode.READY:
            return BackendState(self.mode.value)
        if self.health.reported_state in (BackendState.PAUSED, BackendState.DRAINING):
            return self.health.reported_state
        if self.quota.out_until_s(now_s) is not None:
            return BackendState.QUOTA_OUT
        if self._is_incompatible():
            return BackendState.INCOMPATIBLE
        return BackendState.SLEEPING if self.health.reported_state is BackendState.SLEEPING else self.breaker.state

    def reason(self, now_s: float) -> str:
        """Why it is in this state, for operators."""
        match self.state(now_s):
            case BackendState.MAINTENANCE | BackendState.DRAINING if self.mode is not Mode.READY:
                return "an operator said so"
            case BackendState.QUOTA_OUT:
                return "its quota is used up"
            case BackendState.INCOMPATIBLE if not is_compatible(self.health.engine_version):
                theirs, ours = self.health.engine_version, ENGINE_VERSION
                return f"speaks another version: its engine is {theirs}, this router's {ours}"
            case BackendState.INCOMPATIBLE:
                return f"speaks another version: {self.health.detail}"
            case BackendState.SLEEPING | BackendState.PAUSED | BackendState.DRAINING:
                return self.health.detail
            case _:
                return self.breaker.reason

    def since_s(self, now_s: float) -> float:
        """When it came to this state."""
        self.take_state_change(now_s)
        return self._last_change[1]

    def take_state_change(self, now_s: float) -> BackendState | None:
        """The new state, where it has changed since the last call; None where it is the same."""
        state = self.state(now_s)
        if state is self._last_change[0]:
            return None
        self._last_change = (state, now_s)
        return state

    def back_in_s(self, now_s: float) -> float | None:
        """Seconds until it may take attempts again; None where that can't be known."""
        match self.state(now_s):
            case BackendState.OPEN:
                return self.breaker.reopens_in_s(now_s)
            case BackendState.QUOTA_OUT:
                return (self.quota.out_until_s(now_s) or now_s) - now_s
            case BackendState.DRAINING | BackendState.MAINTENANCE | BackendState.PAUSED | BackendState.INCOMPATIBLE:
                return None
            case _:
                return 0.0

    def candidate(self, now_s: float) -> Candidate:
        """The backend as the choice is to see it now."""
        half_open = self.breaker.state is BackendState.HALF_OPEN
        return Candidate(
            name=self.backend.name,
            tier=self.backend.tier,
            state=self.state(now_s),
            in_flight=self.in_flight,
            slots=1 if half_open else self.health.slots,
            admits=self.breaker.admits(),
            backoff_s=max(0.0, self._backoff_until_s - now_s),
            weight=self.breaker.weight(now_s),
            speed=self.speed,
            max_bytes=_tightest(self.terms.max_bytes, self.health.max_bytes),
            max_duration_s=_tightest(self.terms.max_duration_s, self.health.max_duration_s),
            quota_left_s=self.quota.left_s(now_s),
            engine_version=self.health.engine_version,
            kinds=self.health.kinds,
            paces=self.health.paces,
            device=self.health.device,
            back_in_s=self.back_in_s(now_s),
        )

    def _is_incompatible(self) -> bool:
        """Whether it answers, and can't be used for its version. Of one that is down its state says more."""
        if self.breaker.state in (BackendState.OPEN, BackendState.UNKNOWN):
            return False
        says_so = self.health.reported_state is BackendState.INCOMPATIBLE
        return says_so or not is_compatible(self.health.engine_version)

    def note_health(self, health: BackendHealth, now_s: float) -> None:
        """Take in a probe's answer."""
        # A worker may warm its next renderer while another one works.
        busy_warming = health.reported_state is BackendState.WARMING and self.in_flight > 0
        # What a silent backend reported before still holds: its limits, its version.
        self.health = (
            health if health.up or health.reported_state else self.health._replace(up=False, detail=health.detail)
        )
        if health.quota_left_s is not None:
            self.quota.note_left(health.quota_left_s, health.quota_resets_in_s, now_s)
        if health.up or busy_warming or health.reported_state in _ANSWERED:
            self.breaker.probe_answered(now_s, health.detail)
        elif health.reported_state is BackendState.WARMING:
            self.breaker.probe_warming(now_s, health.detail)
        else:
            self.breaker.probe_failed(now_s, health.detail)

    def evict(self) -> None:
        """Stop the attempts that run there, so that they go elsewhere."""
        self.evicted.set()
        self.evicted = asyncio.Event()

    def reserve(self, need: JobRequirements, now_s: float, job: str = "") -> Reservation:
        """Hold a slot and quota for one attempt; the caller calls `release` however it ends."""
        self.in_flight += 1
        quota_hold = self.quota.hold(self.speed.render_s(need.work_duration_s, need.work), now_s)
        return Reservation(self, need, self.breaker.begin(), quota_hold, now_s, job, self.evicted)

    def release(
        self, reservation: Reservation, now_s: float, fault: TierFault | None, timing: AttemptTiming | None
    ) -> None:
        """End a reservation: with the fault, with the timing of a success, or with neither when it was stopped here."""
        self.in_flight -= 1
        self.quota.settle(reservation.quota_hold, now_s - reservation.began_s if fault or timing else 0.0, now_s)
        if fault is not None:
            self._note_fault(reservation, fault, now_s)
        elif timing is not None:
            self.speed = self.speed.fold(
                timing, reservation.need.size_bytes, reservation.need.work_duration_s, reservation.need.work
            )
            self.breaker.succeeded(reservation.ticket, now_s)
        else:
            self.breaker.ended(reservation.ticket)

    def _note_fault(self, reservation: Reservation, fault: TierFault, now_s: float) -> None:
        match fault.fault_class:
            case FaultClass.CAPACITY:
                self._backoff_until_s = now_s + (fault.retry_after_s or CAPACITY_BACKOFF_S)
            case FaultClass.QUOTA:
                self.quota.note_exhausted(now_s, fault.retry_after_s)
            case FaultClass.ASLEEP:
                self.health = self.health._replace(up=False, reported_state=BackendState.SLEEPING, detail=fault.detail)
            case FaultClass.UNREACHABLE:
                self._backoff_until_s = now_s + UNREACHABLE_BACKOFF_S
            case FaultClass.CONFIGURATION:
                self.breaker.trip(now_s, fault.detail)
        if fault.consequence.counts:
            broken = fault.fault_class in (FaultClass.CRASH, FaultClass.UNREACHABLE)
            self.breaker.failed(reservation.ticket, now_s, fault.detail, broken=broken, job=reservation.job)
        else:
            self.breaker.ended(reservation.ticket)


def _tightest(*limits: float | None) -> Any:
    """The smallest of the limits that are set; None where none is."""
    return min((limit for limit in limits if limit is not None), default=None)
