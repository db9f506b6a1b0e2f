"""Which backend gets a job: a pure function. Health, load, paces and chance are passed in; nothing is asked here.

For each tier, `eta = wait + cold start + upload + render + fetch` of the backend that would get the job there: the
best of two drawn at random by (in flight + 1) · service time, so that many routers do not all run to the same one.

- The first tier in order with a free backend is the one a job can start on now; no tier below it is looked at.
- A tier above it that has no free backend is *saturated* when it is beaten by `eta · (1 + 0.25·tier) + 5·tier s`, the
  biased eta: that is the spill point. Where it is not beaten, the job waits for it.
- A tier is out of the question when none of its backends is eligible: not told to rest, consented to, within its
  limits and quota, of a compatible engine, able to finish before the deadline, not one that this job brought down.

The wait counts every job in line, also those behind: what the last in line would gain by spilling is what the
service gains, whoever of them goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mastering.contract import ENGINE_VERSION, Effort
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.estimate import Pace
from router.tiers.policy.quota import HEADROOM
from router.tiers.policy.tier import PRIORS, TIER_ORDER, TIER_TITLES

TIER_BIAS, TIER_HANDICAP_S = 0.25, 5.0

_AT_WORK = frozenset({BackendState.HEALTHY, BackendState.SUSPECT, BackendState.HALF_OPEN})
_COMING = frozenset({BackendState.WARMING, BackendState.SLEEPING})


class Candidate(NamedTuple):
    """What is known of one backend at the moment of choosing."""

    name: str
    tier: str
    state: BackendState
    in_flight: int = 0
    slots: int = 1
    admits: bool = True
    """Its breaker lets an attempt begin."""
    rest_s: float = 0.0
    """It asked to be left alone for so long."""
    weight: float = 1.0
    """Less than 1 while it starts slowly."""
    pace: Pace = PRIORS["managed"]
    max_bytes: int | None = None
    max_duration_s: float | None = None
    quota_left_s: float | None = None
    engine_version: str | None = None

    @property
    def is_free(self) -> bool:
        return self.state in _AT_WORK and self.admits and not self.rest_s and self.in_flight < self.slots


class Need(NamedTuple):
    """What the job asks of a backend."""

    size_bytes: int
    duration_s: float
    managed_only: bool = False
    deadline_s: float = math.inf
    """Seconds from now until its time is over."""
    queued: int = 0
    """Jobs in line beside this one."""
    avoid: frozenset[str] = frozenset()
    """Backends that this job must not meet again."""
    avoid_tiers: frozenset[str] = frozenset()
    effort: Effort = Effort.QUICK


TYPICAL = Need(size_bytes=30 * 1024 * 1024, duration_s=200.0)
"""A song of which nothing is known yet."""


class Choice(NamedTuple):
    backend: str
    tier: str
    reason: str
    eta_s: float = 0.0


class Outlook(NamedTuple):
    """What a job can expect now: a backend at once, or to wait for a tier, or nothing (`tier` is None)."""

    tier: str | None
    backend: str | None
    eta_s: float
    reason: str


class _Option(NamedTuple):
    tier: str
    rank: int
    candidate: Candidate
    is_free: bool
    wait_s: float
    eta_s: float

    @property
    def biased_s(self) -> float:
        return self.eta_s * (1 + TIER_BIAS * self.rank) + TIER_HANDICAP_S * self.rank


def choose(candidates: Sequence[Candidate], need: Need, draw: Callable[[], float]) -> Choice | None:
    """The backend on which the job starts now; None when it waits. `draw` gives numbers from 0 to 1."""
    found = outlook(candidates, need, draw)
    if found.tier is None or found.backend is None:
        return None
    return Choice(found.backend, found.tier, found.reason, found.eta_s)


def outlook(candidates: Sequence[Candidate], need: Need, draw: Callable[[], float]) -> Outlook:
    """What to do with the job now, when it would be done, and why in a sentence."""
    options: list[_Option] = []
    passed: list[str] = []
    for rank, tier in enumerate(TIER_ORDER):
        here = [candidate for candidate in candidates if candidate.tier == tier]
        if not here:
            continue
        option, why_not = _option(tier, rank, here, need, draw)
        if option is None:
            passed.append(f"{TIER_TITLES[tier]}: {why_not}")
            continue
        options.append(option)
        if option.is_free:
            break
    if not options:
        return Outlook(None, None, math.inf, f"No tier can take the job now ({'; '.join(passed) or 'none is set up'}).")
    best = min(options, key=lambda option: option.biased_s)
    passed += [f"{TIER_TITLES[o.tier]}: busy for about {o.wait_s:.0f} s" for o in options if o.rank < best.rank]
    backend = best.candidate.name if best.is_free else None
    return Outlook(best.tier, backend, best.eta_s, _reason(best, passed))


def worth_waking(candidates: Sequence[Candidate], need: Need, draw: Callable[[], float]) -> list[str]:
    """The sleeping backends that should get up now, so that a job which needs them later finds them awake.

    They are those of the first tier that sleeps, where every tier above it is suspect, or has jobs wait for longer
    than half the spill point, or is out of the question while jobs are in line.
    """
    for rank, tier in enumerate(TIER_ORDER):
        here = [
            c for c in candidates if c.tier == tier and c.state is BackendState.SLEEPING and why_not(c, need) is None
        ]
        if not here:
            continue
        biased_s = min(_service_s(c, need) for c in here) * (1 + TIER_BIAS * rank) + TIER_HANDICAP_S * rank
        above = TIER_ORDER[:rank]
        if all(_lets_down(tier, biased_s, candidates, need, draw) for tier in above) and (above or need.queued):
            return [c.name for c in here]
    return []


def _lets_down(
    tier: str, biased_s: float, candidates: Sequence[Candidate], need: Need, draw: Callable[[], float]
) -> bool:
    """Is this tier about to leave its jobs to one below, where they would take `biased_s`?"""
    here = [candidate for candidate in candidates if candidate.tier == tier]
    if not any(c.state in _AT_WORK and why_not(c, need) is None for c in here):
        return need.queued > 0
    if all(c.state is not BackendState.HEALTHY for c in here):
        return any(c.state is BackendState.SUSPECT for c in here)
    option, _ = _option(tier, TIER_ORDER.index(tier), here, need, draw)
    if option is None:
        return need.queued > 0
    spill_wait_s = biased_s - _service_s(option.candidate, need)
    return not option.is_free and option.wait_s > spill_wait_s / 2


def compatible(engine_version: str | None) -> bool:
    """The same major and minor version renders the same master. A backend that does not say is taken at its word."""
    return engine_version is None or engine_version.split(".")[:2] == ENGINE_VERSION.split(".")[:2]


def why_not(candidate: Candidate, need: Need) -> str | None:
    """Why this backend is out of the question for the job, in a few words; None when it is not."""
    if need.managed_only and candidate.tier != TIER_ORDER[0]:
        return "not consented to"
    if candidate.state not in _AT_WORK | _COMING:
        return "down" if candidate.state in (BackendState.OPEN, BackendState.UNKNOWN) else str(candidate.state)
    if candidate.name in need.avoid or candidate.tier in need.avoid_tiers:
        return "failed this job before"
    if candidate.max_bytes is not None and need.size_bytes > candidate.max_bytes:
        return "the file is too large for it"
    if candidate.max_duration_s is not None and need.duration_s > candidate.max_duration_s:
        return "the song is too long for it"
    if not compatible(candidate.engine_version):
        return "another engine version"
    needed_s = HEADROOM * candidate.pace.render_s(need.duration_s, need.effort)
    if candidate.quota_left_s is not None and candidate.quota_left_s < needed_s:
        return "its quota is used up"
    if _bare_eta_s(candidate, need) > need.deadline_s:
        return "too slow for the time that is left"
    return None


def _option(
    tier: str, rank: int, here: Sequence[Candidate], need: Need, draw: Callable[[], float]
) -> tuple[_Option | None, str]:
    """What this tier offers, or None and why not."""
    verdicts = [(candidate, why_not(candidate, need)) for candidate in here]
    eligible = [candidate for candidate, verdict in verdicts if verdict is None]
    if not eligible:
        return None, ", ".join(sorted({verdict for _, verdict in verdicts if verdict}))
    # A suspect one only where nothing better is free: the next probe, seconds away, decides about it.
    free = [c for c in eligible if c.is_free and c.state is not BackendState.SUSPECT] or [
        c for c in eligible if c.is_free
    ]
    if free:
        chosen = _best_of_two(free, need, draw)
        return _Option(tier, rank, chosen, True, 0.0, _service_s(chosen, need)), ""
    at_work = [candidate for candidate in eligible if candidate.state in _AT_WORK]
    chosen = min(at_work or eligible, key=lambda c: (_bare_eta_s(c, need), c.name))
    wait_s = _wait_s(at_work, need, _service_s(chosen, need)) if at_work else chosen.pace.cold_start_s.cautious
    if wait_s + _service_s(chosen, need) > need.deadline_s:
        return None, "too much waiting for the time that is left"
    return _Option(tier, rank, chosen, False, wait_s, wait_s + _service_s(chosen, need)), ""


def _best_of_two(free: Sequence[Candidate], need: Need, draw: Callable[[], float]) -> Candidate:
    rest = list(free)
    pair = [rest.pop(min(int(draw() * len(rest)), len(rest) - 1)) for _ in range(min(2, len(rest)))]
    return min(pair, key=lambda c: ((c.in_flight + 1) * _service_s(c, need) / c.weight, c.name))


def _wait_s(at_work: Sequence[Candidate], need: Need, service_s: float) -> float:
    """Until a slot of the tier is free for the last in line, when each job takes `service_s`."""
    resting = [c.rest_s for c in at_work if c.rest_s and c.in_flight < c.slots]
    if resting and not need.queued:
        return min(resting)
    slots = sum(candidate.slots for candidate in at_work)
    ahead = max(0, sum(candidate.in_flight for candidate in at_work) + need.queued - slots)
    return (ahead + 1) / max(1, slots) * service_s


def _service_s(candidate: Candidate, need: Need) -> float:
    return candidate.pace.service_s(need.size_bytes, need.duration_s, need.effort)


def _bare_eta_s(candidate: Candidate, need: Need) -> float:
    """With nobody in line before it."""
    cold_s = candidate.pace.cold_start_s.cautious if candidate.state in _COMING else 0.0
    return cold_s + _service_s(candidate, need)


def _reason(best: _Option, passed: Sequence[str]) -> str:
    title = TIER_TITLES[best.tier]
    because = f" ({'; '.join(passed)})" if passed else ""
    if not best.is_free:
        return f"{title} will be done first: free in about {best.wait_s:.0f} s{because}."
    if not passed:
        return f"{title} come first and are up." if best.rank == 0 else f"{title} is the first that is set up."
    return f"{title} is the best that is free{because}."
