"""A job's changes as they happen: server-sent events, and waiting for the next change.

Every event is the whole view, so one that is lost or comes twice does no harm: the latest wins. The event's id is the
record's revision; who comes back with Last-Event-ID gets the job at once only if it has moved on since.
A stream ends with the session or token that it began with, at the latest at its next heartbeat.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from fastapi import Request

from router.core import clock
from router.core.errors import Problem
from router.jobs.services import Services
from router.store.port import JobMissing, Versioned
from router.web.api.views import is_over, shown_state, view
from router.web.auth import visitor_of

HEARTBEAT_S = 15.0
MAX_WAIT_S = 60.0
_LOOK_S = 5.0
"""So often it is seen whether whoever waits is still there."""


async def job_events(
    services: Services, found: Versioned, request: Request, last_event_id: str | None
) -> AsyncIterator[str]:
    job_id = found.job.id
    async with services.events.listen(job_id) as changes:
        seen = last_event_id or ""
        while await _may_still_see(request, found.job.account):
            try:
                job, revision = await services.jobs.get(job_id)
            except JobMissing:
                return
            if str(revision) != seen:
                seen = str(revision)
                shown = await view(services, job, revision)
                yield f"id: {revision}\nevent: job\ndata: {shown.model_dump_json()}\n\n"
            if is_over(shown_state(job)):
                return
            if not await changes.wait(HEARTBEAT_S):
                yield ": still here\n\n"
            if services.events.is_closing:  # the client comes back by itself, with Last-Event-ID
                return
            if await request.is_disconnected():
                return


async def _may_still_see(request: Request, account: str) -> bool:
    """Whether the session or token that the stream began with still stands: it may have been ended meanwhile."""
    try:
        return (await visitor_of(request)).id == account
    except Problem:
        return False


async def wait_for_change(services: Services, found: Versioned, wait_s: float, request: Request) -> None:
    """Until the job's state has changed, `wait_s` are over, or nobody waits any more."""
    before = shown_state(found.job)
    await _wait(services, found, wait_s, request, lambda shown: shown != before or is_over(before))


async def wait_for_master(services: Services, found: Versioned, wait_s: float, request: Request) -> None:
    """Until its master is made or it has ended without one, `wait_s` are over, or nobody waits any more."""
    await _wait(services, found, wait_s, request, is_over)


async def _wait(
    services: Services, found: Versioned, wait_s: float, request: Request, is_there: Callable[[str], bool]
) -> None:
    deadline_s = clock.now() + wait_s
    async with services.events.listen(found.job.id) as changes:
        while True:
            try:
                job, _ = await services.jobs.get(found.job.id)
            except JobMissing:
                return
            left_s = deadline_s - clock.now()
            if is_there(shown_state(job)) or left_s <= 0 or services.events.is_closing:
                return
            if not await changes.wait(min(left_s, _LOOK_S)) and await request.is_disconnected():
                return


def wait_of(prefer: str | None) -> float | None:
    """Seconds of `Prefer: wait=30` (RFC 7240 §4.3), as many as are granted; None where nobody wants to wait."""
    for part in (prefer or "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "wait" and value.isdecimal():
            return min(float(value), MAX_WAIT_S)
    return None


def applied(wait_s: float | None) -> dict[str, str]:
    """The header that says what was granted."""
    return {} if wait_s is None else {"preference-applied": f"wait={wait_s:.0f}"}
