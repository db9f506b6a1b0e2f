"""Downloads of a master: whole or in part, until the job expires and not a moment longer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.core import clock
from router.http import body_sender
from router.http.connection import RouterConnection
from router.spool.records import RECORD_BYTES
from router.tiers.fake import FakeBackend
from tests.probes import until
from tests.served import Served, served
from tests.services import MASTER, SONG, mastering

SIZE = len(MASTER)


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        yield router


async def mastered(router: Served) -> tuple[str, str]:
    """A mastered job's id and its output's address."""
    job = await router.over((await router.send())["id"])
    assert job["state"] == "mastered"
    return job["id"], job["outputs"][0]["url"]


async def test_a_master_is_sent_whole_with_a_name_that_says_nothing(router: Served) -> None:
    job_id, address = await mastered(router)
    response = await router.http.get(address)
    assert response.content == MASTER
    assert response.headers["content-type"] == "audio/wav"
    assert response.headers["content-length"] == str(SIZE)
    assert response.headers["content-disposition"] == 'attachment; filename="master.wav"'
    assert response.headers["cache-control"] == "no-store"
    assert (await router.http.get(f"/v1/jobs/{job_id}")).json()["state"] == "delivered"


async def test_who_prefers_to_wait_gets_the_master_as_soon_as_it_is_made(router: Served) -> None:
    """Two clients wait for a master whose song has not been sent yet."""
    job = await router.create()
    address = f"/v1/jobs/{job['id']}/outputs/wav24"
    waiting = asyncio.create_task(router.http.get(address, headers={"prefer": "wait=20"}))
    await until(lambda: router.app.state.streams._open.total() == 1)
    await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
    answer = await waiting
    assert (answer.status_code, answer.content) == (200, MASTER)
    assert answer.headers["preference-applied"] == "wait=20"
    assert not router.app.state.streams._open
    assert (await router.http.get(f"/v1/jobs/{job['id']}")).json()["state"] == "delivered"


async def test_who_waited_long_enough_hears_how_the_job_is(router: Served) -> None:
    job = await router.create()
    answer = await router.http.get(f"/v1/jobs/{job['id']}/outputs/wav24", headers={"prefer": "wait=0"})
    assert (answer.status_code, answer.json()["code"], answer.json()["state"]) == (409, "not_ready", "received")


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_who_wants_the_master_of_a_job_that_failed_hears_why(router: Served, is_waiting: bool) -> None:
    job = await router.create()
    address, headers = f"/v1/jobs/{job['id']}/outputs/wav24", {"prefer": "wait=20"}
    waiting = asyncio.create_task(router.http.get(address, headers=headers if is_waiting else {}))
    if is_waiting:
        await until(lambda: router.app.state.streams._open.total() == 1)
    else:
        await waiting
    refused = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=b"fault:silent")
    assert refused.json()["code"] == "silent"
    answer = await waiting if is_waiting else await router.http.get(address)
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert answer.json()["detail"] == f"This job has ended: {refused.json()['detail']}"


async def test_who_waits_for_the_master_of_a_job_that_is_forgotten_hears_that_there_is_none(router: Served) -> None:
    job = await router.create()
    address = f"/v1/jobs/{job['id']}/outputs/wav24"
    waiting = asyncio.create_task(router.http.get(address, headers={"prefer": "wait=20"}))
    await until(lambda: router.app.state.streams._open.total() == 1)
    await router.services.jobs.forget(job["id"])
    await router.services.events.publish(job["id"])
    answer = await waiting
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_master_that_is_made_needs_no_place_to_wait_in(tmp_path: Path) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])], streams_per_account=1) as router:
        _, address = await mastered(router)
        other = await router.create()
        async with router.events(other["id"]) as stream:
            await anext(stream)
            assert (await router.http.get(address, headers={"prefer": "wait=20"})).content == MASTER
            waiting = await router.http.get(f"/v1/jobs/{other['id']}/outputs/wav24", headers={"prefer": "wait=20"})
            assert (waiting.status_code, waiting.json()["code"]) == (429, "too_many_streams")


async def test_who_hangs_up_while_waiting_gives_the_place_back(router: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.web.api.events._DISCONNECT_CHECK_S", 0.1)
    job = await router.create()
    for address in (f"/v1/jobs/{job['id']}", f"/v1/jobs/{job['id']}/outputs/wav24"):
        head = f"GET {address} HTTP/1.1\r\nhost: 127.0.0.1:{router.port}\r\nprefer: wait=60\r\n\r\n"
        _, writer = await router.raw(head.encode())
        await until(lambda: router.app.state.streams._open.total() == 1)
        writer.close()
        await until(lambda: not router.app.state.streams._open)


async def test_a_format_that_nobody_asked_for_is_not_waited_for(router: Served) -> None:
    job = await router.create()
    for name in ("mp3", "nonsense"):
        answer = await router.http.get(f"/v1/jobs/{job['id']}/outputs/{name}", headers={"prefer": "wait=20"})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-", 0, SIZE),
        ("Bytes=2-4", 2, 5),
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=-{10 * SIZE}", 0, SIZE),
        (f"bytes=5-{10 * SIZE}", 5, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
    ],
)
async def test_a_stretch_of_the_master_can_be_asked_for(router: Served, asked: str, start: int, end: int) -> None:
    job_id, address = await mastered(router)
    response = await router.http.get(address, headers={"range": asked})
    assert (response.status_code, response.content) == (206, MASTER[start:end])
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    delivered = (await router.http.get(f"/v1/jobs/{job_id}")).json()["state"] == "delivered"
    assert delivered is (end == SIZE)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"])
async def test_a_stretch_outside_the_master_is_refused_with_its_size(router: Served, asked: str) -> None:
    _, address = await mastered(router)
    response = await router.http.get(address, headers={"range": asked})
    assert (response.status_code, response.json()["code"]) == (416, "range_not_satisfiable")
    assert response.json()["size_bytes"] == SIZE
    assert response.headers["content-range"] == f"bytes */{SIZE}"


async def test_who_has_the_master_already_is_not_sent_it_again(router: Served) -> None:
    job_id, address = await mastered(router)
    etag = (await router.http.head(address)).headers["etag"]
    for named in (etag, f"W/{etag}", f'"another", {etag}', "*"):
        answer = await router.http.get(address, headers={"if-none-match": named})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag), named
    assert (await router.http.get(f"/v1/jobs/{job_id}")).json()["state"] == "mastered"
    assert (await router.http.get(address, headers={"if-none-match": '"another"'})).content == MASTER
    assert (await router.http.get(address, headers={"if-match": etag})).content == MASTER
    refused = await router.http.get(address, headers={"if-match": '"another"'})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")


@pytest.mark.parametrize(
    "asked", ["bytes=", "bytes=-", "bytes=9-3", "frames=0-3", "bytes=1-2,5-9", "bytes=" + "9" * 5000 + "-"]
)
async def test_what_is_no_range_of_bytes_is_ignored(router: Served, asked: str) -> None:
    _, address = await mastered(router)
    response = await router.http.get(address, headers={"range": asked})
    assert (response.status_code, response.content) == (200, MASTER)


async def test_a_stretch_of_another_master_than_before_is_sent_whole_instead(router: Served) -> None:
    _, address = await mastered(router)
    etag = (await router.http.get(address, headers={"range": "bytes=0-3"})).headers["etag"]
    same = await router.http.get(address, headers={"range": "bytes=4-7", "if-range": etag})
    other = await router.http.get(address, headers={"range": "bytes=4-7", "if-range": '"another"'})
    assert (same.status_code, same.content) == (206, MASTER[4:8])
    assert (other.status_code, other.content) == (200, MASTER)


async def test_a_master_that_is_not_made_yet_is_a_409_and_another_format_a_404(router: Served) -> None:
    job = await router.create()
    early = await router.http.get(f"/v1/jobs/{job['id']}/outputs/wav24")
    assert (early.status_code, early.json()["code"]) == (409, "not_ready")
    job_id, _ = await mastered(router)
    for name in ("mp3", "exe", "..%2f..%2fsecret"):
        other = await router.http.get(f"/v1/jobs/{job_id}/outputs/{name}")
        assert (other.status_code, other.json()["code"]) == (404, "not_found")


async def test_a_deleted_master_is_gone(router: Served) -> None:
    job_id, address = await mastered(router)
    await router.http.delete(f"/v1/jobs/{job_id}")
    response = await router.http.get(address)
    assert (response.status_code, response.json()["code"]) == (410, "gone")


async def test_a_master_is_there_a_second_before_its_time_and_gone_at_it(
    router: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, address = await mastered(router)
    made = clock.now()
    ttl_s = router.services.settings.output_ttl_s
    monkeypatch.setattr(clock, "now", lambda: made + ttl_s - 1.5)
    assert (await router.http.get(address)).content == MASTER
    monkeypatch.setattr(clock, "now", lambda: made + ttl_s)
    response = await router.http.get(address)
    assert (response.status_code, response.json()["code"]) == (410, "gone")


async def test_a_year_on_the_wall_clock_changes_nothing(router: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    _, address = await mastered(router)
    for years in (-1, 1):
        wall = clock.time.time()
        monkeypatch.setattr(clock.time, "time", lambda wall=wall, years=years: wall + years * 365 * 86400)
        assert (await router.http.get(address)).content == MASTER
        monkeypatch.undo()


async def test_a_master_whose_key_is_gone_before_its_record_says_so_is_gone_and_not_promised(router: Served) -> None:
    job_id, address = await mastered(router)
    found, _ = await router.services.jobs.get(job_id)
    for blob in found.outputs.values():
        await router.services.spool.drop(blob.ref)
    response = await router.http.get(address)
    assert (response.status_code, response.json()["code"]) == (410, "gone")


LARGE = os.urandom(5_000_000)


@pytest.fixture
async def large(tmp_path: Path) -> AsyncIterator[Served]:
    """A router whose masters are written to their connections by a thread, past ASGI."""
    async with served(tmp_path, [FakeBackend("a", [mastering(LARGE)])]) as router:
        yield router


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch) -> list[body_sender.BodySender]:
    """Every BodySender that is made, in order."""
    made: list[body_sender.BodySender] = []

    class RecordedSender(body_sender.BodySender):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr("router.http.connection.BodySender", RecordedSender)
    return made


def _closed(senders: list[body_sender.BodySender]) -> bool:
    return all(one._socket.fileno() == -1 for one in senders)


@pytest.mark.parametrize("directly", [True, False], ids=["directly", "by ASGI"])
async def test_a_large_master_comes_whole_and_in_part_and_its_connection_serves_on(
    large: Served, senders: list[body_sender.BodySender], monkeypatch: pytest.MonkeyPatch, directly: bool
) -> None:
    async def nothing(*_: object) -> None:
        return None

    if not directly:
        monkeypatch.setattr(RouterConnection, "_send_body", nothing)
    job_id, address = await mastered(large)
    edges = [0, 1, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 3 * RECORD_BYTES, len(LARGE)]
    for start, end in [(0, len(LARGE)), *((a, b) for a in edges for b in edges if b - a > 300_000)]:
        response = await large.http.get(address, headers={"range": f"bytes={start}-{end - 1}"})
        assert (response.status_code, response.content) == (206, LARGE[start:end])
    assert (await large.http.get(address)).content == LARGE
    assert len(large.http._transport._pool.connections) == 1  # type: ignore[attr-defined]
    assert (await large.http.get(f"/v1/jobs/{job_id}")).json()["state"] == "delivered"
    assert bool(senders) is directly
    assert _closed(senders)


def _get_request(router: Served, address: str, *more: str) -> bytes:
    return "\r\n".join([f"GET {address} HTTP/1.1", f"host: 127.0.0.1:{router.port}", *more, "", ""]).encode()


async def test_requests_that_were_sent_ahead_are_answered_one_after_another(large: Served) -> None:
    _, address = await mastered(large)
    reader, writer = await large.raw(
        3 * _get_request(large, address) + _get_request(large, "/v1/options", "connection: close")
    )
    for _ in range(3):
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(LARGE)) == LARGE
    assert b"200 OK" in await reader.read()
    writer.close()


async def test_a_caller_who_reads_slowly_gets_all_of_it_and_holds_up_nobody(large: Served) -> None:
    _, address = await mastered(large)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        slow.connect(("127.0.0.1", large.port))
        slow.sendall(_get_request(large, address, "connection: close"))
        slow.settimeout(5)
        got = b""
        while piece := await asyncio.to_thread(slow.recv, 250_000):
            got += piece
            if len(got) < 500_000:
                assert (await large.http.get(address)).content == LARGE
    assert got.partition(b"\r\n\r\n")[2] == LARGE


@pytest.fixture
async def stalled(large: Served, senders: list[body_sender.BodySender]) -> AsyncIterator[tuple[str, socket.socket]]:
    """The id of a job, and a client that has stopped reading its master."""
    job_id, address = await mastered(large)
    with _client_that_reads_nothing(large, address) as caller:
        await until(lambda: senders and senders[0]._rest)
        yield job_id, caller


@contextlib.contextmanager
def _client_that_reads_nothing(router: Served, address: str) -> Iterator[socket.socket]:
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        caller.connect(("127.0.0.1", router.port))
        caller.sendall(_get_request(router, address))
        yield caller


async def test_an_account_has_only_so_many_downloads_open_and_each_that_ends_makes_room(
    tmp_path: Path, senders: list[body_sender.BodySender]
) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering(LARGE)])], streams_per_account=2) as router:
        job_id, address = await mastered(router)
        with _client_that_reads_nothing(router, address) as first, _client_that_reads_nothing(router, address):
            await until(lambda: len(senders) == 2)
            refused = await router.http.get(address)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_downloads")
            assert (refused.json()["allowed"], refused.headers["retry-after"]) == (2, "5")
            assert refused.json()["detail"].startswith("You have 2 downloads open")
            etag = (await router.http.head(address)).headers["etag"]
            assert (await router.http.get(address, headers={"if-none-match": etag})).status_code == 304
            waited = await router.http.get(f"/v1/jobs/{job_id}", headers={"prefer": "wait=0"})
            assert waited.status_code == 200, "who downloads may still wait"
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            first.close()
            await until(lambda: router.app.state.downloads._open.total() == 1)
            assert (await router.http.get(address)).content == LARGE
        await until(lambda: not router.app.state.downloads._open)


async def test_a_caller_who_hangs_up_in_the_middle_leaves_nothing_open_and_no_error(
    large: Served,
    senders: list[body_sender.BodySender],
    stalled: tuple[str, socket.socket],
    capsys: pytest.CaptureFixture[str],
) -> None:
    job_id, caller = stalled
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # with a reset
    caller.close()
    await until(lambda: _closed(senders))
    assert (await large.http.get(f"/v1/jobs/{job_id}")).json()["state"] == "mastered"
    assert "error" not in capsys.readouterr().err


async def test_a_caller_who_has_asked_for_more_and_hangs_up_leaves_nothing_open(
    large: Served, senders: list[body_sender.BodySender], stalled: tuple[str, socket.socket]
) -> None:
    _, caller = stalled
    caller.sendall(_get_request(large, "/v1/options"))
    await asyncio.sleep(0.1)
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    caller.close()
    await until(lambda: _closed(senders))
    left = [task for task in asyncio.all_tasks() if "run_asgi" in repr(task)]
    await asyncio.wait([*left, asyncio.create_task(asyncio.sleep(0))], timeout=2)
    assert all(task.done() for task in left)


@pytest.mark.parametrize("how", ["deleted", "expired"])
async def test_a_master_whose_time_is_over_while_it_is_sent_ends_short(
    large: Served,
    senders: list[body_sender.BodySender],
    stalled: tuple[str, socket.socket],
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id, caller = stalled
    if how == "deleted":
        await large.http.delete(f"/v1/jobs/{job_id}")
    else:
        made = clock.now()
        monkeypatch.setattr(clock, "now", lambda: made + large.services.settings.output_ttl_s)
    await until(lambda: _closed(senders))
    caller.settimeout(5)
    got = b""
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.to_thread(caller.recv, 1_000_000):
            got += piece
    assert len(got) < len(LARGE)


async def test_a_router_that_stops_waits_for_no_client_that_reads_nothing(
    tmp_path: Path, senders: list[body_sender.BodySender]
) -> None:
    with contextlib.ExitStack() as callers:
        async with served(tmp_path, [FakeBackend("a", [mastering(LARGE)])]) as router:
            _, address = await mastered(router)
            callers.enter_context(_client_that_reads_nothing(router, address))
            await until(lambda: senders and senders[0]._rest)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 5
        assert _closed(senders)
