"""The sentences that say why a job is where it is, or waits: made of the state of each tier at that moment.

A backend that is on trial is not up, one that does not answer is not busy, and one that starts is neither.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.tier import TIER_ORDER

_BY_RISING_DOUBT = (
    (BackendState.HEALTHY, "busy for about {wait_s:.0f} s", "will be done first: free in about {wait_s:.0f} s"),
    (BackendState.HALF_OPEN, "on trial after a fault", "will be tried first: on trial after a fault"),
    (BackendState.SUSPECT, "no answer a moment ago", "will be tried first: no answer a moment ago"),
    (BackendState.WARMING, "starting", "will be done first: starting, ready in about {wait_s:.0f} s"),
    (BackendState.SLEEPING, "asleep", "will be done first: asleep, awake in about {wait_s:.0f} s"),
)
"""State → why a tier is passed over none of whose backends is better, and why it is waited for nevertheless."""
_DOUBTS = {
    BackendState.HALF_OPEN: "on trial after a fault",
    BackendState.SUSPECT: "in doubt until the next probe",
}
"""Of a backend that gets the job."""


def why_passed(states: Collection[BackendState], wait_s: float) -> str:
    """Why a tier whose eligible backends are in these states, none of them free, is passed over."""
    return next(passed for state, passed, _ in _BY_RISING_DOUBT if state in states).format(wait_s=wait_s)


def waiting_for(title: str, states: Collection[BackendState], wait_s: float, passed: Sequence[str]) -> str:
    """The sentence for a job that waits for such a tier; `passed`: why others are no choice."""
    why = next(waited for state, _, waited in _BY_RISING_DOUBT if state in states).format(wait_s=wait_s)
    return f"{title} {why}{_because(passed)}."


def placed_on(tier: str, title: str, state: BackendState, passed: Sequence[str]) -> str:
    """The sentence for a job that gets a free backend in this state."""
    doubt = _DOUBTS.get(state, "")
    if passed:
        return f"{title} is the best that is free{_because([doubt, *passed] if doubt else passed)}."
    if tier != TIER_ORDER[0]:
        return f"{title} is the first that is set up{f', {doubt}' if doubt else ''}."
    return f"{title} come first{f', {doubt}' if doubt else ' and are up'}."


def nowhere(passed: Sequence[str], back_in_s: float | None) -> str:
    """The sentence for a job that no tier can take; `back_in_s`: until one that is down is tried again."""
    again = "" if back_in_s is None else f" The next is tried again in about {max(1.0, back_in_s):.0f} s."
    return f"No tier can take the job now ({'; '.join(passed) or 'none is set up'}).{again}"


def _because(passed: Sequence[str]) -> str:
    return f" ({'; '.join(passed)})" if passed else ""
