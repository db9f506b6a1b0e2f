"""Counts what went wrong: by the schedule, by what the clients saw and by what the proxies saw. Pure.

- **lost**: a job that the router had accepted (202, or a later answer that says it has the song) and that came to no
  final state within JOB_LIMIT_S, is not there any more, or whose master was said to be done and could not be fetched
  within FETCH_LIMIT_S, or is not a sound master of its song.
- **delivered twice**: one Idempotency-Key gave two jobs; or two fetches of a master brought different bytes; or a song
  that one job alone has was under way to two backends at once for more than AT_ONCE_S (what that is, `proxy` says).
- **avoidable error**: an honest job ended without a master (failed, or refused until its client gave up), although at
  that moment one backend that it may use was *untouched*: by chaos's own record no fault was in force on it, nor had
  one ended within the RETURN_S before. Full disks and kills of the router touch no backend: they excuse no error. Two
  things excuse one: that the job is a victim, which is counted there; and that chaos struck two of its attempts,
  after which a song is stopped by design (ROUTING's rule against poison; `struck_twice` says how many were).
- **victim**: an honest job that ended without a master, or took longer than VICTIM_S + VICTIM_FACTOR times its song,
  while a hostile job was under way and no fault of the schedule was in force or had ended within the RETURN_S before.

`failover_ms`: from a fault's moment to the marker of a song, which was at the backend that it struck, at a backend
again: the router's next attempt. That it had no free backend meanwhile is counted too.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ops.chaos.client import JobHistory
from ops.chaos.proxy import Record, Strike, Transfer
from ops.chaos.schedule import SPACES, WORKERS, FaultKind

RETURN_S = 8.0
"""After a fault, until the router must have found a backend to be well again: its first opening is 5 s, 6 at most."""
AT_ONCE_S = 0.25
"""The end of one exchange and the beginning of the next are seen by this much in the wrong order on a busy machine."""
VICTIM_S, VICTIM_FACTOR = 30.0, 3.0
"""A song of 5 s takes less than 2 s alone. Others stand in line with it, and the machine may be busy beside."""


@dataclass(frozen=True)
class Outage:
    """A fault as it was done: which backends it touched, from when to when. One that only touched the router: none."""

    kind: FaultKind
    backends: frozenset[str]
    from_s: float
    to_s: float


@dataclass
class Verdict:
    """The counts of a run, and a sentence for each finding."""

    jobs: int = 0
    lost: int = 0
    delivered_twice: int = 0
    avoidable_errors: int = 0
    victims: int = 0
    struck_twice: int = 0
    failed: int = 0
    """Honest jobs without a master, for whatever reason: those that the schedule excuses too."""
    failovers_ms: dict[FaultKind, list[float]] = field(default_factory=lambda: defaultdict(list))
    faults: Counter[str] = field(default_factory=Counter)
    hostile: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """By kind and by how it ended: the most seconds that took."""
    slowest_quiet_s: float = 0.0
    """Of the honest jobs beside hostile ones."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Faults that could not be done."""
    died: Counter[str] = field(default_factory=Counter)
    """Processes that ended by themselves."""
    evidence: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return self.lost == self.delivered_twice == self.avoidable_errors == self.victims == 0

    def add(self, histories: Sequence[JobHistory], record: Record, outages: Sequence[Outage]) -> None:
        """Count a round that has come to its end."""
        self.jobs += len(histories)
        self.faults.update(outage.kind.value for outage in outages)
        hostile = [history for history in histories if history.plan.song is None]
        shared = _shared_songs(histories)
        for history in histories:
            is_struck_twice = _strikes(history, record) >= 2
            self.struck_twice += is_struck_twice
            self.failed += _has_failed(history)
            findings = (
                ("lost", _why_lost(history)),
                ("delivered_twice", _why_twice(history, record, shared)),
                ("victims", _why_victim(history, hostile, outages)),
            )
            for name, why in findings:
                self._note(name, history, why, record)
            if findings[2][1] is None and not is_struck_twice:
                self._note("avoidable_errors", history, _why_avoidable(history, outages), record)
        for kind, milliseconds in failovers_ms(record):
            self.failovers_ms[kind].append(milliseconds)
        for history in hostile:
            ends, end = self.hostile[history.plan.hostile or ""], history.code or history.state
            ends[end] = max(ends.get(end, 0.0), round(_took_s(history), 1))
        beside = [_took_s(one) for one in histories if one.plan.song and any(_overlap(one, other) for other in hostile)]
        self.slowest_quiet_s = round(max([self.slowest_quiet_s, *beside]), 1)

    def _note(self, name: str, history: JobHistory, why: str | None, record: Record) -> None:
        if why is not None:
            setattr(self, name, getattr(self, name) + 1)
            self.evidence.append(f"{name}: job {history.plan.number}: {why}{_story(history, record)}")

    def as_json(self) -> dict[str, Any]:
        every = [one for kind in self.failovers_ms.values() for one in kind]
        return {
            "jobs": self.jobs,
            "lost": self.lost,
            "delivered_twice": self.delivered_twice,
            "avoidable_errors": self.avoidable_errors,
            "victims": self.victims,
            "failover_ms_p99": percentile(every, 0.99),
            "failovers": {
                kind.value: {"count": len(found), "p50_ms": percentile(found, 0.5), "p99_ms": percentile(found, 0.99)}
                for kind, found in sorted(self.failovers_ms.items())
            },
            "honest_failed": self.failed,
            "struck_twice": self.struck_twice,
            "faults": dict(sorted(self.faults.items())),
            "hostile_s": dict(sorted(self.hostile.items())),
            "slowest_beside_hostile_s": self.slowest_quiet_s,
            "skipped": dict(sorted(self.skipped.items())),
            "died_by_themselves": dict(sorted(self.died.items())),
            "evidence": self.evidence,
        }


