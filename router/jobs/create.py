"""Makes jobs: checks what is asked for, refuses what can't be done, reserves space for the upload, stores the record.

The JSON route and tus both make jobs here, so that an upload is refused for the same reasons whichever it came by.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from mastering.contract import Fault, JobOptions, Settings
from mastering.contract.kinds import KIND_NAME, MASTER, JobKind, job_kind
from router.core.errors import Problem
from router.jobs import admission
from router.jobs.reservation import refuse_too_large, reserve
from router.jobs.services import Services
from router.store.port import JobMissing, Versioned
from router.store.record import BlobRef, Job, new_id

RECORD_TTL_S = 3 * 3600
"""Seconds after which a job's record, which holds no audio, is forgotten; its outputs are gone long before."""
MANAGED_ONLY_NOT_OFFERED = (
    "This router itself runs as a Hugging Face Space: every song passes through Hugging Face, so that"
    " our own servers alone can't be promised here."
)

_OUTPUTS = "Which of its kind's outputs are wanted; none named: the usual one."


class NewJob(Settings):
    """What is wanted, and how large the file will be: enough to refuse before a byte of audio moves.

    A kind's options are in `options`. A master's may stand beside it instead: target, style, amount_percent …
    """

    kind: Annotated[str, Field(pattern=KIND_NAME, description="Of the job: see GET /v1/options.")] = MASTER.name
    options: Annotated[dict[str, Any] | None, Field(description="What is asked of it, by its kind's own names.")] = None
    outputs: Annotated[tuple[str, ...] | None, Field(description=_OUTPUTS)] = None  # type: ignore[assignment]
    size_bytes: Annotated[int | None, Field(ge=0, le=2**53, description="Size of the file that will be sent.")] = None
    managed_only: Annotated[bool, Field(description="Never leave our own workers, whatever is down.")] = False

    def asked(self) -> Asked:
        """The kind and its options, checked. Raises Problem(bad_settings), which names the field."""
        try:
            kind = job_kind(self.kind)
            return Asked(kind, kind.parse(self._all_options(kind)))
        except Fault as fault:
            raise Problem(fault.code, fault.message, **fault.numbers) from None

    def _all_options(self, kind: JobKind[Any]) -> dict[str, Any]:
        """The options as they were given, in either way. Raises Problem."""
        flat = self.model_fields_set & Settings.model_fields.keys() - {"outputs"}
        if flat and (self.options is not None or kind is not MASTER):
            sentence = (
                f"{min(flat)} is an option of a master, where `options` is not given. Put options into `options`."
            )
            raise Problem("bad_settings", sentence, field=min(flat))
        given = self.model_dump(mode="json", include=flat) if self.options is None else self.options
        return given if self.outputs is None else {**given, "outputs": self.outputs}


class Asked(NamedTuple):
    """What a person wants: a kind of job, and its options."""

    kind: JobKind[Any]
    options: JobOptions

    @property
    def document(self) -> dict[str, Any]:
        """The options as the record keeps them."""
        return self.options.model_dump(mode="json")


async def create_job(services: Services, account: str, new: NewJob, idempotency_key: str | None) -> Versioned:
    """A new job of the account, or the one that it made before with the same `idempotency_key`.

    Space for an upload of known size is reserved. Raises Problem.
    """
    asked = new.asked()
    _check(services, new, asked.kind)
    job_id = _keyed_id(services.secret, account, idempotency_key) if idempotency_key else new_id()
    with suppress(JobMissing):
        return _checked_same(await services.jobs.get(job_id), new, asked)
    await _refuse_too_many(services, account)
    may_only = await services.accounts.managed_only(account, services.tiers_version())
    managed_only = new.managed_only or may_only
    await admission.admit(services, asked.kind, asked.options, new.size_bytes, managed_only=managed_only)
    now = services.clock.now()
    expires_s = now + min(services.settings.output_ttl_s, asked.kind.output_ttl_s or math.inf)
    job = Job(
        id=job_id,
        account=account,
        owner=services.owner.router,
        kind=asked.kind.name,
        options=asked.document,
        managed_only=managed_only,
        created_s=now,
        expires_s=expires_s,
        size_bytes=new.size_bytes,
        input=await _reserved_input(services, account, new.size_bytes, expires_s),
    )
    made = await services.jobs.create(job, RECORD_TTL_S)
    if made.job != job and job.input:  # another request with the same key was quicker
        await services.spool.drop(job.input.ref)
    return _checked_same(made, new, asked)


def refuse_managed_only(services: Services, *, managed_only: bool) -> None:
    """Raise Problem(bad_settings) where "our own workers only" is asked of a router that can't keep to it."""
    if managed_only and not services.offers_managed_only:
        raise Problem("bad_settings", MANAGED_ONLY_NOT_OFFERED, field="managed_only")


def _check(services: Services, new: NewJob, kind: JobKind[Any]) -> None:
    refuse_too_large(services, kind, new.size_bytes)
    refuse_managed_only(services, managed_only=new.managed_only)


def _checked_same(found: Versioned, new: NewJob, asked: Asked) -> Versioned:
    """The job of an Idempotency-Key. Raises Problem if it was made with other settings."""
    job = found.job
    is_other = (job.kind, job.options) != (asked.kind.name, asked.document)
    is_other |= new.size_bytes is not None and new.size_bytes != job.size_bytes
    if is_other or (new.managed_only and not job.managed_only):
        raise Problem(
            "idempotency_conflict", "This Idempotency-Key was used with other settings, or another size. Use a new one."
        )
    return found


async def _reserved_input(services: Services, account: str, size_bytes: int | None, expires_s: float) -> BlobRef | None:
    """Space for an upload whose size is known; None for one of unknown size, which reserves when it begins."""
    if size_bytes is None:
        return None
    return BlobRef(ref=await reserve(services, account, size_bytes, expires_s), size_bytes=0)


async def _refuse_too_many(services: Services, account: str) -> None:
    allowed = services.settings.max_queued_per_account
    active = await services.jobs.active(account)
    if active >= allowed:
        raise Problem(
            "too_many_jobs",
            f"You have {active} jobs that are not done; {allowed} are allowed. Wait for one or delete one.",
            retry_after_s=30,
            active=active,
            allowed=allowed,
        )


def _keyed_id(secret: bytes, account: str, key: str) -> str:
    """The job id that this account's Idempotency-Key always gives, and nobody can guess without the boot's secret."""
    digest = hmac.digest(secret, f"{account}\0{key}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
