"""Space in the spool for audio that is about to arrive, within what one file and one account may take.

It is taken before the first byte moves, so that an upload that has begun never fails for want of space.
"""

from __future__ import annotations

from typing import Any

from mastering.contract.kinds import JobKind
from router.core.errors import Problem
from router.core.settings import RouterSettings
from router.jobs import eviction
from router.jobs.services import Services
from router.spool.port import SpoolFull


async def reserve(
    services: Services, account: str, size_bytes: int, expires_s: float, beside: str | None = None
) -> str:
    """Reserve a blob of `size_bytes`, in the folder of the blob `beside` if one is named; its reference.

    Finished jobs are evicted where that makes the space. Raises Problem(spool_full, spool_share).
    """
    await _refuse_beyond_share(services, account, size_bytes)
    await eviction.evict(services, size_bytes)
    try:
        return await services.spool.reserve(size_bytes, expires_s, beside)
    except SpoolFull as full:
        raise Problem(
            "spool_full",
            "The temporary store has no room for this file. Try again in a minute.",
            retry_after_s=full.retry_after_s,
        ) from full


def allowed_bytes(settings: RouterSettings, kind: JobKind[Any]) -> int:
    """The size of the largest file that may be sent for a job of this kind."""
    return min(settings.max_bytes, kind.max_bytes or settings.max_bytes)


def refuse_too_large(services: Services, kind: JobKind[Any], size_bytes: int | None) -> None:
    """Raise Problem(too_large) if a file of `size_bytes` (None: unknown) is larger than an upload may be."""
    allowed = allowed_bytes(services.settings, kind)
    if size_bytes is not None and size_bytes > allowed:
        raise Problem(
            "too_large",
            f"The file has {size_bytes / 2**20:.0f} MiB; {allowed / 2**20:.0f} MiB are allowed."
            " Send FLAC instead of WAV, or split the file.",
            size_bytes=size_bytes,
            allowed_bytes=allowed,
        )


async def _refuse_beyond_share(services: Services, account: str, size_bytes: int) -> None:
    allowed = services.settings.share_bytes
    taken = sum(map(services.spool.reserved_bytes_of, await services.jobs.refs(account)))
    if taken + size_bytes > allowed:
        raise Problem(
            "spool_share",
            f"Your jobs take {taken / 2**20:.0f} MiB of the {allowed / 2**20:.0f} MiB that an account may have in the"
            f" temporary store; this would be {size_bytes / 2**20:.0f} MiB more. Delete a job, or wait for one to end.",
            retry_after_s=60,
            taken_bytes=taken,
            asked_bytes=size_bytes,
            allowed_bytes=allowed,
        )
