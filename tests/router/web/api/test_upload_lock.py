"""One upload per job at a time, whoever comes while another is still ending."""

from __future__ import annotations

import asyncio

import pytest

from router.core.errors import Problem
from router.web.api.upload_lock import Uploads, run_exclusively


class Desk:
    """Where only one may work; each takes a while to get up."""

    def __init__(self) -> None:
        self.at_work = 0
        self.most = 0
        self.ended_whole = 0

    async def work(self) -> None:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            self.at_work -= 1
            self.ended_whole += 1


async def test_of_many_who_come_at_once_only_one_works_and_each_ends_undisturbed() -> None:
    uploads: Uploads = {}
    desk = Desk()
    tasks = []
    for pause in (5, 0, 3, 1, 40, 2, 0, 0, 7):
        tasks.append(asyncio.create_task(run_exclusively(uploads, "x", desk.work)))
        for _ in range(pause):
            await asyncio.sleep(0)
    last = asyncio.create_task(run_exclusively(uploads, "x", _done))
    assert await last == "done"
    for overtaken in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(overtaken, Problem)
        assert overtaken.code == "upload_in_progress"
    assert (desk.at_work, desk.most) == (0, 1)
    assert desk.ended_whole >= 1
    assert uploads == {}


async def test_jobs_do_not_stand_in_each_others_way() -> None:
    uploads: Uploads = {}
    desk = Desk()
    tasks = [asyncio.create_task(run_exclusively(uploads, name, desk.work)) for name in "xy"]
    for _ in range(5):
        await asyncio.sleep(0)
    assert (desk.at_work, set(uploads)) == (2, {"x", "y"})
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert uploads == {}


async def test_what_goes_wrong_at_work_is_passed_on() -> None:
    async def broken() -> None:
        raise Problem("gone")

    with pytest.raises(Problem, match="No longer here"):
        await run_exclusively({}, "x", broken)


async def _done() -> str:
    return "done"
