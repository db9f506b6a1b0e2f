"""Uploads: early refusals, broken connections, resuming, stalled and overtaken requests, little memory."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.core.errors import Problem
from router.http.connection import RouterConnection
from router.jobs import uploads
from router.spool.port import SpoolFull
from router.spool.records import RECORD_BYTES, sealed_size
from router.store.record import new_id
from router.tiers.fake import FakeBackend
from router.web import request_body
from tests.api import Api
from tests.served import Served, served
from tests.services import SONG, BelievingProbe, eventually, mastering, pieces
from tests.stack import stack

MIB = 1024 * 1024


@pytest.fixture(params=["from the connection", "by ASGI"], autouse=True)
def _receive_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to read a body, also for those that are too short to be read from the connection by themselves."""
    from_bytes = 1 if request.param == "from the connection" else 1 << 60
    monkeypatch.setattr(request_body, "_RECEIVE_DIRECTLY_FROM_BYTES", from_bytes)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next response on a raw connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(head[0].split()[1]), headers, body


def put(job_id: str, *headers: str) -> bytes:
    lines = [f"PUT /v1/jobs/{job_id}/audio HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def offset_of(router: Served, job_id: str) -> int:
    response = await router.http.head(f"/v1/jobs/{job_id}/audio")
    assert response.status_code == 200
    return int(response.headers["upload-offset"])


async def until_offset(router: Served, job_id: str, wanted: int) -> None:
    async def there() -> bool:
        return await offset_of(router, job_id) == wanted

    await eventually(there)


async def until_taken(router: Served, job_id: str) -> None:
    async def taken() -> bool:
        return job_id in router.app.state.uploads

    await eventually(taken)


async def test_a_song_sent_whole_is_queued_with_its_facts(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.send()
        assert (job["state"], job["facts"]["duration_s"]) == ("queued", 10.0)
        assert job["upload"] == {"offset_bytes": len(SONG), "size_bytes": len(SONG)}


@pytest.mark.parametrize("target", ["audio", "references/1"])
async def test_a_part_that_is_named_by_content_range_is_not_taken_for_the_whole(tmp_path: Path, target: str) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        headers = {"content-range": f"bytes 0-{len(SONG) - 1}/{2 * len(SONG)}"}
        answer = await router.http.put(f"/v1/jobs/{job['id']}/{target}", content=SONG, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
        assert "Upload-Offset" in answer.json()["detail"]
        assert (await router.http.get(f"/v1/jobs/{job['id']}")).json()["state"] == "received"


async def test_a_form_is_told_what_to_send_in_its_place(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        answer = await router.http.put(f"/v1/jobs/{job['id']}/audio", files={"file": ("song.wav", SONG)})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
        assert "curl -T" in answer.json()["detail"]
        sent = await router.http.put(
            f"/v1/jobs/{job['id']}/audio",
            content=SONG,
            headers={"content-type": "application/x-www-form-urlencoded"},  # as curl --data-binary says
        )
        assert sent.status_code == 202


async def test_a_body_of_unknown_length_is_taken_to_its_end(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield SONG[:1000]
        yield SONG[1000:]

    backend = FakeBackend("a", [mastering()])
    async with served(tmp_path, [backend]) as router:
        job = await router.create()
        response = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=body())
        assert response.status_code == 202
        await router.over(job["id"])
        assert backend.received == [SONG]


@pytest.mark.parametrize("announced", [False, True])
async def test_a_song_that_is_too_large_is_refused_before_a_byte_of_it_is_sent(tmp_path: Path, announced: bool) -> None:
    """600 MB, and the client waits for 100 Continue: it is answered 413 instead."""
    async with served(tmp_path) as router:
        size = 600 * 1000 * 1000
        if announced:
            response = await router.http.post("/v1/jobs", json={"size_bytes": size})
            assert (response.status_code, response.json()["code"]) == (413, "too_large")
            return
        job = await router.create()
        request = put(job["id"], f"Content-Length: {size}", "Expect: 100-continue")
        reader, writer = await router.raw(request)
        async with asyncio.timeout(10):
            status, headers, body = await answer(reader)
        assert (status, headers["content-type"]) == (413, "application/problem+json")
        assert b'"code": "too_large"' in body
        assert headers["connection"] == "close"
        writer.close()
        assert router.services.spool.usage().blobs == 0


async def test_a_client_that_asks_first_is_told_to_go_on(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        reader, writer = await router.raw(put(job["id"], f"Content-Length: {len(SONG)}", "Expect: 100-continue"))
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(SONG)
            status, _, _ = await answer(reader)
        assert status == 202
        writer.close()


async def test_a_request_that_follows_at_once_is_answered_too(tmp_path: Path) -> None:
    """On one connection: a song in two pieces, the second with two further requests in the same segment."""
    async with served(tmp_path) as router:
        job = await router.create()
        reader, writer = await router.raw(put(job["id"], f"Content-Length: {len(SONG)}") + SONG[:100])
        await until_taken(router, job["id"])
        further = f"GET /v1/jobs/{job['id']} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        writer.write(SONG[100:] + 2 * further)
        async with asyncio.timeout(10):
            for expected in (202, 200, 200):
                status, headers, body = await answer(reader)
                assert (status, "connection" in headers) == (expected, False)
                assert json.loads(body)["state"] == "queued"
        writer.close()


@pytest.mark.parametrize("size", [2 * RECORD_BYTES + beyond for beyond in (-1, 0, 1)], ids=["a byte less", "", "more"])
async def test_a_song_that_fills_its_records_is_kept_as_it_was_sent(tmp_path: Path, size: int) -> None:
    song = os.urandom(size)
    async with served(tmp_path) as router:
        job = await router.create()
        reader, writer = await router.raw(put(job["id"], f"Content-Length: {size}") + song[:100])
        await until_taken(router, job["id"])
        for piece in (song[100:RECORD_BYTES], song[RECORD_BYTES:]):
            writer.write(piece)
            await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            assert (await answer(reader))[0] == 202
        writer.close()
        source = (await router.services.jobs.get(job["id"])).job.input
        assert source is not None
        assert b"".join([piece async for piece in router.services.spool.read(source.ref)]) == song


async def test_after_a_song_that_dawdled_its_connection_is_as_quick_as_before(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        reader, writer = await router.raw(put(job["id"], f"Content-Length: {len(SONG)}") + SONG[:100])
        await until_taken(router, job["id"])
        await asyncio.sleep(0.2)
        writer.write(SONG[100:])
        async with asyncio.timeout(10):
            assert (await answer(reader))[0] == 202
        for _ in range(3):
            writer.write(f"GET /v1/jobs/{job['id']} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            async with asyncio.timeout(1):
                assert (await answer(reader))[0] == 200
        writer.close()


async def test_an_upload_whose_connection_the_router_closes_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RouterConnection] = []
    connection_made = RouterConnection.connection_made

    def note(self: RouterConnection, transport: Any) -> None:
        made.append(self)
        connection_made(self, transport)

    monkeypatch.setattr(RouterConnection, "connection_made", note)
    async with served(tmp_path) as router:
        job = await router.create(size_bytes=MIB)
        _, writer = await router.raw(put(job["id"], f"Content-Length: {MIB}") + bytes(1000))
        await until_taken(router, job["id"])
        made[-1].transport.abort()
        async with asyncio.timeout(1):
            await until_offset(router, job["id"], 1000)
        writer.close()


async def test_an_upload_that_a_shutdown_cuts_off_is_told_so_and_kept(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create(size_bytes=len(SONG))
        reader, writer = await router.raw(put(job["id"], f"Content-Length: {len(SONG)}") + SONG[:1000])
        await until_taken(router, job["id"])
        router.services.events.close()
        reading = asyncio.create_task(answer(reader))
        source = (await router.services.jobs.get(job["id"])).job.input
        assert source is not None
    status, headers, body = await reading
    writer.close()
    assert (status, headers["content-type"]) == (503, "application/problem+json")
    assert json.loads(body)["code"] == "draining"
    assert (tmp_path / "spool" / source.ref).stat().st_size == sealed_size(1000)


async def test_a_body_without_length_that_grows_too_large_is_stopped_and_wiped(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(64 * 1024)

    async with served(tmp_path, max_bytes=MIB) as router:
        job = await router.create()
        with suppress(httpx.TransportError):  # the connection may close before the answer is read
            response = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=endless())
            assert (response.status_code, response.json()["code"]) == (413, "too_large")
        ended = await router.over(job["id"])
        assert (ended["state"], ended["error"]["code"]) == ("failed", "too_large")
        assert router.services.spool.usage().blobs == 0


async def test_more_than_the_job_announced_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create(size_bytes=100)
        response = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=bytes(101))
        assert (response.status_code, response.json()["code"]) == (400, "bad_request")
        assert response.json()["announced_bytes"] == 100


async def test_an_upload_whose_connection_broke_goes_on_where_it_stopped(tmp_path: Path) -> None:
    backend = FakeBackend("a", [mastering()])
    song, sent = SONG * 50, RECORD_BYTES + 40_000
    async with served(tmp_path, [backend]) as router:
        job = await router.create(size_bytes=len(song))
        assert await offset_of(router, job["id"]) == 0
        _, writer = await router.raw(put(job["id"], f"Content-Length: {len(song)}") + song[:sent])
        await until_offset(router, job["id"], RECORD_BYTES)
        writer.close()
        await until_offset(router, job["id"], sent)
        address = f"/v1/jobs/{job['id']}/audio"
        assert (await router.http.head(address)).headers["upload-length"] == str(len(song))
        wrong = await router.http.put(address, content=song[4000:], headers={"upload-offset": "4000"})
        assert (wrong.status_code, wrong.json()["code"]) == (409, "offset_mismatch")
        assert wrong.json()["offset_bytes"] == sent
        rest = await router.http.put(address, content=song[sent:], headers={"upload-offset": str(sent)})
        assert rest.status_code == 202
        await router.over(job["id"])
        assert backend.received == [song]


async def test_a_song_can_be_sent_in_pieces(tmp_path: Path) -> None:
    backend = FakeBackend("a", [mastering()])
    async with served(tmp_path, [backend]) as router:
        job = await router.create(size_bytes=len(SONG))
        for at in range(0, len(SONG), 4000):
            piece = await router.http.put(
                f"/v1/jobs/{job['id']}/audio", content=SONG[at : at + 4000], headers={"upload-offset": str(at)}
            )
            assert piece.status_code == 202
        assert piece.json()["state"] == "queued"
        await router.over(job["id"])
        assert backend.received == [SONG]


async def test_a_plain_put_once_more_begins_anew(tmp_path: Path) -> None:
    backend = FakeBackend("a", [mastering()])
    async with served(tmp_path, [backend]) as router:
        job = await router.create(size_bytes=len(SONG))
        await router.http.put(f"/v1/jobs/{job['id']}/audio", content=b"another song's beginning")
        assert (await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)).status_code == 202
        await router.over(job["id"])
        assert backend.received == [SONG]
        assert router.services.spool.usage().blobs == 1


async def test_a_newer_request_takes_over_from_one_that_hangs(tmp_path: Path) -> None:
    """A client lost its network, so that its connection was never closed, and comes back on another one."""
    backend = FakeBackend("a", [mastering()])
    async with served(tmp_path, [backend]) as router:
        job = await router.create(size_bytes=len(SONG))
        reader, writer = await router.raw(put(job["id"], f"Content-Length: {len(SONG)}") + SONG[:7000])
        await until_taken(router, job["id"])
        response = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
        assert response.status_code == 202
        async with asyncio.timeout(10):
            status, _, body = await answer(reader)
        assert status == 409
        assert b"upload_in_progress" in body
        writer.close()
        await router.over(job["id"])
        assert backend.received == [SONG]
        assert router.app.state.uploads == {}


async def test_of_many_requests_at_once_one_wins_and_the_song_is_whole(tmp_path: Path) -> None:
    backend = FakeBackend("a", [mastering()])
    async with served(tmp_path, [backend]) as router:
        job = await router.create(size_bytes=len(SONG))
        sends = [router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG) for _ in range(8)]
        answers = await asyncio.gather(*sends)
        assert sorted({answer.status_code for answer in answers} - {202}) in ([], [409])
        assert sum(answer.status_code == 202 for answer in answers) >= 1
        await router.over(job["id"])
        assert backend.received == [SONG]


async def test_an_upload_that_falls_silent_is_put_down_and_can_be_continued(tmp_path: Path) -> None:
    async with served(tmp_path, upload_silence_s=0.2) as router:
        job = await router.create(size_bytes=len(SONG))
        reader, writer = await router.raw(put(job["id"], f"Content-Length: {len(SONG)}") + SONG[:3000])
        async with asyncio.timeout(10):
            status, _, body = await answer(reader)
        assert status == 408
        assert b"upload_timeout" in body
        writer.close()
        assert await offset_of(router, job["id"]) == 3000


async def test_a_job_deleted_during_its_upload_leaves_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.create(size_bytes=MIB)
        reader, writer = await router.raw(put(job["id"], f"Content-Length: {MIB}") + bytes(1000))
        await until_taken(router, job["id"])
        await router.http.delete(f"/v1/jobs/{job['id']}")
        assert router.services.spool.usage().blobs == 0
        writer.write(bytes(MIB - 1000))
        async with asyncio.timeout(10):
            status, _, _ = await answer(reader)
        assert status == 410
        writer.close()
        assert not any((tmp_path / "spool").glob("*/*"))


async def test_a_second_song_for_the_same_job_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        job = await router.send()
        response = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
        assert (response.status_code, response.json()["code"]) == (409, "not_ready")
        await router.http.delete(f"/v1/jobs/{job['id']}")
        response = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
        assert (response.status_code, response.json()["code"]) == (410, "gone")


@pytest.mark.parametrize("code", ["undecodable", "truncated", "not_finite", "silent", "too_long", "unsupported_format"])
async def test_what_the_probe_found_is_answered_and_the_song_is_gone(tmp_path: Path, code: str) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        response = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=f"fault:{code}".encode())
        assert (response.status_code, response.json()["code"]) == (422, code)
        shown = await router.over(job["id"])
        assert (shown["state"], shown["error"]["code"]) == ("failed", code)
        assert router.services.spool.usage().blobs == 0


async def test_a_probe_is_asked_for_by_the_account_that_sent_the_file(tmp_path: Path) -> None:
    """So that its slow files are its own to wait for."""
    async with served(tmp_path) as router:
        job = await router.create()
        for target in ("references/1", "audio"):
            assert (await router.http.put(f"/v1/jobs/{job['id']}/{target}", content=SONG)).is_success
        account = (await router.services.jobs.get(job["id"])).job.account
        assert account
        probe = router.services.probe
        assert isinstance(probe, BelievingProbe)
        assert probe.accounts == [account] * 3


async def test_a_song_longer_than_allowed_is_refused_with_both_numbers(tmp_path: Path) -> None:
    async with served(tmp_path, max_duration_s=9.0) as router:
        job = await router.create()
        problem = (await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)).json()
        assert (problem["code"], problem["duration_s"], problem["allowed_s"]) == ("too_long", 10.0, 9.0)


async def test_a_full_spool_is_a_507_that_says_when_to_come_back(tmp_path: Path) -> None:
    async with served(tmp_path, spool_quota_bytes=1000) as router:
        response = await router.http.post("/v1/jobs", json={"size_bytes": len(SONG)})
        assert (response.status_code, response.json()["code"]) == (507, "spool_full")
        assert int(response.headers["retry-after"]) > 0
        assert router.services.spool.usage().blobs == 0


async def test_an_account_that_has_its_share_of_the_spool_is_told_all_three_numbers(tmp_path: Path) -> None:
    share = 3 * len(SONG)
    async with served(tmp_path, spool_bytes_per_account=share) as router:
        first = await router.create(size_bytes=len(SONG))
        await router.create(size_bytes=len(SONG))
        response = await router.http.post("/v1/jobs", json={"size_bytes": len(SONG)})
        problem = response.json()
        assert (response.status_code, problem["code"]) == (429, "spool_share")
        taken = 2 * sealed_size(len(SONG))
        numbers = (problem["taken_bytes"], problem["asked_bytes"], problem["allowed_bytes"])
        assert numbers == (taken, len(SONG), share)
        await router.http.delete(f"/v1/jobs/{first['id']}")
        await router.create(size_bytes=len(SONG))


async def test_an_upload_of_a_size_nobody_said_counts_as_the_largest(tmp_path: Path) -> None:
    async with served(tmp_path, spool_bytes_per_account=1_000_000, max_bytes=900_000) as router:
        await router.create(size_bytes=200_000)
        job = await router.create()
        problem = (await router.http.put(f"/v1/jobs/{job['id']}/audio", content=pieces(SONG))).json()
        assert (problem["code"], problem["asked_bytes"]) == ("spool_share", 900_000)


async def test_a_client_that_sends_on_after_a_refusal_reads_all_of_it(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        reader, writer = await router.raw(put(new_id(), f"Content-Length: {8 * MIB}"))
        for _ in range(8):
            writer.write(bytes(MIB))
            await writer.drain()
        async with asyncio.timeout(10):
            status, headers, body = await answer(reader)
        assert (status, headers["connection"]) == (404, "close")
        assert json.loads(body)["code"] == "not_found"
        writer.close()


async def test_a_disk_that_fills_up_during_an_upload_is_a_507_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as router:
        job = await router.create(size_bytes=len(SONG))

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwritev", full)
        response = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
        assert (response.status_code, response.json()["code"]) == (507, "spool_full")
        assert router.services.spool.usage().blobs == 0
        assert not any((tmp_path / "spool").glob("*/*"))


async def test_a_disk_that_is_nearly_full_refuses_before_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    async with served(tmp_path) as router:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(SONG)))
        with pytest.raises(SpoolFull):
            await router.services.spool.reserve(len(SONG), 1e9)
        response = await router.http.post("/v1/jobs", json={"size_bytes": len(SONG)})
        assert response.status_code == 507


async def test_a_queue_that_is_full_refuses_the_song_and_leaves_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, max_queued_per_account=2) as router:
        job = await router.create()
        account = (await router.services.jobs.get(job["id"])).job.account
        for other in ("x", "y"):
            await router.services.queue.enqueue(other, "nobody's lane", account, 1)
        response = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
        assert (response.status_code, response.json().get("code")) == (429, "too_many_jobs")
        assert (await router.over(job["id"]))["error"]["code"] == "too_many_jobs"
        assert router.services.spool.usage().blobs == 0


def peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.mark.parametrize("length", [True, False], ids=["of announced length", "of unknown length"])
def test_a_large_upload_takes_little_memory(tmp_path: Path, length: bool) -> None:
    """200 MB without their last byte, so that no probe runs and the upload alone is measured."""
    size = 200 * MIB
    with stack(tmp_path, workers=0) as running, Api(running.url) as api:
        small = api.create(size_bytes=8 * MIB)
        api.http.put(f"/v1/jobs/{small['id']}/audio", content=bytes(8 * MIB - 1))
        api.http.delete(f"/v1/jobs/{small['id']}")
        job = api.create(size_bytes=size)
        reset_peak(running.router.pid)
        before = peak_kib(running.router.pid)
        chunks = (bytes(MIB) for _ in range(size // MIB - 1))
        if length:
            client = HTTPConnection(running.url.removeprefix("http://"), timeout=60)
            client.putrequest("PUT", f"/v1/jobs/{job['id']}/audio")
            client.putheader("content-length", str(size))
            client.endheaders(chunks)
            client.close()
        else:
            assert api.http.put(f"/v1/jobs/{job['id']}/audio", content=chunks).status_code == 202
        grown_kib = peak_kib(running.router.pid) - before
        for _ in range(100):
            if (offset := api.http.head(f"/v1/jobs/{job['id']}/audio").headers["upload-offset"]) == str(size - MIB):
                break
            time.sleep(0.05)
        assert offset == str(size - MIB)
        api.http.delete(f"/v1/jobs/{job['id']}")
    assert grown_kib <= 2 * 1024, f"{grown_kib} KiB"


async def test_a_second_upload_that_comes_after_the_last_byte_changes_nothing(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as router:
        job = await router.create()
        first = await router.http.put(f"/v1/jobs/{job['id']}/audio", content=SONG)
        assert first.status_code == 202
        with pytest.raises(Problem) as refused:  # it had read the record before the first one's last byte
            await uploads.input_blob(router.app.state.services, job["id"], None, len(SONG))
        assert refused.value.code == "not_ready"
        queued = (await router.app.state.services.jobs.get(job["id"])).job
        assert queued.input is not None
        assert (await router.app.state.services.spool.extent(queued.input.ref)).complete
