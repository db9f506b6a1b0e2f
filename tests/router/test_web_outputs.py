"""Masters going out: whole, in part, for as long as their time lasts and not a moment longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router import clock
from router.tiers.fake import FakeBackend
from tests.houses import MASTER, mastering
from tests.served import Served, served

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


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-", 0, SIZE),
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
    ttl_s = router.house.settings.output_ttl_s
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
    found, _ = await router.house.jobs.get(job_id)
    for blob in found.outputs.values():
        await router.house.spool.drop(blob.ref)
    response = await router.http.get(address)
    assert (response.status_code, response.json()["code"]) == (410, "gone")
