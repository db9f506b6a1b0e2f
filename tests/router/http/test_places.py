"""Connections are few: who neither reads nor sends loses the place, first of all when others need it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.http.connection import _MOST_AHEAD, RouterConnection
from router.tiers.fake import FakeBackend
from tests.probes import until
from tests.served import Served, served
from tests.services import mastering

STALL_S = 1.0
LARGE = os.urandom(6_000_000)


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Served]:
    settings = {"response_stall_s": STALL_S, "response_bytes_per_s": 100_000}
    async with served(tmp_path, [FakeBackend("a", [mastering(LARGE)])], **settings) as router:
        yield router


@pytest.fixture(autouse=True)
def closed_before() -> Iterator[None]:
    before = RouterConnection.closed.copy()
    RouterConnection.closed.update(dict.fromkeys(before, 0))
    for why in before:
        RouterConnection.closed[why] = 0
    yield
    RouterConnection.closed.update(before)


async def _large_master(router: Served) -> str:
    job = await router.over((await router.send())["id"])
    return str(job["outputs"][0]["url"])


@contextmanager
def _caller(router: Served, request: bytes) -> Iterator[socket.socket]:
    """A connection with the smallest receive buffer, on which this was sent."""
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_304)
        caller.connect(("127.0.0.1", router.port))
        caller.sendall(request)
        caller.settimeout(10)
        yield caller


def _get(router: Served, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"host: 127.0.0.1:{router.port}", *lines, "", ""]).encode()


async def _is_ended(caller: socket.socket) -> bool:
    """Whether the router ended the connection; what has come before that is read."""

    def read() -> bool:
        try:
            while caller.recv(1_000_000):
                pass
        except ConnectionResetError:
            return True
        return False

    return await asyncio.to_thread(read)


@pytest.mark.parametrize("by_thread", [True, False], ids=["by a thread", "by ASGI"])
async def test_a_response_that_nobody_reads_is_ended(
    router: Served, monkeypatch: pytest.MonkeyPatch, by_thread: bool
) -> None:
    async def nothing(*_: object) -> None:
        return None

    if not by_thread:
        monkeypatch.setattr(RouterConnection, "_send_body", nothing)
    address = await _large_master(router)
    with _caller(router, _get(router, address)) as caller:
        await until(lambda: RouterConnection.closed["unread"] == 1)
        assert await _is_ended(caller)
    await until(lambda: not router.app.state.downloads._open)


async def test_a_caller_who_reads_less_than_the_least_rate_is_ended_too(router: Served) -> None:
    address = await _large_master(router)
    with _caller(router, _get(router, address)) as caller:
        for _ in range(100):
            await asyncio.sleep(0.1)
            if RouterConnection.closed["unread"]:
                break
            caller.recv(2_000)
        assert RouterConnection.closed["unread"] == 1


async def test_small_responses_that_nobody_reads_are_ended_with_their_connection(router: Served) -> None:
    """Whole in the program's and the kernel's buffers, on a connection that both sides want to keep."""
    with _caller(router, 20 * _get(router, "/v1/options")):
        await until(lambda: RouterConnection.count_open() == 1)
        async with asyncio.timeout(15):
            while RouterConnection.count_open():  # noqa: ASYNC110 — bounded
                await asyncio.sleep(0.05)


async def test_a_caller_who_reads_slowly_but_at_the_least_rate_gets_all_of_it(router: Served) -> None:
    address = await _large_master(router)
    with _caller(router, _get(router, address, "connection: close")) as caller:
        got, began = 0, asyncio.get_running_loop().time()
        while piece := await asyncio.to_thread(caller.recv, 2_000_000):
            got += len(piece)
            ahead_s = got / 2_000_000 - (asyncio.get_running_loop().time() - began)
            await asyncio.sleep(max(0.0, min(0.3, ahead_s)))
    assert got > len(LARGE)
    assert asyncio.get_running_loop().time() - began > 2 * STALL_S
    assert not RouterConnection.closed["unread"]


async def test_an_event_stream_on_which_little_happens_and_a_long_wait_go_on(router: Served) -> None:
    job = await router.create()
    async with router.events(job["id"]) as events:
        await anext(events)
        waiting = asyncio.create_task(router.http.get(f"/v1/jobs/{job['id']}", headers={"prefer": "wait=20"}))
        await asyncio.sleep(3 * STALL_S)
        await router.http.delete(f"/v1/jobs/{job['id']}")
        assert (await waiting).status_code == 200
        assert [shown["state"] async for _, shown in events][-1] == "cancelled"
    assert not any(RouterConnection.closed.values())


async def test_an_event_stream_that_nobody_reads_is_ended(router: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.web.api.events.HEARTBEAT_S", 0.0005)
    job = await router.create()
    with _caller(router, _get(router, f"/v1/jobs/{job['id']}", "accept: text/event-stream")):
        await until(lambda: router.app.state.streams._open.total() == 1)
        async with asyncio.timeout(20):
            while router.app.state.streams._open:  # noqa: ASYNC110 — bounded
                await asyncio.sleep(0.05)
    assert RouterConnection.closed["unread"] == 1


@pytest.fixture
def four_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RouterConnection, "most_open", 4)
    monkeypatch.setattr(RouterConnection, "stall_s", 60.0)


async def _stranger(router: Served) -> int:
    reader, writer = await router.raw(_get(router, "/v1/health", "connection: close"))
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return int(answer.split()[1])


async def test_the_longest_unread_response_makes_room_and_those_that_are_read_stay(
    tmp_path: Path, four_places: None
) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering(LARGE)])], streams_per_account=50) as router:
        address = await _large_master(router)
        job = await router.create()
        async with router.events(job["id"]) as events:
            await anext(events)
            with (
                _caller(router, _get(router, address, "connection: close")) as reading,
                _caller(router, _get(router, address)) as first,
                _caller(router, _get(router, address)),
            ):
                await until(lambda: router.app.state.downloads._open.total() == 3)
                got = 0
                while got < 1_000_000:
                    got += len(await asyncio.to_thread(reading.recv, 100_000))
                await asyncio.sleep(0.5)
                while got < 3_000_000:
                    got += len(await asyncio.to_thread(reading.recv, 100_000))
                await until(lambda: RouterConnection.count_open() <= 4)
                assert await _stranger(router) == 200
                assert RouterConnection.closed["evicted"] == 1
                assert await _is_ended(first)
                while piece := await asyncio.to_thread(reading.recv, 1_000_000):
                    got += len(piece)
                assert got > len(LARGE)
            await router.http.delete(f"/v1/jobs/{job['id']}")
            assert [shown["state"] async for _, shown in events][-1] == "cancelled"


async def test_a_body_that_does_not_come_makes_room(router: Served, four_places: None) -> None:
    head = f"POST /v1/jobs HTTP/1.1\r\nhost: 127.0.0.1:{router.port}\r\ncontent-type: application/json\r\n"
    waiting = f"{head}content-length: 100\r\n\r\n".encode()
    with (
        _caller(router, waiting) as first,
        _caller(router, waiting),
        _caller(router, waiting),
        _caller(router, waiting),
    ):
        await until(lambda: len(RouterConnection._busy) == 4)
        await asyncio.sleep(0.5)
        assert await _stranger(router) == 200
        assert RouterConnection.closed["evicted"] == 1
        assert await _is_ended(first)


async def test_more_requests_than_may_be_sent_ahead_are_not_parsed_and_those_before_answered(router: Served) -> None:
    reader, writer = await router.raw(200 * _get(router, "/v1/health"))
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 200 OK") == _MOST_AHEAD + 1
    assert answer.count(b"connection: close") == 1


async def test_what_is_no_request_is_not_answered_before_what_was_asked_before_it(router: Served) -> None:
    job = await router.create()
    first = _get(router, f"/v1/jobs/{job['id']}", "prefer: wait=1")
    reader, writer = await router.raw(first + b"nonsense\r\n\r\n")
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
