"""The public health: what everybody may know, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.tiers.fake import FakeBackend
from router.tiers.fleet.modes import Mode
from router.tiers.policy.tier import TIER_ORDER
from router.tiers.port import BackendHealth
from tests.served import served


@pytest.mark.parametrize(
    ("out", "status", "up"),
    [((), "ok", [True, True]), (("a",), "degraded", [False, True]), (("a", "b"), "down", [False, False])],
)
async def test_health_says_which_tiers_would_take_a_song(
    tmp_path: Path, out: tuple[str, ...], status: str, up: list[bool]
) -> None:
    async with served(tmp_path, [FakeBackend("a", []), FakeBackend("b", [], tier="cpu_space")]) as router:
        await router.services.fleet.probe_all()
        for name in out:
            await router.services.fleet.set_mode(name, Mode.MAINTENANCE)
        answer = await router.http.get("/v1/health")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert (body["status"], [tier["up"] for tier in body["tiers"]]) == (status, up)
        assert [tier["name"] for tier in body["tiers"]] == ["managed", "cpu_space"]
        assert set(body) == {"status", "sandbox", "tiers"}


async def test_health_says_where_a_sandbox_lacks_something(tmp_path: Path) -> None:
    names = ("whole", "incomplete", "silent")
    backends = [FakeBackend(name, [], tier=tier) for name, tier in zip(names, TIER_ORDER, strict=True)]
    gaps: list[tuple[str, ...] | None] = [(), ("connect",), None]
    for backend, found in zip(backends, gaps, strict=True):
        backend.health = backend.health._replace(sandbox_gaps=found)
    async with served(tmp_path, backends) as router:
        await router.services.fleet.probe_all()
        body = (await router.http.get("/v1/health")).json()
        assert [tier["sandbox"] for tier in body["tiers"]] == ["whole", "incomplete", None]
        assert body["sandbox"] == "whole"


async def test_a_tier_whose_engine_is_another_version_is_not_up(tmp_path: Path) -> None:
    worker = FakeBackend("a", [])
    worker.health = BackendHealth(True, "answers", engine_version="999.0.0", device="cpu")
    async with served(tmp_path, [worker]) as router:
        await router.services.fleet.probe_all()
        body = (await router.http.get("/v1/health")).json()
        assert body["status"] == "down"
        (tier,) = body["tiers"]
        assert (tier["title"], tier["up"]) == ("Managed CPU workers", False)


async def test_a_router_without_backends_is_down(tmp_path: Path) -> None:
    async with served(tmp_path) as router:
        assert (await router.http.get("/v1/health")).json() == {
            "status": "down",
            "sandbox": "whole",
            "tiers": [],
        }
