"""What a job's kind says of it: what its record holds as JSON, as the kind's own records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mastering.contract import JobOptions, Record
from mastering.contract.kinds import JobKind, job_kind, job_kinds
from router.core.errors import Problem
from router.store.record import Job
from router.tiers.fleet.fleet import Fleet
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.choice import TYPICAL_JOB, JobRequirements
from router.tiers.policy.tier import TIER_ORDER


def kind_of(job: Job) -> JobKind[Any]:
    """Raises Problem(input_lost) for a kind that this router knew when the job was made, and knows no more."""
    if job.kind not in job_kinds():
        raise Problem("input_lost", "This router does not do jobs of this kind any more.")
    return job_kind(job.kind)


def options_of(job: Job) -> JobOptions:
    """What was asked for, as the kind's own record; checked when the job was made. Raises Problem(input_lost)."""
    options: JobOptions = kind_of(job).options.model_validate(job.options, strict=False)
    return options


def outputs_bound_bytes(job: Job) -> int:
    """The most bytes that the audio of all its outputs can have, headers and pictures aside; 0 before it is known."""
    kind, options, facts = kind_of(job), options_of(job), job.facts
    if facts is None:
        return 0
    most, empty = (kind.size_bound_bytes(options, s, facts.rate_hz, facts.channels) for s in (facts.duration_s, 0.0))
    return most - empty


def requirements_of(kind: JobKind[Any], options: JobOptions) -> dict[str, Any]:
    """The fields of `JobRequirements` that the kind decides."""
    return {
        "kind": kind.name,
        "work": kind.work(options),
        "work_factor": kind.work_factor(options),
        "models": kind.models,
    }


def typical_job(kind: JobKind[Any], options: JobOptions | None = None) -> JobRequirements:
    """Stands for a job of this kind of which no more is known; `options`: its defaults unless given."""
    return TYPICAL_JOB._replace(**requirements_of(kind, options or kind.options()))


@dataclass(frozen=True)
class OfferedPace:
    """A pace of a kind's work: its title for people, whether it is offered here, and if not, why."""

    title: str
    offered: bool
    reason: str = ""


def offered_paces(fleet: Fleet, kind: JobKind[Any], managed_only: bool) -> dict[str, OfferedPace]:
    """The paces of a kind. One that needs more than the kind is offered where a backend has said that it can do it.

    `managed_only`: by our own workers alone.
    """
    said = [
        one.paces.get(kind.name, frozenset())
        for one in fleet.candidates()
        if one.paces is not None
        and one.state is not BackendState.INCOMPATIBLE
        and (one.tier == TIER_ORDER[0] or not managed_only)
    ]
    able = frozenset().union(*said) | (kind.paces.keys() - kind.pace_modules.keys())
    where = "of our own workers" if managed_only else "of the tiers that are set up"
    cures = kind.pace_cures if said else {}  # what none has said may be there
    return {
        pace: OfferedPace(kind.pace_title(pace), pace in able, "" if pace in able else _not_offered(where, cures, pace))
        for pace in kind.paces
    }


def _not_offered(where: str, cures: Mapping[str, str], pace: str) -> str:
    return f"Not offered now: none {where} can do it. {cures.get(pace, '')}".strip()


def report_of(kind: JobKind[Any], report: dict[str, Any]) -> Record:
    """A backend's report as the kind's own record. Raises ValueError for anything else."""
    return kind.report.model_validate(report)
