"""A backend's circuit breaker: when it gets no work, when it is tried again, and how it comes back.

No clock, no network: time and random numbers are passed in. Each change between letting attempts through and holding
them back starts a new `generation`; an attempt that ends late, with a ticket of an older one, changes nothing.

- unknown → healthy by a probe's answer, → open by the second failed probe. One that opened so was only not there yet:
  its first answer makes it healthy at once, without a trial.
- healthy → suspect by one failed probe, or by a refused or broken connection; the next probe decides.
- suspect → open by a failed probe; → healthy by a good one.
- healthy or suspect → open also by three failures in a row, or by half of at least five within a minute.
- open → half-open when its time is over: min(300, 5·2ⁿ) s, n openings before, spread by ±20 %. When no other backend
  is left (`alone`), after five seconds at the most.
- half-open: once a probe has answered, one canary at a time; two that succeed → healthy, one that fails → open.
- open → suspect, or half-open, where it had opened by a job that turned out to be to blame (`take_back`).
- warming: it has said that it is starting; a probe's answer → healthy. From warming and half-open a backend starts
  slowly: its weight grows from a tenth to the whole within thirty seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from router.tiers.policy.backend_state import BackendState

FAILED_PROBES = 2
"""So many of a backend that never answered, or is warming, open the breaker: one may be lost on its way."""
FAILURES_IN_A_ROW = 3
"""So many failed attempts open the breaker."""
WINDOW_S = 60.0
WINDOW_MIN_ATTEMPTS = 5
WINDOW_MAX_FAILED_SHARE = 0.5
"""Half of the last minute's attempts, where there were five: fewer say nothing about a backend."""
OPEN_FIRST_S, OPEN_LONGEST_S = 5.0, 300.0
"""The first opening is as short as a restart takes; the longest lets a repaired backend back within five minutes."""
OPEN_SPREAD = (0.8, 1.2)
"""By chance, so that the backends of one outage are not all tried at the same moment."""
ALONE_S = 5.0
"""Without another backend every second of waiting is an outage."""
_REMEMBERED_FAILURES = 256
"""By job, for `take_back`: more than all that run at once."""
CANARIES_TO_CLOSE = 2
"""One success may be chance."""
SLOW_START_S, SLOW_START_WEIGHT = 30.0, 0.1
"""From a tenth of the usual share to all of it in half a minute: what has just come back may break again."""


class Ticket(NamedTuple):
    """Which generation of the breaker an attempt began under; handed back when it ends."""

    generation: int
    canary: bool


class _Failure(NamedTuple):
    """A failed attempt that counts, and at which job."""

    job: str
    at_s: float


class _Opening(NamedTuple):
    """The failed attempts that opened the breaker, where attempts did."""

    generation: int
    jobs: tuple[str, ...]
    canary: bool