def percentile(values: Iterable[float], share: float) -> float | None:
    """The value that `share` of them do not exceed; None where there are none."""
    ordered = sorted(values)
    return round(ordered[math.ceil(share * len(ordered)) - 1], 1) if ordered else None


def failovers_ms(record: Record) -> list[tuple[FaultKind, float]]:
    """For each fault that struck a song: milliseconds until the song was sent to a backend again, where it was."""
    by_song: dict[int, list[Transfer]] = defaultdict(list)
    for transfer in record.transfers:
        by_song[transfer.song].append(transfer)
    found = []
    for strike in record.strikes:
        later = [one.began_s for one in by_song[strike.song] if one.began_s > strike.at_s]
        if later:
            found.append((strike.kind, (min(later) - strike.at_s) * 1000))
    return found


def _story(history: JobHistory, record: Record) -> str:
    """What the router said of the attempts, and what the proxies saw of the song, in seconds since its job began."""
    song, began_s = history.plan.song, history.began_s
    seen = [
        (one.began_s, f"at {one.backend} until {'now' if one.ended_s is None else f'{one.ended_s - began_s:.2f}'}")
        for one in record.transfers
        if song is not None and one.song == song.number
    ]
    seen += [
        (one.at_s, f"{one.kind} at {one.backend}")
        for one in record.strikes
        if song is not None and one.song == song.number
    ]
    told = "; ".join(history.attempts) or "none"
    return (
        f" (attempts: {told}; seen: {', '.join(f'{at - began_s:.2f} {what}' for at, what in sorted(seen)) or 'none'})"
    )


def _shared_songs(histories: Sequence[JobHistory]) -> set[int]:
    """Songs of two jobs: which of them a transfer is for can't be told."""
    songs = Counter(history.plan.song.number for history in histories if history.plan.song is not None)
    return {song for song, count in songs.items() if count > 1}


def _why_lost(history: JobHistory) -> str | None:
    if history.accepted_s is None:
        return None
    if not history.is_over:
        return f"accepted, and after {(history.ended_s or 0) - history.accepted_s:.0f} s it is {history.state}"
    if history.is_done and history.master != "sound":
        return f"its master is not what it should be: {history.master}"
    return None


def _why_twice(history: JobHistory, record: Record, shared: set[int]) -> str | None:
    if len(history.ids) > 1:
        return f"one Idempotency-Key gave {len(history.ids)} jobs"
    if history.has_two_masters:
        return "two fetches brought different masters"
    song = history.plan.song
    if song is None or song.number in shared:
        return None
    sent = sorted((one for one in record.transfers if one.song == song.number), key=lambda one: one.began_s)
    for before, after in pairwise(sent):
        if before.ended_s is None or before.ended_s - after.began_s > AT_ONCE_S:
            return f"its song was under way to {before.backend} and to {after.backend} at once"
    return None


def _strikes(history: JobHistory, record: Record) -> int:
    """How many attempts of the job's song chaos has broken; a kill of the router breaks none."""
    song = history.plan.song
    deadly: set[tuple[str, float]] = set()
    for strike in record.strikes:
        if song is not None and strike.song == song.number and strike.kind is not FaultKind.ROUTER_KILL:
            deadly.add((strike.backend, _attempt_of(strike, record)))
    return len(deadly)


def _attempt_of(strike: Strike, record: Record) -> float:
    """When the attempt began that was struck: two faults during one attempt break one."""
    begun = [
        one.began_s
        for one in record.transfers
        if one.song == strike.song and one.backend == strike.backend and one.began_s <= strike.at_s
    ]
    return max(begun, default=0.0)


def _has_failed(history: JobHistory) -> bool:
    return history.plan.song is not None and not history.is_done and (history.is_over or history.state == "refused")


def _why_avoidable(history: JobHistory, outages: Sequence[Outage]) -> str | None:
    if not _has_failed(history):
        return None
    ended_s = history.ended_s or math.inf
    allowed = WORKERS if history.plan.managed_only else (*WORKERS, *SPACES)
    well = [name for name in allowed if not any(name in one.backends and _in_force(one, ended_s) for one in outages)]
    return f"{history.state} ({history.code}) while {', '.join(well)} were untouched" if well else None


def _why_victim(history: JobHistory, hostile: Sequence[JobHistory], outages: Sequence[Outage]) -> str | None:
    song, ended_s = history.plan.song, history.ended_s
    if song is None or ended_s is None or not any(_overlap(history, one) for one in hostile):
        return None
    if any(one.from_s <= ended_s and history.began_s <= one.to_s + RETURN_S for one in outages):
        return None
    kinds = ", ".join(sorted({one.plan.hostile or "" for one in hostile if _overlap(history, one)}))
    if _has_failed(history):
        return f"{history.state} ({history.code}) beside {kinds}"
    took_s, allowed_s = _took_s(history), VICTIM_S + VICTIM_FACTOR * song.seconds
    return f"took {took_s:.0f} s, more than {allowed_s:.0f}, beside {kinds}" if took_s > allowed_s else None


def _took_s(history: JobHistory) -> float:
    return (history.ended_s or history.began_s) - history.began_s


def _overlap(one: JobHistory, other: JobHistory) -> bool:
    return one.began_s <= (other.ended_s or math.inf) and other.began_s <= (one.ended_s or math.inf)


def _in_force(outage: Outage, at_s: float) -> bool:
    return outage.from_s <= at_s <= outage.to_s + RETURN_S
