"""Chooses the backend for a job: a pure function. Health, load, speeds and random numbers are passed in.

For each tier, `eta = wait + cold start + upload + render + fetch` of the backend that would get the job there: the
best of two drawn at random by (in flight + 1) · service time, so that many routers do not all run to the same one.

- The first tier in order with a free backend is the one a job can start on now; no tier below it is looked at.
- A tier above it that has no free backend is *saturated* when it is beaten by `eta · (1 + 0.25·tier) + 5·tier s`, the
  biased eta: that is the spill point. Where it is not beaten, the job waits for it.
- A tier is out of the question when none of its backends is eligible: not out of service, consented to, within its
  limits and quota, of a compatible engine, able to finish before the deadline, not one that this job brought down.

The wait counts every job in the queue, also those behind: what the last of them would gain by spilling is what the
service gains, whichever job goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mastering.contract import ENGINE_VERSION
from mastering.contract.kinds import job_kinds
from router.tiers.policy import reasons
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.estimate import SpeedEstimate
from router.tiers.policy.quota import HEADROOM
from router.tiers.policy.tier import PRIORS, TIER_ORDER, tier_title

TIER_BIAS, TIER_HANDICAP_S = 0.25, 5.0
"""How much sooner a tier must be done than the one above it to get the job: a quarter of its time, and 5 s."""

_SERVING = frozenset({BackendState.HEALTHY, BackendState.SUSPECT, BackendState.HALF_OPEN})
_STARTING = frozenset({BackendState.WARMING, BackendState.SLEEPING})
_OUT = {BackendState.OPEN: "down", BackendState.UNKNOWN: "not asked yet"}
"""What is said of a backend in such a state; of any other the state's own name."""


class Candidate(NamedTuple):
    """One backend as it is at the moment of choosing: state, load, speed and limits."""

    name: str
    tier: str
    state: BackendState
    in_flight: int = 0
    slots: int = 1
    admits: bool = True
    """Its breaker lets an attempt begin."""
    backoff_s: float = 0.0
    """Seconds for which it gets no attempt: it was busy or could not be reached a moment ago."""
    weight: float = 1.0
    """Its share against others of its tier; less than 1 while it starts slowly (`breaker`)."""
    speed: SpeedEstimate = PRIORS["managed"]
    max_bytes: int | None = None
    max_duration_s: float | None = None
    quota_left_s: float | None = None
    """Seconds of its device that may still be used; None: no limit."""
    engine_version: str | None = None
    kinds: Mapping[str, Mapping[str, str]] | None = None
    """Kinds of jobs that it does → models that it has for each → their digests; None: it has not said."""
    paces: Mapping[str, frozenset[str]] | None = None
    """Kinds of jobs → which of their paces it can do (`JobKind.paces`); None: it has not said."""
    device: str | None = None
    """What it renders on; None: it has not said."""
    back_in_s: float | None = None
    """Seconds until it may take jobs again; None where nobody knows."""

    @property
    def is_free(self) -> bool:
        return self.state in _SERVING and self.admits and not self.backoff_s and self.in_flight < self.slots


class JobRequirements(NamedTuple):
    """What a job requires of the backend that is to master it."""

    size_bytes: int
    duration_s: float
    managed_only: bool = False
    deadline_s: float = math.inf
    """Seconds from now until its time is over."""
    queued: int = 0
    """Jobs in the queue beside this one."""
    avoid: frozenset[str] = frozenset()
    """Names of backends that broke while they had this job."""
    avoid_tiers: frozenset[str] = frozenset()
    """Tiers that it is too large for, or that failed it too often."""
    kind: str = "master"
    work: str = "master/quick"
    """By which the time is estimated (`JobKind.work`)."""
    work_factor: float = 1.0
    """How much longer than usual such work takes (`JobKind.work_factor`)."""
    models: Mapping[str, str] = {}
    """Name → digest of each model that it needs."""

    @property
    def work_duration_s(self) -> float:
        """Seconds of audio that would take as long with the options that are usual."""
        return self.duration_s * self.work_factor


TYPICAL_JOB = JobRequirements(size_bytes=30 * 1024 * 1024, duration_s=200.0)
"""Stands for a job of which nothing is known yet: 30 MiB, 200 s of audio."""


class Choice(NamedTuple):
    """The backend on which a job starts now, why in a sentence, and in how many seconds it should be done."""

    backend: str
    tier: str
    reason: str
    eta_s: float = 0.0
    device: str | None = None


class Forecast(NamedTuple):
    """What a job can expect now: a backend at once, a tier to wait for, or nothing (`tier` is None)."""

    tier: str | None
    backend: str | None
    eta_s: float
    reason: str


