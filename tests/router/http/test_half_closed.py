"""Callers who end their side of the connection once they have asked are answered; those who are gone hold nothing."""

from __future__ import annotations

import asyncio
import http.client
import io
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from router.http.connection import RouterConnection
from router.tiers.fake import FakeBackend
from tests.api import Api
from tests.probes import until
from tests.served import Served, served
from tests.services import MASTER, SONG, mastering
from tests.stack import stack


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        yield router


def _request(router: Served, method: str, path: str, *lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", f"host: 127.0.0.1:{router.port}", *lines, "", ""]).encode()


@asynccontextmanager
async def _asked(router: Served, request: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """A connection on which this was sent, and its end."""
    reader, writer = await router.raw(request)
    writer.write_eof()
    try:
        async with asyncio.timeout(20):
            yield reader
    finally:
        writer.close()


async def _answer(router: Served, request: bytes) -> bytes:
    """All that comes, until the router ends the connection too."""
    async with _asked(router, request) as reader:
        return await reader.read()


def _response(answer: bytes) -> http.client.HTTPResponse:
    """The response as a common client reads it."""

    class _Socket:
        def makefile(self, _: str) -> io.BytesIO:
            return io.BytesIO(answer)

    response = http.client.HTTPResponse(_Socket())  # type: ignore[arg-type]
    response.begin()
    return response


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_get_is_answered_whole(router: Served, version: str) -> None:
    for path in ("/", "/v1/options", "/v1/health", "/nothing"):
        expected = await router.http.get(path)
        response = _response(await _answer(router, _request(router, "GET", path, version=version)))
        assert (response.status, len(response.read())) == (expected.status_code, len(expected.content))


async def test_a_large_song_is_answered_when_it_is_queued(router: Served) -> None:
    job, song = await router.create(), SONG + bytes(3_000_000)
    head = _request(router, "PUT", f"/v1/jobs/{job['id']}/audio", f"content-length: {len(song)}")
    response = _response(await _answer(router, head + song))
    assert response.status == 202
    assert (await router.over(job["id"]))["state"] == "mastered"


async def test_a_master_is_sent_whole(router: Served) -> None:
    job = await router.over((await router.send())["id"])
    answer = await _answer(router, _request(router, "GET", job["outputs"][0]["url"]))
    assert _response(answer).read() == MASTER


async def test_who_prefers_to_wait_is_answered_at_the_change(router: Served) -> None:
    job = await router.create()
    async with _asked(router, _request(router, "GET", f"/v1/jobs/{job['id']}", "prefer: wait=20")) as asked:
        await until(lambda: router.app.state.streams._open.total() == 1)
        await asyncio.sleep(0.2)
        await router.http.delete(f"/v1/jobs/{job['id']}")
        answer = await asked.read()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"state":"cancelled"' in answer or b'"state":"ending"' in answer


async def test_who_waits_for_long_hears_in_between_what_every_client_ignores(
    router: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.http.connection._ASK_AFTER_S", 0.1)
    job = await router.create()
    answer = await _answer(router, _request(router, "GET", f"/v1/jobs/{job['id']}", "prefer: wait=1"))
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert b'"state":"received"' in _response(answer).read()
    old = _request(router, "GET", f"/v1/jobs/{job['id']}", "prefer: wait=1", version="1.0")
    assert (await _answer(router, old)).startswith(b"HTTP/1.1 200 OK\r\n"), "HTTP/1.0 knows no such thing"


async def test_events_come_until_the_job_is_over(router: Served) -> None:
    job = await router.create()
    async with _asked(router, _request(router, "GET", f"/v1/jobs/{job['id']}", "accept: text/event-stream")) as asked:
        await asked.readuntil(b'"state":"received"')
        await asyncio.sleep(1.2)
        await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
        rest = await asked.read()
    assert b": still here\n\n" in rest
    assert b'"state":"mastered"' in rest
    assert rest.endswith(b"0\r\n\r\n")


async def test_all_that_was_sent_ahead_is_answered_but_what_never_came_whole(router: Served) -> None:
    whole = _request(router, "GET", "/v1/health")
    part = _request(router, "POST", "/v1/jobs", "content-type: application/json", "content-length: 100")
    for last in (part + b"{", part[:-10]):
        answer = await _answer(router, 3 * whole + last)
        assert answer.count(b"HTTP/1.1 200 OK\r\n") == answer.count(b"HTTP/1.1 ") == 3


async def test_who_hangs_up_altogether_gives_the_places_back(router: Served) -> None:
    job = await router.create()
    for wanted in ("prefer: wait=60", "accept: text/event-stream"):
        _, writer = await router.raw(_request(router, "GET", f"/v1/jobs/{job['id']}", wanted))
        await until(lambda: router.app.state.streams._open.total() == 1)
        before = RouterConnection.count_open()
        writer.close()
        async with asyncio.timeout(10):
            while router.app.state.streams._open or RouterConnection.count_open() >= before:  # noqa: ASYNC110 — bounded
                await asyncio.sleep(0.05)


async def test_a_reset_is_noticed_after_the_end_of_the_caller_s_side(router: Served) -> None:
    """Nothing is read or written then, so that no transport would tell."""
    job = await router.create()
    with socket.create_connection(("127.0.0.1", router.port)) as caller:
        caller.sendall(_request(router, "GET", f"/v1/jobs/{job['id']}", "prefer: wait=60"))
        caller.shutdown(socket.SHUT_WR)
        await until(lambda: router.app.state.streams._open.total() == 1)
        before = RouterConnection.count_open()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    async with asyncio.timeout(10):
        while RouterConnection.count_open() >= before:  # noqa: ASYNC110 — bounded
            await asyncio.sleep(0.05)


def test_a_request_that_never_came_whole_is_told_so(tmp_path: Path) -> None:
    with stack(tmp_path, workers=0) as running, Api(running.url) as api:
        job = api.create(size_bytes=1_000_000)
        for path, sent in (("/v1/jobs", b"{"), (f"/v1/jobs/{job['id']}/audio", bytes(700_000))):
            method = "POST" if path == "/v1/jobs" else "PUT"
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"
            if method == "POST":
                head = head.replace("1000000", "1000").replace("Host", "Content-Type: application/json\r\nHost")
            with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=10) as caller:
                caller.sendall(head.encode() + sent)
                caller.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda caller=caller: caller.recv(65_536), b""))  # type: ignore[misc]
            response = _response(answer)
            assert (response.status, response.headers["content-type"]) == (400, "application/problem+json")
            assert b"ended before" in response.read()
        assert api.show(job["id"])["upload"]["offset_bytes"] > 600_000, "the upload can be continued"
        assert "Traceback" not in running.router.said()
