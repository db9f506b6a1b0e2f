"""HEAD is answered wherever GET is, with the same head, and nothing happens by it; Allow names every method."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.tiers.fake import FakeBackend
from router.web.routes import ROUTERS
from tests.served import Served, served
from tests.services import MASTER, mastering

GET_PATHS = sorted(
    route.path
    for router in ROUTERS
    for route in router.routes
    if "GET" in (getattr(route, "methods", None) or ()) and "{" not in route.path  # type: ignore[attr-defined]
)


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        yield router


@pytest.mark.parametrize("path", [*GET_PATHS, "/openapi.json", "/errors/gone", "/nowhere", "/v1/uploads"])
async def test_a_head_is_that_of_the_get(router: Served, path: str) -> None:
    told, got = await router.http.head(path), await router.http.get(path)
    assert told.content == b""
    assert told.status_code == got.status_code
    told_head, got_head = ({**answer.headers} for answer in (told, got))
    for name in ("date", "content-length") if path.startswith("/v1") else ("date",):  # of a body with times in it
        assert (told_head.pop(name, None) is None) == (got_head.pop(name, None) is None)
    assert told_head == got_head


async def test_a_master_that_is_asked_about_is_not_delivered_and_the_connection_serves_on(router: Served) -> None:
    job = await router.over((await router.send())["id"])
    address = job["outputs"][0]["url"]
    for _ in range(3):
        told = await router.http.head(address)
        assert (told.status_code, told.headers["content-length"]) == (200, str(len(MASTER)))
    part = await router.http.head(address, headers={"range": "bytes=0-9"})
    assert (part.status_code, part.headers["content-length"]) == (206, "10")
    assert (await router.http.get(f"/v1/jobs/{job['id']}")).json()["state"] == "mastered"
    assert (await router.http.get(address)).content == MASTER


async def test_asking_about_events_opens_no_stream(router: Served) -> None:
    job = await router.create()
    told = await router.http.head(f"/v1/jobs/{job['id']}", headers={"accept": "text/event-stream"})
    assert told.headers["content-type"].startswith("text/event-stream")
    assert not router.app.state.streams._open


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/jobs", "GET, HEAD, POST"),
        ("/v1/jobs/x", "DELETE, GET, HEAD"),
        ("/v1/jobs/x/audio", "DELETE, HEAD, PATCH, POST, PUT"),
        ("/v1/uploads", "OPTIONS, POST"),
        ("/", "GET, HEAD"),
    ],
)
async def test_allow_names_every_method_of_an_address(router: Served, path: str, methods: str) -> None:
    answer = await router.http.request("TRACE", path)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == methods