class Breaker:
    """Of one backend, which is unknown until its first probe."""

    def __init__(self, now_s: float, draw: Callable[[], float]) -> None:
        """`draw` gives random numbers from 0 to 1, for OPEN_SPREAD."""
        self.state = BackendState.UNKNOWN
        self.since_s = now_s
        self.reason = "not asked yet"
        self.generation = 0
        self._draw = draw
        self._openings = 0
        self._is_alone = False
        self._open_until_s = now_s
        self._failed_probes = 0
        self._failures_in_a_row = 0
        self._window: deque[tuple[float, bool]] = deque()
        self._has_answered = self._probed = False
        self._canary_out = False
        self._canaries_ok = 0
        self._slow_since_s: float | None = None
        self._failures: deque[_Failure] = deque(maxlen=_REMEMBERED_FAILURES)
        self._opening: _Opening | None = None

    @property
    def openings(self) -> int:
        """How often it has opened since it was last healthy."""
        return self._openings

    def admits(self) -> bool:
        """Whether an attempt may begin now."""
        if self.state is BackendState.HALF_OPEN:
            return self._probed and not self._canary_out
        return self.state in (BackendState.HEALTHY, BackendState.SUSPECT)

    def weight(self, now_s: float) -> float:
        """Its share against others of its tier, 0.1 … 1."""
        if self._slow_since_s is None:
            return 1.0
        share = (now_s - self._slow_since_s) / SLOW_START_S
        return min(1.0, SLOW_START_WEIGHT + (1 - SLOW_START_WEIGHT) * max(0.0, share))

    def reopens_in_s(self, now_s: float) -> float:
        """Seconds until it is tried again; 0 unless it is open."""
        return max(0.0, self._until_s() - now_s) if self.state is BackendState.OPEN else 0.0

    def tick(self, now_s: float, *, alone: bool = False) -> None:
        """Let time pass. `alone`: no other backend is left, so that this one is tried sooner."""
        self._is_alone = alone
        if self.state is BackendState.OPEN and now_s >= self._until_s():
            self.generation += 1
            self._probed, self._canary_out, self._canaries_ok = False, False, 0
            self._to(BackendState.HALF_OPEN, now_s, "its time is over; tried with one job at a time")

    def _until_s(self) -> float:
        return min(self._open_until_s, self.since_s + ALONE_S) if self._is_alone else self._open_until_s

    def probe_answered(self, now_s: float, detail: str = "answers") -> None:
        """A probe was answered well."""
        self._failed_probes = 0
        is_first, self._has_answered = not self._has_answered, True
        match self.state:
            case BackendState.OPEN | BackendState.HALF_OPEN if is_first:
                self._openings = 0
                self.generation += 1
                self._to(BackendState.HEALTHY, now_s, detail)
            case BackendState.UNKNOWN | BackendState.SUSPECT:
                self._to(BackendState.HEALTHY, now_s, detail)
            case BackendState.WARMING:
                self._slow_since_s = now_s
                self._to(BackendState.HEALTHY, now_s, detail)
            case BackendState.HALF_OPEN:
                self._probed = True
            case _:
                return

    def probe_warming(self, now_s: float, detail: str) -> None:
        """A probe was answered: it is starting or loading. No work yet, and no failure either."""
        self._failed_probes = 0
        if self.state not in (BackendState.WARMING, BackendState.OPEN):
            self.generation += 1
            self._to(BackendState.WARMING, now_s, detail)

    def probe_failed(self, now_s: float, why: str) -> None:
        """A probe got no answer, or a bad one."""
        self._failed_probes += 1
        match self.state:
            case BackendState.HEALTHY:
                self._to(BackendState.SUSPECT, now_s, why)
            case BackendState.SUSPECT | BackendState.HALF_OPEN:
                self._open(now_s, why)
            case BackendState.UNKNOWN | BackendState.WARMING if self._failed_probes >= FAILED_PROBES:
                self._open(now_s, why)
            case _:
                return

    def begin(self) -> Ticket:
        """Count an attempt that begins; only when `admits` allows one."""
        canary = self.state is BackendState.HALF_OPEN
        self._canary_out = self._canary_out or canary
        return Ticket(self.generation, canary)

    def succeeded(self, ticket: Ticket, now_s: float) -> None:
        """The attempt made a master."""
        if not self._release(ticket):
            return
        self._failures_in_a_row = 0
        self._note_outcome(now_s, ok=True)
        if ticket.canary:
            self._canaries_ok += 1
            if self._canaries_ok >= CANARIES_TO_CLOSE:
                self._close(now_s)
        else:
            self._openings = 0

    def failed(self, ticket: Ticket, now_s: float, why: str, *, broken: bool = False, job: str = "") -> None:
        """The attempt failed, and the backend is to blame, unless `take_back` names the `job`.

        `broken`: the connection was refused or broke.
        """
        if not self._release(ticket):
            return
        self._failures_in_a_row += 1
        self._note_outcome(now_s, ok=False)
        self._failures.append(_Failure(job, now_s))
        if ticket.canary or self._failures_in_a_row >= FAILURES_IN_A_ROW or self._half_failed():
            counted = 1 if ticket.canary else max(self._failures_in_a_row, sum(not ok for _, ok in self._window))
            jobs = tuple(failure.job for failure in list(self._failures)[-counted:])
            self._open(now_s, why)
            self._opening = _Opening(self.generation, jobs, ticket.canary)
        elif broken and self.state is BackendState.HEALTHY:
            self._to(BackendState.SUSPECT, now_s, why)

    def take_back(self, job: str, now_s: float) -> None:
        """It was the job that broke what it ran on: its failures count no more.

        A backend that would not be open without them gets work again; its next probe, or the next canary, decides.
        """
        taken = [failure for failure in self._failures if failure.job == job]
        for failure in taken:
            self._failures.remove(failure)
            self._failures_in_a_row = max(0, self._failures_in_a_row - 1)
            if (failure.at_s, False) in self._window:
                self._window.remove((failure.at_s, False))
        opening = self._opening
        if opening is None or opening.generation != self.generation or job not in opening.jobs:
            return
        left = tuple(one for one in opening.jobs if one != job)
        self._opening = opening._replace(jobs=left)
        if len(left) < FAILURES_IN_A_ROW:
            self._openings -= 1
            self.generation += 1
            state = BackendState.HALF_OPEN if opening.canary else BackendState.SUSPECT
            self._canary_out = False
            self._to(state, now_s, "the job that failed there fails everywhere")

    def ended(self, ticket: Ticket) -> None:
        """The attempt ended, and the backend is not to blame."""
        self._release(ticket)

    def trip(self, now_s: float, why: str) -> None:
        """Open at once: the backend is misconfigured, and trying it again soon would not help."""
        if self.state is not BackendState.OPEN:
            self._open(now_s, why)

    def _release(self, ticket: Ticket) -> bool:
        """Take the ticket back; False for one of an older generation, which changes nothing."""
        if ticket.generation != self.generation:
            return False
        if ticket.canary:
            self._canary_out = False
        return True

    def _note_outcome(self, now_s: float, *, ok: bool) -> None:
        self._window.append((now_s, ok))
        while self._window[0][0] < now_s - WINDOW_S:
            self._window.popleft()

    def _half_failed(self) -> bool:
        failures = sum(not ok for _, ok in self._window)
        return len(self._window) >= WINDOW_MIN_ATTEMPTS and failures >= WINDOW_MAX_FAILED_SHARE * len(self._window)

    def _open(self, now_s: float, why: str) -> None:
        low, high = OPEN_SPREAD
        spread = low + (high - low) * self._draw()
        # The exponent is capped: 2ⁿ of a backend that is down for days is no float any more.
        self._open_until_s = now_s + min(OPEN_LONGEST_S, OPEN_FIRST_S * 2 ** min(self._openings, 10)) * spread
        self._openings += 1
        self.generation += 1
        self._failures_in_a_row = 0
        self._window.clear()
        self._to(BackendState.OPEN, now_s, why)

    def _close(self, now_s: float) -> None:
        self._openings = 0
        self._slow_since_s = now_s
        self.generation += 1
        self._window.clear()
        self._to(BackendState.HEALTHY, now_s, f"{CANARIES_TO_CLOSE} canaries succeeded")

    def _to(self, state: BackendState, now_s: float, reason: str) -> None:
        self.state, self.since_s, self.reason = state, now_s, reason
