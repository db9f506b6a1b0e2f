"""What a job's kind says of it: what its record holds as JSON, as the kind's own records."""

from __future__ import annotations

from typing import Any

from mastering.contract import JobOptions, Record
from mastering.contract.kinds import JobKind, job_kind, job_kinds
from router.core.errors import Problem
from router.store.record import Job
from router.tiers.policy.choice import TYPICAL_JOB, JobRequirements


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
    return {"kind": kind.name, "work": kind.work(options), "models": kind.models}


def typical_job(kind: JobKind[Any], options: JobOptions | None = None) -> JobRequirements:
    """Stands for a job of this kind of which no more is known; `options`: its defaults unless given."""
    return TYPICAL_JOB._replace(**requirements_of(kind, options or kind.options()))


def report_of(kind: JobKind[Any], report: dict[str, Any]) -> Record:
    """A backend's report as the kind's own record. Raises ValueError for anything else."""
    return kind.report.model_validate(report)
