"""Makes jobs: checks what is asked for, refuses what can't be done, reserves space for the upload, stores the record.

The JSON route and tus both make jobs here, so that an upload is refused for the same reasons whichever it came by.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from contextlib import suppress
from typing import Annotated

from pydantic import Field

from mastering.contract import Fault, Settings
from mastering.contract.presets import check
from router.core import clock
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


class NewJob(Settings):
    """What is wanted, and how large the file will be: enough to refuse before a byte of audio moves."""

    size_bytes: Annotated[int | None, Field(ge=0, le=2**53, description="Size of the file that will be sent.")] = None
    managed_only: Annotated[bool, Field(description="Never leave our own workers, whatever is down.")] = False

    def settings(self) -> Settings:
        """The mastering settings alone, each output format named once."""
        values = {name: getattr(self, name) for name in Settings.model_fields}
        return Settings(**{**values, "outputs": tuple(dict.fromkeys(self.outputs))})


async def create_job(services: Services, account: str, new: NewJob, idempotency_key: str | None) -> Versioned:
    """A new job of the account, or the one that it made before with the same `idempotency_key`.

    Space for an upload of known size is reserved. Raises Problem.
    """
    _check(services, new)
    job_id = _keyed_id(services, account, idempotency_key) if idempotency_key else new_id()
    with suppress(JobMissing):
        return _checked_same(await services.jobs.get(job_id), new)
    await _refuse_too_many(services, account)
    managed_only = new.managed_only or services.accounts.managed_only(account, services.tiers_version())
    await admission.admit(services, new.size_bytes, managed_only=managed_only)
    now = clock.now()
    expires_s = now + services.settings.output_ttl_s
    job = Job(
        id=job_id,
        account=account,
        owner=services.owner.router,
        settings=new.settings(),
        managed_only=managed_only,
        created_s=now,
        expires_s=expires_s,
        size_bytes=new.size_bytes,
        input=await _reserved_input(services, account, new.size_bytes, expires_s),
    )
    made = await services.jobs.create(job, RECORD_TTL_S)
    if made.job != job and job.input:  # another request with the same key was quicker
        await services.spool.drop(job.input.ref)
    return _checked_same(made, new)


def refuse_managed_only(services: Services, *, managed_only: bool) -> None:
    """Raise Problem(bad_settings) where "our own workers only" is asked of a router that can't keep to it."""
    if managed_only and not services.offers_managed_only:
        raise Problem("bad_settings", MANAGED_ONLY_NOT_OFFERED, field="managed_only")


def _check(services: Services, new: NewJob) -> None:
    try:
        check(new)
    except Fault as fault:
        raise Problem(fault.code, fault.message, **fault.numbers) from None
    refuse_too_large(services, new.size_bytes)
    refuse_managed_only(services, managed_only=new.managed_only)


def _checked_same(found: Versioned, new: NewJob) -> Versioned:
    """The job of an Idempotency-Key. Raises Problem if it was made with other settings."""
    if found.job.settings != new.settings() or (new.managed_only and not found.job.managed_only):
        raise Problem("idempotency_conflict", "This Idempotency-Key was used with other settings. Use a new one.")
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


def _keyed_id(services: Services, account: str, key: str) -> str:
    """The job id that this account's Idempotency-Key always gives, and nobody can guess without the boot's secret."""
    digest = hmac.digest(services.secret, f"{account}\0{key}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
