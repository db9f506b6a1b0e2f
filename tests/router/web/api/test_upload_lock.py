"""One upload per job at a time, also when a newer one comes while an older one is still ending."""

from __future__ import annotations

import asyncio

import pytest

from router.core.errors import Problem
from router.web.api.upload_lock import Uploads, run_exclusively


class FakeUpload:
    """An upload that never ends by itself and takes some turns of the event loop to be cancelled; counts its runs."""

    def __init__(self) -> None:
        self.running = 0
        self.most_at_once = 0
        self.ended = 0

    async def run(self) -> None:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            self.running -= 1
            self.ended += 1


async def test_of_many_who_come_at_once_only_one_works_and_each_ends_undisturbed() -> None:
    uploads: Uploads = {}
    upload = FakeUpload()
    tasks = []
    for pause in (5, 0, 3, 1, 40, 2, 0, 0, 7):
        tasks.append(asyncio.create_task(run_exclusively(uploads, "x", upload.run)))
        for _ in range(pause):
            await asyncio.sleep(0)
    last = asyncio.create_task(run_exclusively(uploads, "x", _done))
    assert await last == "done"
    for overtaken in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(overtaken, Problem)
        assert overtaken.code == "upload_in_progress"
    assert (upload.running, upload.most_at_once) == (0, 1)
    assert upload.ended >= 1
    assert uploads == {}


async def test_jobs_do_not_stand_in_each_others_way() -> None:
    uploads: Uploads = {}
    upload = FakeUpload()
    tasks = [asyncio.create_task(run_exclusively(uploads, name, upload.run)) for name in "xy"]
    for _ in range(5):
        await asyncio.sleep(0)
    assert (upload.running, set(uploads)) == (2, {"x", "y"})
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
