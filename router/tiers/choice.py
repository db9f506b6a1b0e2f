"""Which backend gets the job: a pure function. Health, load and what was tried are passed in; nothing is asked here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

TIER_ORDER = ("managed", "gpu_space", "cpu_space")
TIER_TITLES = {
    "managed": "Managed GPU workers",
    "gpu_space": "Hugging Face GPU Space",
    "cpu_space": "Hugging Face CPU Space",
}


class Candidate(NamedTuple):
    """What is known of one backend at the moment of choosing."""

    name: str
    tier: str
    up: bool
    in_flight: int
    capacity: int
    detail: str


class Choice(NamedTuple):
    backend: str
    tier: str
    reason: str


def choose(
    candidates: Sequence[Candidate], *, managed_only: bool, avoid: frozenset[str] = frozenset()
) -> Choice | None:
    """The best backend that is up and has room: tiers in order, inside a tier the least loaded; None when none is.

    `avoid` names backends that this job must not meet again.
    """
    passed: list[str] = []
    for tier in TIER_ORDER[:1] if managed_only else TIER_ORDER:
        here = [candidate for candidate in candidates if candidate.tier == tier]
        free = [c for c in here if c.up and c.in_flight < c.capacity and c.name not in avoid]
        if free:
            best = min(free, key=lambda candidate: (candidate.in_flight / candidate.capacity, candidate.name))
            return Choice(best.name, tier, _reason(tier, passed))
        if here:
            passed.append(f"{TIER_TITLES[tier]}: {_why_not(here, avoid)}")
    return None


def _reason(tier: str, passed: Sequence[str]) -> str:
    if not passed:
        return f"{TIER_TITLES[tier]} come first and are up."
    return f"{TIER_TITLES[tier]} is the best that is free ({'; '.join(passed)})."


def _why_not(here: Sequence[Candidate], avoid: frozenset[str]) -> str:
    if not any(candidate.up for candidate in here):
        return "down"
    return "failed this job before" if all(c.name in avoid for c in here if c.up) else "busy"
