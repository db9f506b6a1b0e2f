"""Work in threads: what it brings, and that it is never left alone with an open file."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import wait

import pytest

from router.core.threads import ThreadPool, result_of, run_in_thread, start_in_thread, wait_until_ended


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


async def test_work_that_fails_after_its_caller_was_cancelled_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """As a body's sender does, whose caller has hung up: the cancellation comes first, the thread's error after it."""
    started, go = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait(10)
        raise ConnectionError

    waiting = asyncio.create_task(run_in_thread(work))
    await asyncio.to_thread(started.wait, 10)
    waiting.cancel()
    await turns()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await turns()
    gc.collect()  # asyncio logs an error that nobody has looked at when its future goes
    assert [record.getMessage() for record in caplog.records] == []


def test_a_pool_runs_as_many_calls_at_once_as_it_has_threads_and_counts_those_that_have_not_ended() -> None:
    pool, go = ThreadPool("test", 1), threading.Event()
    first, second = pool.submit(go.wait, 10), pool.submit(go.wait, 10)
    assert (pool.unfinished, second.running()) == (2, False)
    go.set()
    assert (first.result(10), second.result(10)) == (True, True)
    wait([pool.submit(int)])  # whose thread has ended the two before
    assert pool.unfinished <= 1


def test_a_pool_of_another_size_ends_what_was_begun_in_the_old_one() -> None:
    pool, go, together = ThreadPool("test", 1), threading.Event(), threading.Barrier(2)
    before = pool.submit(go.wait, 10)
    pool.resize(2)
    both = [pool.submit(together.wait, 10) for _ in range(2)]
    assert sorted(one.result(10) for one in both) == [0, 1]
    assert not before.done()
    go.set()
    assert before.result(10)
    assert pool.threads == 2
