"""The service's status as one record, which the operators' page, its API and `router status` show."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from mastering.contract.kinds import job_kinds
from router.core import clock, event_log
from router.jobs.services import Services
from router.store.state import ACTIVE, JobState
from router.tiers.fleet.fleet import Fleet
from router.tiers.fleet.journal import JournalEntry
from router.tiers.fleet.member import FleetMember
from router.tiers.policy.backend_state import UP
from router.tiers.policy.choice import TYPICAL_JOB, Candidate, forecast
from router.tiers.policy.tier import TIER_ORDER, tier_title

AGES_S = {"under 10 s": 10.0, "under 1 min": 60.0, "under 10 min": 600.0, "longer": math.inf}
"""Label → upper limit in seconds of the groups in which the page counts waiting jobs."""
EVENTS_SHOWN = 60
"""Newest entries of the fleet's journal that the page lists."""


class BackendStatus(BaseModel):
    name: str
    tier: str
    state: str = Field(description="What it is to the router now.")
    reason: str = Field(description="Why it is in that state.")
    since_s: float = Field(description="For how long it has been.")
    back_in_s: float | None = Field(description="When it may take work again; null where an operator must say so.")
    mode: str = Field(description="What an operator told it: ready, draining or maintenance.")
    in_flight: int
    slots: int
    weight: float = Field(description="Its share while it starts slowly, up to 1.")
    eta_s: float = Field(description="What a typical song would take on it now, without waiting.")
    quota_left_s: float | None = Field(description="Seconds of its device that may still be used; null: no limit.")
    kinds: list[str] | None = Field(description="Kinds of jobs that it does; null where it has not said.")
    lacks: list[str] = Field(description="Paces of those kinds that it can't do, each with the cure, as sentences.")
    device: str | None
    sandbox_gaps: list[str] | None = Field(
        description="What its sandbox does not refuse a rendering process and should; null where it has not said."
    )
    engine_version: str | None
    region: str
    operator: str
    cost_per_hour: float


class TierStatus(BaseModel):
    name: str
    title: str
    up: bool = Field(description="At least one backend could take a job or is at one.")
    condition: str = Field(description="up, on trial, in doubt, asleep, starting or down: its best backend's.")
    in_flight: int
    slots: int
    backends: list[BackendStatus]


class QueueStatus(BaseModel):
    waiting: int
    running: int
    oldest_s: float | None = Field(description="Age of the job that has waited longest.")
    by_age: dict[str, int] = Field(description="Waiting jobs by how long they have waited.")
    by_kind: dict[str, int] = Field(description="Waiting jobs by kind.")
    eta_s: float | None = Field(description="When a typical song that came now would be done; null: no tier takes it.")
    outlook: str = Field(description="What would become of a song that came now.")


class SpoolStatus(BaseModel):
    used_bytes: int
    quota_bytes: int
    files: int
    oldest_s: float | None


class EventStatus(BaseModel):
    at: datetime
    ago_s: float
    kind: str = Field(description="attempt, failover or state.")
    tier: str
    backend: str
    what: str = Field(description="How the attempt ended, after what a failover came, or the state that began.")
    detail: str
    seconds: float | None


class Status(BaseModel):
    """Everything an operator's page shows. No job, no account, no name."""

    at: datetime
    summary: str
    healthy: bool = Field(description="Every tier that is set up is up, and the catalogue is in order.")
    tiers: list[TierStatus]
    queue: QueueStatus
    spool: SpoolStatus
    events: list[EventStatus] = Field(description="The newest first.")
    catalogue_error: str | None
    probe_sandbox_gaps: list[str] | None = Field(
        description="The same of the router's own probe, which reads uploads; null until it has been tried."
    )
    dropped_log_fields: int


async def current_status(services: Services) -> Status:
    """The status at this moment. No job or account is in it."""
    now = clock.now()
    tiers = [tier for tier in (_tier_status(services.fleet, name, now) for name in TIER_ORDER) if tier.backends]
    error = services.fleet.catalogue_error
    usage = services.spool.usage()
    return Status(
        at=datetime.now(UTC),
        summary=_summary(tiers, error),
        healthy=bool(tiers) and all(tier.up for tier in tiers) and error is None,
        tiers=tiers,
        queue=await _queue_status(services),
        spool=SpoolStatus(
            used_bytes=usage.reserved_bytes, quota_bytes=usage.quota_bytes, files=usage.blobs, oldest_s=usage.oldest_s
        ),
        events=[_event_status(entry, now) for entry in services.fleet.journal.latest(EVENTS_SHOWN)],
        catalogue_error=error,
        probe_sandbox_gaps=None if services.probe.sandbox_gaps is None else list(services.probe.sandbox_gaps),
        dropped_log_fields=event_log.book.dropped,
    )


