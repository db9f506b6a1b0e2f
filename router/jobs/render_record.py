"""The render record: the log event `render`, the one thing that is left of a job when all else is forgotten."""

from __future__ import annotations

from mastering.contract.kinds import job_kinds
from router.core.event_log import log, pseudonym, size_bucket
from router.jobs.kinds import options_of
from router.store.record import Attempt, Job
from router.store.state import DONE


def outcome_code(job: Job) -> str:
    """`mastered`, or the error code or state that the job ended with: a word of our own tables, never a person's."""
    return "mastered" if job.state in DONE else str((job.error or {}).get("code", job.state))


def write(job: Job, references: int) -> None:
    """Log how a job ended, once, at its step to the end. Fields of stages that it never reached are left out."""
    fields = {**_record_fields(job), "references": references}
    log("render", **{name: value for name, value in fields.items() if value is not None})


def _record_fields(job: Job) -> dict[str, object]:
    facts, kind = job.facts, job_kinds().get(job.kind)
    return {
        "account": pseudonym(job.account),
        "kind": job.kind,
        "container": facts and facts.container,
        "codec": facts and facts.codec,
        "duration_s": facts and round(facts.duration_s),
        "rate_hz": facts and facts.rate_hz,
        "channels": facts and facts.channels,
        "size": None if job.size_bytes is None else size_bucket(job.size_bytes),
        "outputs": job.wanted,
        **(kind.log_values(options_of(job)) if kind else {}),
        "managed_only": job.managed_only,
        "tier": job.attempts[-1].tier if job.attempts else None,
        "attempts": job.generation,
        "queue_s": _queued_for_s(job),
        "render_s": _rendered_for_s(job.attempts[-1]) if job.attempts else None,
        "outcome": outcome_code(job),
    }


def _queued_for_s(job: Job) -> float | None:
    """Seconds in the queue until the first attempt; None for a job that was never tried."""
    if job.queued_s is None or not job.attempts:
        return None
    return round(max(0.0, job.attempts[0].started_s - job.queued_s), 1)


def _rendered_for_s(last: Attempt) -> float | None:
    return None if last.ended_s is None else round(max(0.0, last.ended_s - last.started_s), 1)
