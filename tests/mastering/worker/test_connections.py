"""Connections whose request has not been verified yet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from mastering.worker import connections
from mastering.worker.connections import MAX_HEAD_BYTES, MAX_WITHOUT_HEAD, WorkerServerConnection
from tests.mastering.worker_process import WorkerProcess, running_worker, until


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with running_worker() as worker:
        yield worker


def knock(worker: WorkerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", worker.client.base_url.port or 0), timeout=20)


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "piece", [b"X-More: " + b"a" * 1000 + b"\r\n", b"a" * 1000], ids=["many headers", "a header without an end"]
)
def test_a_head_without_an_end_is_refused_and_not_kept(worker: WorkerProcess, piece: bytes) -> None:
    with closing(knock(worker)) as stranger:
        stranger.sendall(b"GET /v1/health HTTP/1.1\r\nHost: w\r\nX: ")
        with pytest.raises(ConnectionError):
            stranger.sendall(piece * 32_768)


def test_a_head_of_an_honest_size_is_taken(worker: WorkerProcess) -> None:
    answer = worker.client.get("/v1/health", headers={"x-more": "a" * (MAX_HEAD_BYTES // 2)})
    assert answer.status_code == 200


def test_strangers_who_only_connect_do_not_shut_a_caller_out(worker: WorkerProcess) -> None:
    strangers = [knock(worker) for _ in range(MAX_WITHOUT_HEAD + 40)]
    try:
        assert worker.client.get("/v1/health", headers={"connection": "close"}).status_code == 200
        until(lambda: is_closed(strangers[0]))
        assert not is_closed(strangers[-1])
    finally:
        for stranger in strangers:
            stranger.close()


@asynccontextmanager
async def served(started: asyncio.Event) -> AsyncIterator[tuple[int, ServerState]]:
    """A server of these connections in this process; its application reads one body and answers."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        started.set()
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    config, state = uvicorn.Config(app, ws="none", log_config=None), ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: WorkerServerConnection(config, state, {}), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], state
    finally:
        server.close()


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\nHost: w\r\nX-Slow: "], ids=["no", "a", "half a"])
async def test_who_sends_no_whole_head_is_closed(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.05)
    async with served(asyncio.Event()) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        try:
            assert await asyncio.wait_for(reader.read(), 20) == b""
        except ConnectionResetError:
            pass
        finally:
            writer.close()


async def test_a_further_request_on_a_kept_connection_owes_its_head_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(asyncio.Event()) as (port, state):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: w\r\n\r\n")
        assert b" 204 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        (connection,) = state.connections
        assert isinstance(connection, WorkerServerConnection)
        assert connection.head_due is None
        monkeypatch.setattr(connections, "HEAD_S", 0.05)
        writer.write(b"GET / HT")
        try:
            assert await asyncio.wait_for(reader.read(), 20) == b""
        except ConnectionResetError:
            pass
        finally:
            writer.close()


async def test_a_body_may_take_its_time_once_the_head_is_whole() -> None:
    started = asyncio.Event()
    async with served(started) as (port, state):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 1\r\n\r\n")
        await asyncio.wait_for(started.wait(), 20)
        assert [one.head_due for one in state.connections if isinstance(one, WorkerServerConnection)] == [None]
        writer.write(b"x")
        assert b" 204 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        writer.close()
