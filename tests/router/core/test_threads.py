"""Work in threads: what it brings, and that it is never left alone with an open file."""

from __future__ import annotations

import asyncio
import threading

import pytest

from router.core.threads import result_of, run_in_thread, start_in_thread, wait_until_ended


async def turns() -> None:
    """As many turns of the loop as a cancellation could take."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_a_thread_returns_or_raises_comes_back() -> None:
    ended = start_in_thread(lambda: 1)
    assert await result_of(ended) == await result_of(ended) == 1
    with pytest.raises(ZeroDivisionError):
        await result_of(start_in_thread(lambda: 1 / 0))
    assert await run_in_thread(int, "7") == 7


async def test_who_stops_waiting_for_it_comes_back_when_it_has_ended() -> None:
    started, go, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait(10)
        done.set()

    waiting = asyncio.create_task(run_in_thread(work))
    await asyncio.to_thread(started.wait, 10)
    for _ in range(2):  # whoever cancels, and again
        waiting.cancel()
        await turns()
        assert not waiting.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done.is_set()


async def test_work_that_fails_while_nobody_waits_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()

    def work() -> None:
        go.wait(10)
        raise OSError

    running = start_in_thread(work)
    settling = asyncio.create_task(wait_until_ended(running))
    await turns()
    assert not settling.done()
    go.set()
    await settling
    assert isinstance(running.exception(), OSError)
    assert caplog.records == []
