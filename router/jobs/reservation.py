"""Room in the spool for what is about to arrive, within what an account may take."""

from __future__ import annotations

from router.core.errors import Problem
from router.jobs import lifecycle
from router.jobs.services import Services
from router.spool.port import SpoolFull


async def reserve(
    services: Services, account: str, size_bytes: int, expires_s: float, beside: str | None = None
) -> str:
    """Room in the spool, the oldest finished jobs making way if need be. Raises Problem(spool_full, spool_share)."""
    await _refuse_beyond_share(services, account, size_bytes)
    await lifecycle.evict(services, size_bytes)
    try:
        return await services.spool.reserve(size_bytes, expires_s, beside)
    except SpoolFull as full:
        raise Problem(
            "spool_full",
            "The temporary store has no room for this file. Try again in a minute.",
            retry_after_s=full.retry_after_s,
        ) from full


async def _refuse_beyond_share(services: Services, account: str, size_bytes: int) -> None:
    allowed = services.settings.share_bytes
    taken = sum(map(services.spool.room_of, await services.jobs.refs(account)))
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
