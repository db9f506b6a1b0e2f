"""How an endpoint reaches the rooms of the house, and the job that a request names."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from router.errors import Problem
from router.house import House
from router.jobs.model import Job
from router.jobs.ports import Missing, Versioned
from router.web.sign_in import Account, account_of


def house_of(request: Request) -> House:
    house: House = request.app.state.house
    return house


TheHouse = Annotated[House, Depends(house_of)]
TheAccount = Annotated[Account, Depends(account_of)]


async def owned_job(job_id: str, house: TheHouse, account: TheAccount) -> Versioned:
    """The job of the path, if it is this account's. Another's job is the same 404 as a missing one."""
    try:
        found = await house.jobs.get(job_id)
    except Missing:
        raise Problem("not_found", "There is no such job, or its record's time is over.") from None
    if found.job.account != account.id:
        raise Problem("not_found", "There is no such job, or its record's time is over.")
    return found


TheJob = Annotated[Versioned, Depends(owned_job)]


def visible_job(found: TheJob) -> Job:
    return found.job
