"""The operators' port: its status is true, modes of backends take effect, and it shows nothing of a person."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

from mastering.contract import FaultCode
from router.admin.app import make_admin
from router.admin.status import BackendStatus, TierStatus, _condition, _summary
from router.cli import operate
from router.core.command_error import CommandError
from router.core.errors import Problem
from router.jobs import lifecycle
from router.jobs.services import Services
from router.store.state import JobState
from router.tiers.fake import FakeBackend, Hang
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, BackendHealth
from tests.services import mastering, queue_song, until, working


@asynccontextmanager
async def admin(
    folder: Path, *backends: FakeBackend, **settings: Any
) -> AsyncIterator[tuple[Services, httpx.AsyncClient]]:
    async with working(folder, backends, **settings) as services:
        transport = httpx.ASGITransport(make_admin(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield services, client


def fake(name: str = "a", **changes: Any) -> FakeBackend:
    return FakeBackend(name, [mastering()], **changes)


async def test_the_status_says_what_is_up_what_runs_and_what_happened(tmp_path: Path) -> None:
    started = asyncio.Event()

    def begun() -> Accepted:
        started.set()
        return Accepted("scripted")

    frozen = FakeBackend("a", [[TierFault(FaultClass.CAPACITY, "busy", retry_after_s=0.01)], [begun, Hang()]])
    down = fake("space", tier="gpu_space")
    down.health = BackendHealth(False, "silent")
    async with admin(tmp_path, frozen, down) as (services, client):
        await services.fleet.probe_all()
        running = await queue_song(services)
        waiting = await queue_song(services)
        await started.wait()
        body = (await client.get("/v1/status")).json()
        assert body["summary"] == "Songs are mastered, but without: Hugging Face GPU Space."
        assert not body["healthy"]
        assert [(t["name"], t["up"], t["in_flight"], t["slots"]) for t in body["tiers"]] == [
            ("managed", True, 1, 1),
            ("gpu_space", False, 0, 1),
        ]
        space = body["tiers"][1]["backends"][0]
        assert (space["state"], space["reason"]) == ("open", "silent")
        assert 0 < space["back_in_s"] <= 6
        assert (body["queue"]["waiting"], body["queue"]["running"]) == (1, 1)
        assert sum(body["queue"]["by_age"].values()) == 1
        assert body["queue"]["by_kind"] == {"master": 1}
        assert body["queue"]["eta_s"] > 0
        assert body["spool"]["files"] == 2
        attempts = [(e["what"], e["backend"]) for e in body["events"] if e["kind"] == "attempt"]
        assert attempts == [("capacity", "a")]
        text = (await client.get("/v1/status")).text
        assert running.id not in text
        assert waiting.id not in text
        assert (await client.get("/v1/tiers")).json()[0]["name"] == "managed"


@pytest.mark.parametrize(
    ("paces", "lacks"),
    [
        ({"master": frozenset({"quick", "fit"})}, []),
        ({"master": frozenset({"quick"})}, ["can't do 'Refined'. It needs torch: 'make setup-torch' "]),
        (None, []),
    ],
    ids=["all", "no torch", "not said"],
)
async def test_the_status_says_what_a_backend_can_not_do_and_what_would_cure_it(
    tmp_path: Path, paces: dict[str, frozenset[str]] | None, lacks: list[str]
) -> None:
    worker = fake()
    worker.health = BackendHealth(True, "answers", kinds={"master": {}}, paces=paces)
    async with admin(tmp_path, worker) as (services, client):
        await services.fleet.probe_all()
        (backend,) = (await client.get("/v1/status")).json()["tiers"][0]["backends"]
        assert [said.partition("on a worker")[0] for said in backend["lacks"]] == lacks


@pytest.mark.parametrize(
    ("health", "error", "summary"),
    [
        ([], None, "No backend is set up."),
        ([False], None, "No tier is up: new songs wait or are refused."),
        ([True], None, "All tiers are up."),
        ([True], "line 3: no", "All tiers are up, but the catalogue has a mistake."),
    ],
)
async def test_the_summary_is_one_true_sentence(
    tmp_path: Path, health: list[bool], error: str | None, summary: str
) -> None:
    backends = [fake(f"b{n}") for n, _ in enumerate(health)]
    for backend, up in zip(backends, health, strict=True):
        backend.health = BackendHealth(up, "as told")
    async with admin(tmp_path, *backends) as (services, client):
        services.fleet.catalogue_error = error
        body = (await client.get("/v1/status")).json()
        assert body["summary"] == summary
        assert body["healthy"] == (summary == "All tiers are up.")
        assert (body["queue"]["eta_s"] is None) == (True not in health)


@pytest.mark.parametrize(
    ("states", "but"),
    [
        (["half-open"], "on trial after a fault"),
        (["open", "half-open"], "on trial after a fault"),
        (["suspect"], "in doubt until the next probe"),
        (["suspect", "half-open", "open"], "in doubt until the next probe"),
        (["half-open", "healthy"], ""),
        (["suspect", "healthy"], ""),
        (["sleeping"], "asleep until one is needed"),
        (["sleeping", "open"], "asleep until one is needed"),
        (["sleeping", "healthy"], ""),
    ],
)
async def test_a_tier_that_is_only_tried_or_in_doubt_is_not_said_to_be_up(states: list[str], but: str) -> None:
    backends = [BackendStatus.model_construct(state=state) for state in states]
    tier = TierStatus.model_construct(title="Managed GPU workers", up=True, backends=backends)
    expected = f"All tiers take songs, but {but}: Managed GPU workers."
    assert _summary([tier], None) == (expected if but else "All tiers are up.")


async def test_a_worker_of_another_version_is_shown_as_such_and_its_tier_as_down(tmp_path: Path) -> None:
    old = fake("old")
    old.health = BackendHealth(True, "answers", engine_version="999.0.0", device="cpu")
    async with admin(tmp_path, old, fake("b", tier="cpu_space")) as (_, client):
        body = (await client.get("/v1/status")).json()
        assert body["summary"] == "Songs are mastered, but without: Managed CPU workers."
        assert not body["healthy"]
        managed, space = body["tiers"]
        assert (managed["up"], managed["condition"], space["condition"]) == (False, "down", "up")
        shown = managed["backends"][0]
        assert shown["state"] == "incompatible"
        assert shown["reason"].startswith("speaks another version: its engine is 999.0.0")
        assert "Managed CPU workers: another engine version" in body["queue"]["outlook"]


@pytest.mark.parametrize(
    ("states", "condition"),
    [
        ({"healthy", "open"}, "up"),
        ({"half-open", "suspect"}, "on trial"),
        ({"suspect", "open"}, "in doubt"),
        ({"sleeping", "open"}, "asleep"),
        ({"warming"}, "starting"),
        ({"incompatible", "draining"}, "down"),
    ],
)
async def test_a_tiers_condition_is_its_best_backends(states: set[str], condition: str) -> None:
    assert _condition(states) == condition


async def test_a_drained_backend_gets_nothing_and_a_ready_one_gets_the_job_that_waited(tmp_path: Path) -> None:
    async with admin(tmp_path, fake()) as (services, client):
        told = await client.put("/v1/backends/a/mode", json={"mode": "draining"})
        assert told.json()["tiers"][0]["backends"][0]["state"] == "draining"
        job = await queue_song(services)
        assert (await client.get("/v1/status")).json()["queue"]["waiting"] == 1
        await client.put("/v1/backends/a/mode", json={"mode": "ready"})
        assert (await until(services, job.id, JobState.MASTERED, JobState.WIPED)).state is JobState.MASTERED


async def test_maintenance_moves_a_running_job_to_another_backend_at_no_cost(tmp_path: Path) -> None:
    started = asyncio.Event()

    def begun() -> Accepted:
        started.set()
        return Accepted("scripted")

    first = FakeBackend("a", [[begun, Hang()]])
    async with admin(tmp_path, first, fake("b", tier="cpu_space")) as (services, client):
        job = await queue_song(services)
        await started.wait()
        await client.put("/v1/backends/a/mode", json={"mode": "maintenance"})
        done = await until(services, job.id, JobState.MASTERED, JobState.WIPED)
        assert [(a.backend, a.outcome) for a in done.attempts] == [("a", "capacity"), ("b", "done")]
        assert (done.faults, done.deaths, first.closed_early) == (0, 0, 1)


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/backends/nobody/mode", {"mode": "ready"}, 404, "not_found"),
        ("/v1/backends/a/mode", {"mode": "asleep"}, 422, "bad_settings"),
        ("/v1/backends/a/mode", {"mode": "ready", "x": 1}, 422, "bad_settings"),
    ],
)
async def test_a_word_that_makes_no_sense_is_refused(
    tmp_path: Path, path: str, body: dict[str, object], status: int, code: str
) -> None:
    async with admin(tmp_path, fake()) as (_, client):
        answer = await client.put(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_other_sites_and_other_names_are_refused(tmp_path: Path) -> None:
    async with admin(tmp_path, fake()) as (_, client):
        foreign = {"origin": "https://elsewhere.example"}
        answer = await client.put("/v1/backends/a/mode", json={"mode": "draining"}, headers=foreign)
        assert answer.status_code == 403
        assert (await client.get("/v1/status", headers={"host": "rebound.example"})).status_code == 421


async def test_load_balancers_learn_that_it_lives_and_whether_songs_can_be_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with admin(tmp_path) as (services, client):
        assert [(await client.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 200]
        full = services.spool.usage()._replace(reserved_bytes=services.settings.spool_quota_bytes)
        monkeypatch.setattr(services.spool, "usage", lambda: full)
        assert [(await client.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 503]


async def test_the_metrics_follow_the_conventions_and_have_no_label_of_a_person(tmp_path: Path) -> None:
    down = fake("b", tier="cpu_space")
    down.health = BackendHealth(False, "silent")
    async with admin(tmp_path, fake(), down) as (services, client):
        job = await queue_song(services, account="someone")
        await until(services, job.id, JobState.MASTERED)
        answer = await client.get("/metrics")
        families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        ours = {name: family for name, family in families.items() if name.startswith("router_")}
        assert {"router_attempts", "router_jobs", "router_backend_state", "router_spool_used_bytes"} <= set(ours)
        for name, family in ours.items():
            assert family.documentation
            assert re.fullmatch(r"router_[a-z_]+", name)
            assert not re.search(r"_(ms|mb|kb|minutes|percent)$", name)
            for sample in family.samples:
                assert set(sample.labels) <= {"kind", "tier", "backend", "state", "outcome", "code", "le", "pool"}
        states = {(s.labels["backend"], s.labels["state"]) for s in ours["router_backend_state"].samples if s.value}
        assert states == {("a", "healthy"), ("b", "unknown")}
        done = [
            s for s in ours["router_attempts"].samples if s.labels.get("outcome") == "done" and s.name.endswith("total")
        ]
        assert [s.value for s in done] == [1.0]
        assert "someone" not in answer.text
        assert job.id not in answer.text


async def test_the_page_loads_nothing_from_elsewhere_and_nothing_inline(tmp_path: Path) -> None:
    async with admin(tmp_path) as (_, client):
        page = await client.get("/")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert [a for a in addresses if not a.startswith(("/", "data:,"))] == []
        assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page.text)
        for address in re.findall(r'"(/static/[^"]+)"', page.text):
            assert (await client.get(address)).status_code == 200
        assert (await client.get("/static/../app.py")).status_code == 404
        assert (await client.get("/static/none.js")).status_code == 404


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, object]]:
    """The requests of the operators' commands, which get a prepared answer without a socket."""
    asked: list[tuple[str, str, object]] = []
    backend = {"name": "a", "state": "draining", "reason": "an operator said so", "in_flight": 1, "slots": 2}
    backend |= {"kinds": ["master"], "lacks": ["can't do 'Refined'. It needs torch."]}
    backend |= {"since_s": 3.0, "eta_s": 14.0}
    status = {
        "summary": "All tiers are up.",
        "catalogue_error": "line 3: no",
        "tiers": [{"title": "Managed GPU workers", "backends": [backend]}],
        "queue": {"waiting": 2, "running": 1, "oldest_s": 5.0, "outlook": "Soon."},
        "spool": {"used_bytes": 5e6, "quota_bytes": 1e9, "files": 3},
    }

    def request(method: str, url: str, json: object, **_: Any) -> httpx.Response:
        asked.append((method, url, json))
        if "nobody" in url:
            return httpx.Response(404, json={"title": "Nothing here", "detail": "There is no backend of that name."})
        return httpx.Response(200, json=status)

    monkeypatch.setattr(httpx, "request", request)
    return asked


