"""Places shared by account: turns go round, and a wait that is cancelled costs nobody a place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router.probe.shared_places import SharedPlaces


class Work:
    """Pieces of work that hold a place until they are told to end. A name's first letter is its account."""

    def __init__(self, places: SharedPlaces) -> None:
        self.places, self.began = places, list[str]()
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, *names: str) -> None:
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._work(name))
            await asyncio.sleep(0)

    async def _work(self, name: str) -> None:
        async with self.places.one(name[0]):
            self.began.append(name)
            await self._ends[name].wait()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)


@asynccontextmanager
async def work_in(places: int, share: int) -> AsyncIterator[Work]:
    work = Work(SharedPlaces(places, share))
    try:
        yield work
    finally:
        for task in work.tasks.values():
            task.cancel()
        await asyncio.gather(*work.tasks.values(), return_exceptions=True)
    assert (work.places._free, work.places._taken, work.places._waiting) == (places, {}, {})


async def test_a_place_is_left_for_whoever_comes_next() -> None:
    async with work_in(2, 1) as work:
        await work.begin("a1", "a2", "a3", "b1")
        assert work.began == ["a1", "b1"]


async def test_accounts_take_turns_however_much_each_has_sent() -> None:
    async with work_in(1, 1) as work:
        await work.begin("a1", "a2", "a3", "b1", "c1", "b2")
        for name in ("a1", "a2", "b1", "c1", "a3"):
            await work.end(name)
        assert work.began == ["a1", "a2", "b1", "c1", "a3", "b2"]


async def test_an_account_that_has_its_share_lets_others_pass_and_is_served_afterwards() -> None:
    async with work_in(3, 2) as work:
        await work.begin("a1", "a2", "a3", "b1", "b2")
        assert work.began == ["a1", "a2", "b1"]
        await work.end("b1")
        assert work.began[3:] == ["b2"]
        await work.end("a1")
        assert work.began[4:] == ["a3"]


async def test_a_cancelled_wait_is_passed_over() -> None:
    async with work_in(1, 1) as work:
        await work.begin("a1", "b1", "c1")
        work.tasks["b1"].cancel()
        await work.end("a1")
        assert work.began == ["a1", "c1"]


async def test_a_turn_that_comes_in_the_moment_of_its_cancellation_goes_to_the_next() -> None:
    async with work_in(1, 1) as work:
        with work.places.one_if_free("a"):
            await work.begin("b1", "c1")
        work.tasks["b1"].cancel()
        await asyncio.wait([work.tasks["b1"]])
        await asyncio.sleep(0)
        assert work.began == ["c1"]


async def test_a_place_that_is_not_free_is_not_waited_for() -> None:
    async with work_in(2, 1) as work:
        with work.places.one_if_free("a") as first, work.places.one_if_free("a") as second:
            assert (first, second) == (True, False)
            with work.places.one_if_free("b") as third, work.places.one_if_free("c") as fourth:
                assert (third, fourth) == (True, False)
