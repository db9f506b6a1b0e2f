"""How an endpoint reaches the rooms of the house, and the job that a request names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from router.core import clock
from router.core.errors import Problem
from router.identity.account import Account
from router.jobs.services import Services
from router.store.port import JobMissing, Versioned
from router.web.auth import account_of, owner_of, visitor_of
from router.web.stream_limits import Streams


class _Asks(SecurityBase):
    """A dependency that wants to know who asks, for the API's description."""

    model = HTTPBearer(description="A personal token from the account page, `mr_…`.")
    scheme_name = "HTTPBearer"


class _Who(_Asks):
    def __init__(self, who: Callable[[Request], Awaitable[Account]]) -> None:
        self._who = who

    async def __call__(self, request: Request) -> Account:
        return await self._who(request)


class _TheirJob(_Asks):
    async def __call__(self, request: Request, job_id: str) -> Versioned:
        return await owned_job(await services_of(request), await account_of(request), job_id)


# None rests on another: FastAPI takes as long to solve one as to read a job's record, once for each time it is named.
# All are coroutines, also where they await nothing: it sends every other function to a thread.
async def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def streams_of(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


TheServices = Annotated[Services, Depends(services_of)]
TheStreams = Annotated[Streams, Depends(streams_of)]
TheAccount = Annotated[Account, Depends(_Who(account_of))]
TheOwner = Annotated[Account, Depends(_Who(owner_of))]
TheVisitor = Annotated[Account, Depends(_Who(visitor_of))]
TheJob = Annotated[Versioned, Depends(_TheirJob())]
NOT_FOUND_S = 0.025
"""When a 404 for a job is said, counted from the question: long enough to read any record and find it another's."""


async def owned_job(services: Services, account: Account, job_id: str) -> Versioned:
    """The job, if it is this account's. Another's job is the same 404 as a missing one, word and time."""
    due_s = clock.now() + NOT_FOUND_S
    with suppress(JobMissing):
        found = await services.jobs.get(job_id)
        if found.job.account == account.id:
            return found
    await asyncio.sleep(due_s - clock.now())
    raise Problem("not_found", "There is no such job, or its record's time is over.")


async def seen_again(request: Request, found: Versioned) -> Versioned:
    """The job as it is now, after a while in which who asks may have lost what they showed."""
    return await owned_job(await services_of(request), await account_of(request), found.job.id)
