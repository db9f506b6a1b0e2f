"""Many short waits by one timer: none lasts longer than it may, and nobody else's cancellation is taken for its end."""

from __future__ import annotations

import asyncio
import time

import pytest

from router.dispatch.patience import Patience


async def test_a_wait_ends_when_its_time_is_over_however_many_there_were_before() -> None:
    patience = Patience()
    for _ in range(20):
        assert await patience.wait(asyncio.sleep(0.01, "here"), 0.1) == "here"
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await patience.wait(asyncio.sleep(60), 0.1)
    assert 0.09 < time.monotonic() - began < 1
    await asyncio.sleep(0)  # the task is not cancelled any more
    patience.close()


async def test_a_shorter_limit_after_a_longer_one_holds() -> None:
    patience = Patience()
    await patience.wait(asyncio.sleep(0), 60)
    with pytest.raises(TimeoutError):
        await patience.wait(asyncio.sleep(60), 0.05)
    patience.close()


async def test_between_two_waits_time_does_not_count() -> None:
    patience = Patience()
    await patience.wait(asyncio.sleep(0), 0.05)
    await asyncio.sleep(0.1)
    assert await patience.wait(asyncio.sleep(0.01, "here"), 0.05) == "here"
    patience.close()


async def test_a_cancellation_from_outside_is_none_of_its_business() -> None:
    async def waits() -> None:
        await Patience().wait(asyncio.sleep(60), 60)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_waited_for_may_fail_in_its_own_way() -> None:
    async def fails() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await Patience().wait(fails(), 60)


async def test_an_end_that_turns_into_something_else_leaves_no_cancellation_behind() -> None:
    async def gives_up() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "given up"
        return "slept"

    async def breaks() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise LookupError from None

    patience, task = Patience(), asyncio.current_task()
    assert task is not None
    assert await patience.wait(gives_up(), 0.01) == "given up"
    assert task.cancelling() == 0
    with pytest.raises(LookupError):
        await patience.wait(breaks(), 0.01)
    assert task.cancelling() == 0
    with pytest.raises(TimeoutError):
        await patience.wait(asyncio.sleep(60), 0.01)
    assert task.cancelling() == 0
    patience.close()


async def test_within_an_outer_timeout_both_hold() -> None:
    patience = Patience()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await patience.wait(asyncio.sleep(60), 60)
    async with asyncio.timeout(60) as outer:
        with pytest.raises(TimeoutError):
            await patience.wait(asyncio.sleep(60), 0.05)
    assert not outer.expired()
    patience.close()
