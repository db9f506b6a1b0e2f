"""The silence limit of an attempt: it holds for each wait, and takes nobody else's cancellation for its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mastering.contract import OutputFormat, Stage
from router.dispatch.watchdog import SLOWEST_UPLOAD_BYTES_PER_S, Watchdog
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, OutputStarted, RenderProgress, TierEvent

ACCEPTED = Accepted("scripted")


async def after(*delays_s: float) -> AsyncGenerator[TierEvent]:
    """One event after each delay."""
    for n, delay_s in enumerate(delays_s):
        await asyncio.sleep(delay_s)
        yield RenderProgress(Stage.RENDER, n / 100) if n else ACCEPTED


@asynccontextmanager
async def silent() -> AsyncIterator[None]:
    """What happens inside must end as the backend's silence."""
    with pytest.raises(TierFault, match="fell silent") as raised:
        yield
    assert raised.value.fault_class is FaultClass.CRASH


async def drained(events: AsyncGenerator[TierEvent]) -> int:
    return len([event async for event in events])


async def test_a_wait_ends_when_its_time_is_over_however_many_there_were_before() -> None:
    began_s = time.monotonic()
    async with silent():
        await drained(Watchdog(0.1, 0, 60.0).watched(after(*[0.01] * 20, 60)))
    assert 0.09 + 20 * 0.01 < time.monotonic() - began_s < 1.5
    await asyncio.sleep(0)  # the task is not cancelled any more


async def test_the_limit_is_shorter_once_the_song_has_been_sent() -> None:
    events = Watchdog(0.05, 60 * SLOWEST_UPLOAD_BYTES_PER_S, 60.0).watched(after(0.1, 60))
    assert await anext(events) == ACCEPTED
    async with silent():
        await anext(events)


async def test_between_two_waits_time_does_not_count() -> None:
    events = Watchdog(0.05, 0, 60.0).watched(after(0.0, 0.01))
    await anext(events)
    await asyncio.sleep(0.1)
    assert isinstance(await anext(events), RenderProgress)


async def test_a_cancellation_from_outside_is_no_silence() -> None:
    task = asyncio.create_task(drained(Watchdog(60.0, 0, 60.0).watched(after(60))))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_watched_may_fail_in_its_own_way() -> None:
    async def fails() -> AsyncGenerator[TierEvent]:
        yield ACCEPTED
        raise LookupError

    with pytest.raises(LookupError):
        await drained(Watchdog(60.0, 0, 60.0).watched(fails()))


async def test_a_silence_that_turns_into_something_else_leaves_no_cancellation_behind() -> None:
    async def gives_up() -> AsyncGenerator[TierEvent]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            yield ACCEPTED

    async def ends() -> AsyncGenerator[TierEvent]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return
        yield ACCEPTED

    async def breaks() -> AsyncGenerator[TierEvent]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise LookupError from None
        yield ACCEPTED

    task = asyncio.current_task()
    assert task is not None
    async with silent():
        await drained(Watchdog(0.01, 0, 60.0).watched(gives_up()))
    assert task.cancelling() == 0
    assert await drained(Watchdog(0.01, 0, 60.0).watched(ends())) == 0
    assert task.cancelling() == 0
    with pytest.raises(LookupError):
        await drained(Watchdog(0.01, 0, 60.0).watched(breaks()))
    assert task.cancelling() == 0
    async with silent():
        await drained(Watchdog(0.01, 0, 60.0).watched(after(60)))
    assert task.cancelling() == 0


async def test_within_an_outer_timeout_both_hold() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await drained(Watchdog(60.0, 0, 60.0).watched(after(60)))
    async with asyncio.timeout(60) as outer, silent():
        await drained(Watchdog(0.05, 0, 60.0).watched(after(60)))
    assert not outer.expired()


async def test_upload_render_and_fetch_are_timed_apart() -> None:
    async def master() -> AsyncGenerator[TierEvent]:
        yield ACCEPTED
        await asyncio.sleep(0.02)
        yield OutputStarted(OutputFormat.WAV24, 1)
        yield OutputStarted(OutputFormat.MP3, 1)

    watchdog = Watchdog(60.0, 0, 60.0)
    assert watchdog.timing() == (None, None, None)
    await drained(watchdog.watched(master()))
    upload_s, render_s, fetch_s = watchdog.timing()
    assert upload_s is not None
    assert render_s is not None
    assert fetch_s is not None
    assert render_s >= 0.02 > fetch_s, "the first output ends the render"