def test_the_verbs_show_the_status_and_tell_backends(
    requests: list[tuple[str, str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    operate.show_status("http://127.0.0.1:1/", as_json=False)
    shown = capsys.readouterr().out
    for words in (
        "All tiers are up.",
        "line 3: no",
        "draining",
        "1/2",
        "2 waiting, the oldest for 5 s",
        "5 of 1000 MB",
        "a can't do 'Refined'. It needs torch.",
    ):
        assert words in shown
    operate.show_status("http://127.0.0.1:1", as_json=True)
    assert '"summary": "All tiers are up."' in capsys.readouterr().out
    operate.set_mode("http://127.0.0.1:1", "a", "draining")
    assert capsys.readouterr().out == "a is draining (an operator said so); 1 in flight.\n"
    assert requests[-1] == ("PUT", "http://127.0.0.1:1/v1/backends/a/mode", {"mode": "draining"})
    with pytest.raises(CommandError, match=r"There is no backend of that name\."):
        operate.set_mode("http://127.0.0.1:1", "nobody", "ready")


def test_a_router_that_does_not_answer_is_one_line_with_the_cure(unused_tcp_port: int) -> None:
    with pytest.raises(CommandError, match=r"no router answers at .* ROUTER_ADMIN_PORT"):
        operate.show_status(f"http://127.0.0.1:{unused_tcp_port}", as_json=False)


def test_every_operators_verb_is_a_command() -> None:
    from router.cli.main import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert {"status", "drain", "maintenance", "ready"} <= names
    assert isinstance(app, typer.Typer)


async def test_each_job_is_counted_once_by_how_it_ended(tmp_path: Path) -> None:
    scripts = [mastering(), [TierFault(FaultClass.USER, "it is bad", code=FaultCode.UNDECODABLE)], [Hang()]]
    async with admin(tmp_path, FakeBackend("a", scripts)) as (services, client):
        mastered = await until(services, (await queue_song(services)).id, JobState.MASTERED)
        await lifecycle.end(services, mastered.id, JobState.CANCELLED)  # it was fetched; it ended well before
        await until(services, (await queue_song(services)).id, JobState.WIPED)
        running = await until(services, (await queue_song(services)).id, JobState.RUNNING)
        await lifecycle.end(services, running.id, JobState.CANCELLED, Problem("cancelled"))
        await lifecycle.end(services, running.id, JobState.CANCELLED, Problem("cancelled"))
        with pytest.raises(Problem):
            await queue_song(services, b"fault:silent")
        families = text_string_to_metric_families((await client.get("/metrics")).text)
        jobs = next(family for family in families if family.name == "router_jobs")
        counted = {s.labels["outcome"]: s.value for s in jobs.samples if s.name.endswith("_total")}
        assert counted == {"mastered": 1, "undecodable": 1, "cancelled": 1, "silent": 1}