def _summary(tiers: list[TierStatus], error: str | None) -> str:
    down = [tier.title for tier in tiers if not tier.up]
    if not tiers:
        return "No backend is set up."
    if len(down) == len(tiers):
        return "No tier is up: new songs wait or are refused."
    if down:
        return f"Songs are mastered, but without: {', '.join(down)}."
    if on_trial := [tier.title for tier in tiers if _has_only(tier, "half-open")]:
        return f"All tiers take songs, but on trial after a fault: {', '.join(on_trial)}."
    if in_doubt := [tier.title for tier in tiers if _has_only(tier, "half-open", "suspect")]:
        return f"All tiers take songs, but in doubt until the next probe: {', '.join(in_doubt)}."
    if asleep := [tier.title for tier in tiers if _has_only(tier, "half-open", "suspect", "sleeping")]:
        return f"All tiers take songs, but asleep until one is needed: {', '.join(asleep)}."
    return "All tiers are up." if error is None else "All tiers are up, but the catalogue has a mistake."


_CONDITIONS = {
    "healthy": "up", "half-open": "on trial", "suspect": "in doubt", "sleeping": "asleep", "warming": "starting",
}  # fmt: skip
"""State → what is said of a tier none of whose backends is in a better one."""


def _condition(states: set[str]) -> str:
    return next((word for state, word in _CONDITIONS.items() if state in states), "down")


def _has_only(tier: TierStatus, *states: str) -> bool:
    """Whether all of its backends that could take a job are in these states, and there is one."""
    found = {backend.state for backend in tier.backends} & UP
    return bool(found) and found <= set(states)


def _tier_status(fleet: Fleet, name: str, now: float) -> TierStatus:
    backends = [_backend_status(s, now) for s in fleet.members() if s.backend.tier == name]
    return TierStatus(
        name=name,
        title=tier_title(name, (backend.device for backend in backends)),
        up=any(backend.state in UP for backend in backends),
        condition=_condition({backend.state for backend in backends}),
        in_flight=sum(backend.in_flight for backend in backends),
        slots=sum(backend.slots for backend in backends),
        backends=backends,
    )


def _backend_status(member: FleetMember, now: float) -> BackendStatus:
    seen, back_in_s = member.candidate(now), member.back_in_s(now)
    return BackendStatus(
        name=seen.name,
        tier=seen.tier,
        state=seen.state.value,
        reason=member.reason(now),
        since_s=round(now - member.since_s(now), 1),
        back_in_s=None if back_in_s is None else round(back_in_s, 1),
        mode=member.mode.value,
        in_flight=seen.in_flight,
        slots=seen.slots,
        weight=round(seen.weight, 2),
        eta_s=round(seen.speed.service_s(TYPICAL_JOB.size_bytes, TYPICAL_JOB.duration_s, TYPICAL_JOB.work), 1),
        kinds=sorted(seen.kinds) if seen.kinds is not None else None,
        lacks=_lacks(seen),
        quota_left_s=seen.quota_left_s,
        device=member.health.device,
        sandbox_gaps=None if member.health.sandbox_gaps is None else list(member.health.sandbox_gaps),
        engine_version=seen.engine_version,
        region=member.terms.region,
        operator=member.terms.operator,
        cost_per_hour=member.terms.cost_per_hour,
    )


def _lacks(seen: Candidate) -> list[str]:
    return [
        f"can't do '{kind.pace_title(pace)}'. {kind.pace_cures.get(pace, '')}".strip()
        for name, kind in job_kinds().items()
        if seen.paces is not None and name in seen.paces
        for pace in kind.paces
        if pace not in seen.paces[name]
    ]


async def _queue_status(services: Services) -> QueueStatus:
    ages, running, now = [], 0, services.clock.now()
    by_kind = dict.fromkeys(job_kinds(), 0)
    async for job, _ in services.jobs.scan():
        if job.state is JobState.QUEUED:
            ages.append(now - job.created_s)
            by_kind[job.kind] = by_kind.get(job.kind, 0) + 1
        elif job.state in ACTIVE:
            running += job.state in (JobState.RUNNING, JobState.SEALED)
    by_age = dict.fromkeys(AGES_S, 0)
    for age in ages:
        by_age[next(label for label, limit in AGES_S.items() if age < limit)] += 1
    found = forecast(services.fleet.candidates(), TYPICAL_JOB._replace(queued=len(ages)), services.fleet.draw)
    return QueueStatus(
        waiting=len(ages),
        running=running,
        oldest_s=round(max(ages), 1) if ages else None,
        by_age=by_age,
        by_kind=by_kind,
        eta_s=round(found.eta_s, 1) if math.isfinite(found.eta_s) else None,
        outlook=found.reason,
    )


def _event_status(entry: JournalEntry, now: float) -> EventStatus:
    return EventStatus(
        at=datetime.fromtimestamp(clock.to_epoch_s(entry.at_s), UTC),
        ago_s=round(now - entry.at_s, 1),
        kind=entry.kind,
        tier=entry.tier,
        backend=entry.backend,
        what=entry.what,
        detail=entry.detail,
        seconds=None if entry.seconds is None else round(entry.seconds, 2),
    )
