"""What happens in a round of chaos: its jobs, and the faults that strike at which job. Pure; the same seed, the same.

A round begins quietly: honest songs and hostile ones, and nothing breaks, so that whoever suffers does so by the
hostile ones. Then comes the storm: each kind of fault once on the workers or the router, and at its end the managed
tier dies as a whole, while one of the Spaces is struck too: only then do songs go there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, TypeVar

Kind = TypeVar("Kind")

ROUND_JOBS = 30
QUIET_JOBS = 9
HOSTILE_JOBS = 4
TUNE_S = 60.0
"""Of which songs are cuts."""
_TIER_DIES_AT = ROUND_JOBS - 5
WORKERS = ("worker-1", "worker-2", "worker-3")
SPACES = ("gpu-space", "cpu-space")
BACKENDS = (*WORKERS, *SPACES)
MACHINE = "machine"
"""Target of what no single backend bears: the router, its disk."""
FORMATS = ("wav16", "wav16", "wav24", "flac", "mp3", "ogg")
LONG_SHARE = 0.04
"""Of the songs that last 20 to 60 s; the others 2 to 8 s, so that a thousand jobs fit into an hour of two cores."""
MANAGED_ONLY_SHARE = 0.2
TWIN_SHARE = 0.15
"""Of the jobs that two clients send at once with the same Idempotency-Key."""
SAME_SONG_SHARE = 0.15
"""Of the jobs whose song is, byte for byte, that of the job before."""


class FaultKind(StrEnum):
    SIGKILL = "sigkill"
    SIGSTOP = "sigstop"
    SIGTERM = "sigterm"
    BLACK_HOLE = "black_hole"
    SLOW_DRIP = "slow_drip"
    RESET = "reset"
    TRUNCATED = "truncated_body"
    HTML_200 = "html_200"
    FULL_DISK = "full_disk"
    CLOCK_JUMP = "clock_jump"
    ROUTER_KILL = "router_kill"
    TIER_KILL = "tier_kill"


ON_CONNECTION = frozenset({FaultKind.SLOW_DRIP, FaultKind.RESET, FaultKind.TRUNCATED, FaultKind.HTML_200})
"""They strike one exchange: the next that carries a song to the target, or, where none comes soon, to its tier."""
_ON_SPACES = (FaultKind.RESET, FaultKind.TRUNCATED, FaultKind.HTML_200, FaultKind.SLOW_DRIP, FaultKind.SIGTERM,
              FaultKind.SIGKILL, FaultKind.BLACK_HOLE)  # fmt: skip
_LASTS_S: dict[FaultKind, tuple[tuple[float, float], ...]] = {
    FaultKind.SIGKILL: ((0.2, 2.0),),
    FaultKind.SIGSTOP: ((2.0, 4.0), (11.0, 13.0)),
    FaultKind.SIGTERM: ((0.2, 1.0),),
    FaultKind.BLACK_HOLE: ((3.0, 5.0), (8.0, 12.0)),
    FaultKind.SLOW_DRIP: ((2.0, 4.0), (2.0, 4.0), (2.0, 4.0), (34.0, 38.0)),
    FaultKind.FULL_DISK: ((2.0, 4.0),),
    FaultKind.CLOCK_JUMP: ((3.0, 5.0),),
    FaultKind.ROUTER_KILL: ((0.0, 1.0),),
    FaultKind.TIER_KILL: ((5.0, 7.0),),
}
"""Seconds from a fault to its end, one of these spans: the longer ones are such that the router must give up."""


class PlannedSong(NamedTuple):
    """An honest song: a cut of synthesised music. `number` is written into it, so that its bytes can be recognised."""

    number: int
    start_s: float
    seconds: float
    format: str


class PlannedJob(NamedTuple):
    """A job to send: an honest song, or a hostile file by its kind."""

    number: int
    song: PlannedSong | None
    hostile: str | None = None
    managed_only: bool = False
    has_twin: bool = False


class PlannedFault(NamedTuple):
    """A fault, `delay_s` after the job `after_job` has begun. `at_byte` and `on_upload`: for those on a connection."""

    kind: FaultKind
    target: str
    after_job: int
    delay_s: float
    lasts_s: float
    at_byte: int = 0
    on_upload: bool = False
    jump_s: int = 0


class Round(NamedTuple):
    """One round: first its quiet jobs, then those of the storm."""

    number: int
    quiet: tuple[PlannedJob, ...]
    storm: tuple[PlannedJob, ...]
    faults: tuple[PlannedFault, ...]


def planned_round(seed: int, number: int, hostile_kinds: Sequence[str]) -> Round:
    """The round by its seed and number; its jobs are numbered on from those of the rounds before."""
    draw = random.Random(f"{seed}/{number}")  # noqa: S311 — a schedule, no secret
    first = number * ROUND_JOBS
    places = draw.sample(range(QUIET_JOBS), HOSTILE_JOBS)
    hostile = dict(zip(places, _shuffled(draw, hostile_kinds), strict=False))
    jobs: list[PlannedJob] = []
    for place in range(ROUND_JOBS):
        if place in hostile:
            jobs.append(PlannedJob(first + place, None, hostile[place]))
        else:
            jobs.append(_honest_job(draw, first + place, jobs[-1] if jobs else None))
    faults = (*_on_workers(draw, first), *_on_a_tier(draw, first))
    return Round(number, tuple(jobs[:QUIET_JOBS]), tuple(jobs[QUIET_JOBS:]), faults)


def _shuffled(draw: random.Random, kinds: Sequence[Kind]) -> list[Kind]:
    return draw.sample(kinds, len(kinds))


def _honest_job(draw: random.Random, number: int, before: PlannedJob | None) -> PlannedJob:
    long = draw.random() < LONG_SHARE
    seconds = round(draw.uniform(20.0, 60.0) if long else draw.uniform(2.0, 8.0), 2)
    song = PlannedSong(number, round(draw.uniform(0.0, TUNE_S - seconds), 2), seconds, draw.choice(FORMATS))
    if draw.random() < SAME_SONG_SHARE and before is not None and before.song is not None:
        song = before.song
    return PlannedJob(
        number,
        song,
        managed_only=draw.random() < MANAGED_ONLY_SHARE,
        has_twin=draw.random() < TWIN_SHARE,
    )


def _on_workers(draw: random.Random, first: int) -> list[PlannedFault]:
    """Each kind once, in a new order, each on another worker than the one before."""
    kinds = _shuffled(draw, [kind for kind in FaultKind if kind is not FaultKind.TIER_KILL])
    places = sorted(draw.sample(range(QUIET_JOBS, _TIER_DIES_AT), len(kinds)))
    target, faults = draw.randrange(len(WORKERS)), []
    for place, kind in zip(places, kinds, strict=True):
        target += draw.randint(1, len(WORKERS) - 1)
        name = WORKERS[target % len(WORKERS)]
        if kind in (FaultKind.FULL_DISK, FaultKind.ROUTER_KILL) or (
            kind is FaultKind.CLOCK_JUMP and draw.random() < 0.5
        ):
            name = MACHINE
        faults.append(_fault(draw, kind, name, first + place))
    return faults


def _on_a_tier(draw: random.Random, first: int) -> list[PlannedFault]:
    """The managed tier dies, and one of the Spaces is struck meanwhile; the other stays whole."""
    at = first + _TIER_DIES_AT
    faults = [_fault(draw, FaultKind.TIER_KILL, MACHINE, at)]
    return [*faults, _fault(draw, draw.choice(_ON_SPACES), draw.choice(SPACES), at + 1)]


def _fault(draw: random.Random, kind: FaultKind, target: str, after_job: int) -> PlannedFault:
    low, high = draw.choice(_LASTS_S.get(kind, ((0.0, 0.0),)))
    return PlannedFault(
        kind,
        target,
        after_job,
        delay_s=round(draw.uniform(0.0, 0.8), 3),
        lasts_s=round(draw.uniform(low, high), 2),
        at_byte=draw.randrange(100_000),
        on_upload=kind is FaultKind.RESET and draw.random() < 0.5,
        jump_s=draw.choice((-1, 1)) * draw.randrange(3600, 86_400),
    )
