"""Uploads, HTTP aside: where a song's or a reference's bytes go, how many have arrived, and what may be wrong.

The routes (raw PUT, tus, references) take the bytes from their requests; what they note on the job's record, and the
errors they answer with, are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from mastering.contract import Facts
from router.core.errors import Problem
from router.core.settings import RouterSettings
from router.jobs import intake
from router.jobs.kinds import kind_of
from router.jobs.reservation import allowed_bytes, reserve
from router.jobs.services import Services
from router.probe.stream_tap import StreamTap
from router.spool.port import BlobGone, Blobs, SpoolFull, WrongOffset
from router.store.port import JobMissing
from router.store.record import BlobRef, Job
from router.store.state import JobState

MAX_REFERENCES = 4
"""References a job may have; each is a whole file in the spool beside the song."""


def total_bytes(job: Job, offset: int, content_length: int | None) -> int | None:
    """Size of the whole file as far as the client said it. Raises Problem when it said two sizes."""
    sent = None if content_length is None else offset + content_length
    if job.size_bytes is None:
        return sent
    if sent is not None and sent > job.size_bytes:
        raise Problem(
            "bad_request",
            f"The job announced {job.size_bytes} bytes; this request would make it {sent}.",
            announced_bytes=job.size_bytes,
            sent_bytes=sent,
        )
    return job.size_bytes


async def arrived_bytes(spool: Blobs, job: Job) -> int:
    """How much of the job's audio has arrived, also where it was destroyed since. Raises Problem(gone)."""
    if job.state is not JobState.RECEIVED:
        return job.size_bytes or 0
    try:
        return (await spool.extent(job.input.ref)).size_bytes if job.input else 0
    except BlobGone:
        raise _lost() from None


async def input_blob(services: Services, job_id: str, offset: int | None, total: int | None) -> str:
    """The blob that an upload from `offset` on is written to: the one it continues, or a new one of `total` bytes.

    With offset None, a plain PUT, the song is sent from its start and what came before is dropped. Raises Problem.
    """
    job, _ = await services.jobs.get(job_id)
    if job.state is not JobState.RECEIVED:  # another request brought the last byte while this one waited its turn
        raise upload_closed(job)
    if job.input and (offset is not None or await arrived_bytes(services.spool, job) == 0):
        return job.input.ref
    if job.input:
        await services.spool.drop(job.input.ref)
    ref = await reserve(
        services, job.account, allowed_bytes(services.settings, kind_of(job)) if total is None else total, job.expires_s
    )

    def note(current: Job) -> Job | None:
        return current.with_(input=BlobRef(ref=ref, size_bytes=0)) if current.state is JobState.RECEIVED else None

    noted = await services.change(job.id, note)
    if noted.input is None or noted.input.ref != ref:
        await services.spool.drop(ref)
        raise upload_closed(noted)
    return ref


async def complete(services: Services, job_id: str, size_bytes: int, tap: StreamTap[Facts] | None) -> None:
    """Note that the song's last byte has come, have it probed (`tap`: what read it on arrival) and queue the job.

    Raises Problem.
    """
    job = await services.change(job_id, lambda job: intake.spooled(job, size_bytes))
    if job.state is not JobState.SPOOLED:
        raise upload_closed(job)
    await intake.probe_and_enqueue(services, job_id, tap)


async def note_reference(services: Services, job: Job, number: int, blob: BlobRef) -> BlobRef | None:
    """Put the reference on the job's record; the one of the same number that it replaces, if any.

    Raises Problem when the song was complete before; the reference is dropped then.
    """
    replaced: BlobRef | None = None

    def note(current: Job) -> Job | None:
        nonlocal replaced
        if current.state is not JobState.RECEIVED:
            return None
        replaced = current.references.get(number)
        return current.with_(references={**current.references, number: blob})

    noted = await services.change(job.id, note)
    if noted.references.get(number) != blob:
        await services.spool.drop(blob.ref)
        raise upload_closed(noted)
    return replaced if replaced is not None and replaced.ref != blob.ref else None


async def forget_reference(services: Services, job: Job, number: int, blob: BlobRef) -> None:
    """Drop a reference whose upload or probe failed, and take it off the record."""
    await services.spool.drop(blob.ref)

    def forget(current: Job) -> Job | None:
        there = current.references.get(number)
        if there is None or there.ref != blob.ref:
            return None
        return current.with_(references={n: kept for n, kept in current.references.items() if n != number})

    with suppress(JobMissing):
        await services.change(job.id, forget)


@asynccontextmanager
async def spool_errors_as_problems(services: Services) -> AsyncIterator[None]:
    """A block that writes a request's body to the spool; what goes wrong there leaves it as a Problem."""
    try:
        yield
    except WrongOffset as wrong:
        raise Problem(
            "offset_mismatch",
            f"{wrong.offset_bytes} bytes have arrived: continue there.",
            offset_bytes=wrong.offset_bytes,
        ) from None
    except BlobGone:
        raise _lost() from None
    except SpoolFull as full:
        raise _full(services.settings, full) from None
    except asyncio.CancelledError:
        if services.events.is_closing:
            raise Problem("draining", "What has arrived is kept: continue the upload when it is back.") from None
        raise


def upload_closed(job: Job) -> Problem:
    """The answer to an upload for a job that takes none any more: it has its song, or has ended."""
    if job.error:
        return ended(job)
    return Problem("not_ready", f"The upload is complete; the job is {job.state}.", state=str(job.state))


def ended(job: Job) -> Problem:
    """The answer to a request that wants something of a job that has failed."""
    return Problem("gone", f"This job has ended: {(job.error or {}).get('detail', '')}")


def _lost() -> Problem:
    return Problem("gone", "What had arrived of this upload is gone. Make a new job.")


def _full(settings: RouterSettings, full: SpoolFull) -> Problem:
    if full.retry_after_s == 0:
        allowed = settings.max_bytes
        return Problem("too_large", f"More came than was announced, or than the {allowed / 2**20:.0f} MiB allowed.")
    return Problem(
        "spool_full", "The temporary store is full. Try again in a minute.", retry_after_s=full.retry_after_s
    )