class _TierOffer(NamedTuple):
    """What one tier has for the job: its best backend, and after how many seconds the job would be done there."""

    tier: str
    title: str
    rank: int
    candidate: Candidate
    states: frozenset[BackendState]
    """Of its eligible backends."""
    is_free: bool
    wait_s: float
    eta_s: float

    @property
    def biased_s(self) -> float:
        return self.eta_s * (1 + TIER_BIAS * self.rank) + TIER_HANDICAP_S * self.rank


def choose(candidates: Sequence[Candidate], need: JobRequirements, draw: Callable[[], float]) -> Choice | None:
    """Choose the backend on which the job starts now; None: it waits. `draw` gives random numbers from 0 to 1."""
    found = forecast(candidates, need, draw)
    if found.tier is None or found.backend is None:
        return None
    device = next(candidate.device for candidate in candidates if candidate.name == found.backend)
    return Choice(found.backend, found.tier, found.reason, found.eta_s, device)


def forecast(candidates: Sequence[Candidate], need: JobRequirements, draw: Callable[[], float]) -> Forecast:
    """Say where the job would run now, when it would be done, and why in a sentence."""
    offers: list[_TierOffer] = []
    skipped: list[str] = []
    for rank, tier in enumerate(TIER_ORDER):
        here = [candidate for candidate in candidates if candidate.tier == tier]
        if not here:
            continue
        offer, why_not = _tier_offer(tier, rank, here, need, draw)
        if offer is None:
            skipped.append(f"{_title(here)}: {why_not}")
            continue
        offers.append(offer)
        if offer.is_free:
            break
    if not offers:
        return Forecast(None, None, math.inf, reasons.nowhere(skipped, _back_in_s(candidates, need)))
    best = min(offers, key=lambda offer: offer.biased_s)
    skipped += [f"{o.title}: {reasons.why_passed(o.states, o.wait_s)}" for o in offers if o.rank < best.rank]
    backend = best.candidate.name if best.is_free else None
    return Forecast(best.tier, backend, best.eta_s, _reason(best, skipped))


def backends_to_wake(candidates: Sequence[Candidate], need: JobRequirements, draw: Callable[[], float]) -> list[str]:
    """Names of the sleeping backends to wake now, so that a job which needs them later finds them awake.

    They are those of the first tier that sleeps, where every tier above it is suspect, or has jobs wait for longer
    than half the spill point, or is out of the question while jobs are queued.
    """
    for rank, tier in enumerate(TIER_ORDER):
        here = [
            c
            for c in candidates
            if c.tier == tier and c.state is BackendState.SLEEPING and why_ineligible(c, need) is None
        ]
        if not here:
            continue
        biased_s = min(_service_s(c, need) for c in here) * (1 + TIER_BIAS * rank) + TIER_HANDICAP_S * rank
        above = TIER_ORDER[:rank]
        if all(_is_about_to_spill(tier, biased_s, candidates, need, draw) for tier in above) and (above or need.queued):
            return [c.name for c in here]
    return []


def _is_about_to_spill(
    tier: str, biased_s: float, candidates: Sequence[Candidate], need: JobRequirements, draw: Callable[[], float]
) -> bool:
    """Whether this tier is about to leave its jobs to one below, where they would take `biased_s`."""
    here = [candidate for candidate in candidates if candidate.tier == tier]
    if not any(c.state in _SERVING and why_ineligible(c, need) is None for c in here):
        return need.queued > 0
    if all(c.state is not BackendState.HEALTHY for c in here):
        return any(c.state is BackendState.SUSPECT for c in here)
    offer, _ = _tier_offer(tier, TIER_ORDER.index(tier), here, need, draw)
    if offer is None:
        return need.queued > 0
    spill_wait_s = biased_s - _service_s(offer.candidate, need)
    return not offer.is_free and offer.wait_s > spill_wait_s / 2


def is_compatible(engine_version: str | None) -> bool:
    """Whether the engine renders the same master: same major and minor version. An unknown version counts as equal."""
    return engine_version is None or engine_version.split(".")[:2] == ENGINE_VERSION.split(".")[:2]


def why_ineligible(candidate: Candidate, need: JobRequirements) -> str | None:
    """Why this backend can't be used for the job, in a few words; None when it can."""
    if need.managed_only and candidate.tier != TIER_ORDER[0]:
        return "not consented to"
    if (lacking := why_not_done(candidate, need)) is not None:
        return lacking
    if candidate.state not in _SERVING | _STARTING | {BackendState.INCOMPATIBLE}:
        return _OUT.get(candidate.state, str(candidate.state))
    if candidate.name in need.avoid or candidate.tier in need.avoid_tiers:
        return "failed this job before"
    if candidate.max_bytes is not None and need.size_bytes > candidate.max_bytes:
        return "the file is too large for it"
    if candidate.max_duration_s is not None and need.duration_s > candidate.max_duration_s:
        return "the song is too long for it"
    if not is_compatible(candidate.engine_version):
        return "another engine version"
    if candidate.state is BackendState.INCOMPATIBLE:
        return "another version of the protocol"
    needed_s = HEADROOM * candidate.speed.render_s(need.work_duration_s, need.work)
    if candidate.quota_left_s is not None and candidate.quota_left_s < needed_s:
        return "its quota is used up"
    if _eta_without_queue_s(candidate, need) > need.deadline_s:
        return "too slow for the time that is left"
    return None


