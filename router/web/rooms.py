"""How an endpoint reaches the rooms of the house, and the job that a request names."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request

from router import clock
from router.errors import Problem
from router.house import House
from router.jobs.ports import Missing, Versioned
from router.web.sign_in import Account, account_of, owner_of, visitor_of
from router.web.streams import Streams


# Dependencies are coroutines even where they await nothing: FastAPI sends every other function to a thread.
async def house_of(request: Request) -> House:
    house: House = request.app.state.house
    return house


async def streams_of(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


TheHouse = Annotated[House, Depends(house_of)]
TheStreams = Annotated[Streams, Depends(streams_of)]
TheAccount = Annotated[Account, Depends(account_of)]
TheOwner = Annotated[Account, Depends(owner_of)]
TheVisitor = Annotated[Account, Depends(visitor_of)]
NOT_FOUND_S = 0.025
"""When a 404 for a job is said, counted from the question: long enough to read any record and find it another's."""


async def owned_job(job_id: str, house: TheHouse, account: TheAccount) -> Versioned:
    """The job of the path, if it is this account's. Another's job is the same 404 as a missing one, word and time."""
    due_s = clock.now() + NOT_FOUND_S
    with suppress(Missing):
        found = await house.jobs.get(job_id)
        if found.job.account == account.id:
            return found
    await asyncio.sleep(due_s - clock.now())
    raise Problem("not_found", "There is no such job, or its record's time is over.")


TheJob = Annotated[Versioned, Depends(owned_job)]
