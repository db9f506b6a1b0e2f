"""FastAPI dependencies of the routes: the router's services, the account of a request, and the job that it names."""

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
from router.web.stream_limits import Downloads, Streams


class _Authenticated(SecurityBase):
    """Base of dependencies that need the account, so that the OpenAPI schema names the token they accept."""

    model = HTTPBearer(description="A personal token from the account page, `mr_…`.")
    scheme_name = "HTTPBearer"


class _AccountBy(_Authenticated):
    """The request's account, as a function of `web.auth` finds it."""

    def __init__(self, find: Callable[[Request], Awaitable[Account]]) -> None:
        self._find = find

    async def __call__(self, request: Request) -> Account:
        return await self._find(request)


class _OwnedJob(_Authenticated):
    """The job of the path's `job_id`, if it is the account's."""

    async def __call__(self, request: Request, job_id: str) -> Versioned:
        return await owned_job(await services_of(request), await account_of(request), job_id)


# None depends on another: FastAPI takes as long to resolve one as to read a job's record, once each time it is named.
# All are coroutines, also where they await nothing: FastAPI runs any other function in a thread.
async def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def streams_of(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


async def downloads_of(request: Request) -> Downloads:
    downloads: Downloads = request.app.state.downloads
    return downloads


TheServices = Annotated[Services, Depends(services_of)]
TheStreams = Annotated[Streams, Depends(streams_of)]
TheDownloads = Annotated[Downloads, Depends(downloads_of)]
TheAccount = Annotated[Account, Depends(_AccountBy(account_of))]
TheOwner = Annotated[Account, Depends(_AccountBy(owner_of))]
TheVisitor = Annotated[Account, Depends(_AccountBy(visitor_of))]
TheJob = Annotated[Versioned, Depends(_OwnedJob())]
NOT_FOUND_S = 0.025
"""Seconds from the request to a 404 for a job: longer than it takes to read any record and find it another's, so that
the time does not tell the two apart."""


async def owned_job(services: Services, account: Account, job_id: str) -> Versioned:
    """The job, if it is this account's.

    Raises Problem(not_found), in the same words and after the same time for another's job as for a missing one.
    """
    due_s = clock.now() + NOT_FOUND_S
    with suppress(JobMissing):
        found = await services.jobs.get(job_id)
        if found.job.account == account.id:
            return found
    await asyncio.sleep(due_s - clock.now())
    raise Problem("not_found", "There is no such job, or its record's time is over.")


async def owned_job_again(request: Request, found: Versioned) -> Versioned:
    """The job as it is now, after a wait in which the request's session or token may have ended. Raises Problem."""
    return await owned_job(await services_of(request), await account_of(request), found.job.id)