def why_not_done(candidate: Candidate, need: JobRequirements) -> str | None:
    """Why this backend does no such jobs, in a few words; None where it does, or has not said."""
    models = need.models if candidate.kinds is None else candidate.kinds.get(need.kind)
    if models is None:
        return f"does no jobs of the kind '{need.kind}'"
    if any(models.get(name) != digest for name, digest in need.models.items()):
        return f"has other models for the kind '{need.kind}'"
    pace = need.work.partition("/")[2]
    if candidate.paces is not None and pace not in candidate.paces.get(need.kind, {pace}):
        return f"can't do '{job_kinds()[need.kind].pace_title(pace)}'"
    return None


def _tier_offer(
    tier: str, rank: int, here: Sequence[Candidate], need: JobRequirements, draw: Callable[[], float]
) -> tuple[_TierOffer | None, str]:
    """What the tier has for the job, or None and why not."""
    found = [(candidate, why_ineligible(candidate, need)) for candidate in here]
    eligible = [candidate for candidate, why_not in found if why_not is None]
    if not eligible:
        return None, ", ".join(sorted({why_not for _, why_not in found if why_not}))
    title, states = _title(here), frozenset(candidate.state for candidate in eligible)
    # A suspect one only where nothing better is free: the next probe, seconds away, decides about it.
    free = [c for c in eligible if c.is_free and c.state is not BackendState.SUSPECT] or [
        c for c in eligible if c.is_free
    ]
    if free:
        chosen = _best_of_two(free, need, draw)
        return _TierOffer(tier, title, rank, chosen, states, True, 0.0, _service_s(chosen, need)), ""
    serving = [candidate for candidate in eligible if candidate.state in _SERVING]
    chosen = min(serving or eligible, key=lambda c: (_eta_without_queue_s(c, need), c.name))
    wait_s = _wait_s(serving, need, _service_s(chosen, need)) if serving else chosen.speed.cold_start_s.cautious
    if wait_s + _service_s(chosen, need) > need.deadline_s:
        return None, "too much waiting for the time that is left"
    return _TierOffer(tier, title, rank, chosen, states, False, wait_s, wait_s + _service_s(chosen, need)), ""


def _best_of_two(free: Sequence[Candidate], need: JobRequirements, draw: Callable[[], float]) -> Candidate:
    """The sooner free of two that are drawn at random."""
    rest = list(free)
    pair = [rest.pop(min(int(draw() * len(rest)), len(rest) - 1)) for _ in range(min(2, len(rest)))]
    return min(pair, key=lambda c: ((c.in_flight + 1) * _service_s(c, need) / c.weight, c.name))


def _wait_s(serving: Sequence[Candidate], need: JobRequirements, service_s: float) -> float:
    """Seconds until a slot of the tier is free for the last job in the queue, when each takes `service_s`."""
    backoffs_s = [c.backoff_s for c in serving if c.backoff_s and c.in_flight < c.slots]
    if backoffs_s and not need.queued:
        return min(backoffs_s)
    slots = sum(candidate.slots for candidate in serving)
    ahead = max(0, sum(candidate.in_flight for candidate in serving) + need.queued - slots)
    return (ahead + 1) / max(1, slots) * service_s


def _service_s(candidate: Candidate, need: JobRequirements) -> float:
    return candidate.speed.service_s(need.size_bytes, need.work_duration_s, need.work)


def _eta_without_queue_s(candidate: Candidate, need: JobRequirements) -> float:
    """Seconds until the job is done there when no other waits: cold start, upload, render and fetch."""
    cold_s = candidate.speed.cold_start_s.cautious if candidate.state in _STARTING else 0.0
    return cold_s + _service_s(candidate, need)


def _back_in_s(candidates: Sequence[Candidate], need: JobRequirements) -> float | None:
    """Seconds until the first backend that is down, and could take the job, is tried again; None: nobody knows."""
    up_again = [
        candidate.back_in_s
        for candidate in candidates
        if candidate.back_in_s and why_ineligible(candidate._replace(state=BackendState.HEALTHY), need) is None
    ]
    return min(up_again, default=None)


def _title(here: Sequence[Candidate]) -> str:
    """What people read of a tier with these backends."""
    return tier_title(here[0].tier, (candidate.device for candidate in here))


def _reason(best: _TierOffer, skipped: Sequence[str]) -> str:
    if best.is_free:
        return reasons.placed_on(best.tier, best.title, best.candidate.state, skipped)
    return reasons.waiting_for(best.title, best.states, best.wait_s, skipped)
