"""A job's changes over HTTP: as server-sent events, or by requests that wait for the next one (`Prefer: wait`).

Every event is the whole job, so that one lost or sent twice does no harm: the latest wins. The event's id is the
record's revision; a client that comes back with Last-Event-ID gets the job at once only if it has changed since.
A stream ends with the session or token that it began with, at the latest at its next heartbeat.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from urllib.request import parse_http_list

from fastapi import Request

from router.core import clock
from router.core.errors import Problem
from router.jobs.services import Services
from router.store.port import JobEvents, JobMissing, Jobs, Versioned
from router.store.state import JobState
from router.web.api.views import is_over, shown_state, view
from router.web.auth import visitor_of

_QUEUE_LOOK_S = 2.0
"""Seconds between two looks at what a waiting job waits for, which changes without the job."""
HEARTBEAT_S = 15.0
"""Seconds without a change after which a comment is sent: proxies keep the connection, a gone client is noticed."""
MAX_WAIT_S = 60.0
"""Longest `Prefer: wait` that is granted: proxies commonly give up on an answer after a minute."""
_DISCONNECT_CHECK_S = 5.0
"""Seconds between two looks whether the client of a waiting request is still connected."""


async def job_events(
    services: Services, found: Versioned, request: Request, last_event_id: str | None
) -> AsyncIterator[str]:
    """The job's view as server-sent events, from `last_event_id` on, until it is over or must not be seen any more."""
    job_id = found.job.id
    async with services.events.subscribe(job_id) as changes:
        seen, waits_for = last_event_id or "", ""
        heard_s = clock.now()
        while await _may_still_see(request, found.job.account):
            try:
                job, revision = await services.jobs.get(job_id)
            except JobMissing:
                return
            is_queued = job.state is JobState.QUEUED
            shown = await view(services, job, revision) if is_queued or str(revision) != seen else None
            reason = shown.queue.reason if shown and shown.queue else ""
            if shown and (str(revision) != seen or reason != waits_for):
                seen, waits_for, heard_s = str(revision), reason, clock.now()
                yield f"id: {revision}\nevent: job\ndata: {shown.model_dump_json()}\n\n"
            if is_over(shown_state(job)):
                return
            is_changed = await changes.wait(min(_QUEUE_LOOK_S, HEARTBEAT_S) if is_queued else HEARTBEAT_S)
            if not is_changed and clock.now() - heard_s >= HEARTBEAT_S:
                heard_s = clock.now()
                yield ": still here\n\n"
            if services.events.is_closing:  # the client comes back by itself, with Last-Event-ID
                return
            if await request.is_disconnected():
                return


async def _may_still_see(request: Request, account: str) -> bool:
    """Whether the session or token that the stream began with is still valid."""
    try:
        return (await visitor_of(request)).id == account
    except Problem:
        return False


async def wait_for_change(services: Services, found: Versioned, wait_s: float, request: Request) -> None:
    """Wait until the job's state has changed, `wait_s` are over, or the client has left."""
    before = shown_state(found.job)

    def is_reached(shown: str) -> bool:
        return shown != before or is_over(before)

    await _wait(services.jobs, services.events, found, wait_s, request, is_reached)


async def wait_for_master(services: Services, found: Versioned, wait_s: float, request: Request) -> None:
    """Wait until the job is mastered or has ended, `wait_s` are over, or the client has left."""
    await _wait(services.jobs, services.events, found, wait_s, request, is_over)


async def _wait(
    jobs: Jobs, events: JobEvents, found: Versioned, wait_s: float, request: Request, is_reached: Callable[[str], bool]
) -> None:
    deadline_s = clock.now() + wait_s
    async with events.subscribe(found.job.id) as changes:
        while True:
            try:
                job, _ = await jobs.get(found.job.id)
            except JobMissing:
                return
            left_s = deadline_s - clock.now()
            if is_reached(shown_state(job)) or left_s <= 0 or events.is_closing:
                return
            if not await changes.wait(min(left_s, _DISCONNECT_CHECK_S)) and await request.is_disconnected():
                return


def granted_wait_s(prefer: list[str] | None) -> float | None:
    """Seconds of `Prefer: wait=30` (RFC 7240 §4.3), MAX_WAIT_S at most; None without that preference."""
    for part in parse_http_list(", ".join(prefer or ())):
        name, _, value = part.partition(";")[0].partition("=")
        if name.strip().lower() == "wait" and (seconds := value.strip().strip('"')).isdecimal():
            return min(float(seconds), MAX_WAIT_S)
    return None


def preference_applied(wait_s: float | None) -> dict[str, str]:
    """The header Preference-Applied for a granted wait."""
    return {} if wait_s is None else {"preference-applied": f"wait={wait_s:.0f}"}
