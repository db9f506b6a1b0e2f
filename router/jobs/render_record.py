"""The render record: the one line that is left of a job when all else is forgotten (the event `render`)."""

from __future__ import annotations

from router.core.event_log import log, pseudonym, size_bucket
from router.store.record import Attempt, Job
from router.store.state import DONE


def outcome(job: Job) -> str:
    """How a job ended, in a word of our own tables."""
    return "mastered" if job.state in DONE else str((job.error or {}).get("code", job.state))


def write(job: Job, references: int) -> None:
    """Say how a job ended. Called once for each, at the step to its end; what it never came to is left out."""
    fields = {**_fields(job), "references": references}
    log("render", **{name: value for name, value in fields.items() if value is not None})


def _fields(job: Job) -> dict[str, object]:
    wanted, facts = job.settings, job.facts
    return {
        "account": pseudonym(job.account),
        "container": facts and facts.container,
        "codec": facts and facts.codec,
        "duration_s": facts and round(facts.duration_s),
        "rate_hz": facts and facts.rate_hz,
        "channels": facts and facts.channels,
        "size": None if job.size_bytes is None else size_bucket(job.size_bytes),
        "target": wanted.target,
        "style": wanted.style,
        "amount_percent": wanted.amount_percent,
        "loudness_lufs": wanted.loudness_lufs,
        "ceiling_dbtp": wanted.ceiling_dbtp,
        "master_rate_hz": wanted.rate_hz,
        "outputs": wanted.outputs,
        "max_crest_loss_db": wanted.max_crest_loss_db,
        "keep_tags": wanted.keep_tags,
        "effort": wanted.effort,
        "managed_only": job.managed_only,
        "tier": job.attempts[-1].tier if job.attempts else None,
        "attempts": job.generation,
        "queue_s": _waited_s(job),
        "render_s": _worked_s(job.attempts[-1]) if job.attempts else None,
        "outcome": outcome(job),
    }


def _waited_s(job: Job) -> float | None:
    """From the moment the song was in line until the first attempt."""
    if job.queued_s is None or not job.attempts:
        return None
    return round(max(0.0, job.attempts[0].started_s - job.queued_s), 1)


def _worked_s(last: Attempt) -> float | None:
    return None if last.ended_s is None else round(max(0.0, last.ended_s - last.started_s), 1)
