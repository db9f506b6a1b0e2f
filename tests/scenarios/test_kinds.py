"""A kind of job of one's own, `tests.kinds`, through a whole router, a worker and both Spaces; and who lacks it."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from mastering.contract import kinds
from tests import space_process, stack
from tests.kinds import levels
from tests.space_process import Kind, SpaceProcess
from tests.stack import Running

ROOT = Path(__file__).parents[2]
WITH_LEVELS = {kinds.VARIABLE: "tests.kinds.levels:LEVELS", "PYTHONPATH": str(ROOT)}
RATE_HZ = 44_100
PATIENCE_S = 60.0


@dataclass
class Service:
    """A router that knows the kind; its catalogue has one worker that does not."""

    folder: Path
    cleanup: ExitStack
    router: Running
    http: httpx.Client
    backends: list[str] = field(default_factory=list)

    @property
    def catalogue(self) -> Path:
        return self.folder / "catalogue.toml"

    def add(self, name: str, tier: str, url: str) -> None:
        """Put a backend into the catalogue, and wait until the router has it."""
        self.backends.append(f'[[backend]]\nname = "{name}"\ntier = "{tier}"\nurl = "{url}"\n')
        self.catalogue.write_text("\n".join(self.backends), "utf-8")
        self.router.process.send_signal(signal.SIGHUP)
        space_process.until(lambda: tier in [known["name"] for known in self.options()["tiers"]])

    def options(self) -> dict[str, Any]:
        return dict(self.http.get("/v1/options").raise_for_status().json())

    def make(self, **asked: object) -> httpx.Response:
        return self.http.post("/v1/jobs", json={"kind": "levels", **asked})

    def done(self, song: bytes, **asked: object) -> dict[str, Any]:
        """A job of the kind, when it is done."""
        space_process.until(lambda: self.make(size_bytes=1).status_code == 201, PATIENCE_S)
        job = self.make(**asked).raise_for_status().json()
        self.http.put(f"/v1/jobs/{job['id']}/audio", content=song).raise_for_status()
        for _ in range(10):
            job = self.http.get(f"/v1/jobs/{job['id']}", headers={"prefer": "wait=30"}).json()
            if job["state"] in ("mastered", "failed"):
                break
        assert job["state"] == "mastered", job
        return dict(job)

    def fetched(self, job: dict[str, Any], output: str) -> httpx.Response:
        return self.http.get(f"/v1/jobs/{job['id']}/outputs/{output}").raise_for_status()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("kinds")
    with ExitStack() as cleanup:
        worker = stack.start_worker(folder)
        cleanup.callback(worker.stop)
        stack.wait_for(worker, f"{worker.url}/v1/health")
        first = f'[[backend]]\nname = "plain"\ntier = "managed"\nurl = "{worker.url}"\n'
        (folder / "catalogue.toml").write_text(first, "utf-8")
        ram = cleanup.enter_context(stack.own_ram())
        environment = {**WITH_LEVELS, "ROUTER_CATALOGUE": str(folder / "catalogue.toml")}
        environment["ROUTER_MAX_QUEUED_PER_ACCOUNT"] = "1000"
        router = stack.start_router(folder, [], ram, folder / "spool", environment)
        cleanup.callback(router.stop)
        http = cleanup.enter_context(httpx.Client(base_url=router.url, timeout=60, trust_env=False))
        yield Service(folder, cleanup, router, http, [first])


@pytest.fixture(scope="module")
def song() -> bytes:
    """Three seconds, each half as loud as the one before."""
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)
    samples = np.concatenate([0.5 * tone, 0.25 * tone, 0.125 * tone])
    file = io.BytesIO()
    soundfile.write(file, np.stack([samples, samples], axis=1), RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()


def space(service: Service, kind: Kind) -> SpaceProcess:
    place = service.folder / kind
    app = place / "app"
    app.mkdir(parents=True)
    space_process.put_together(kind, app)
    for file in ("__init__", "levels", "levels_work"):  # as one adds files of one's own to a Space
        target = app / "tests" / "kinds" / f"{file}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / "kinds" / f"{file}.py", target)
    started = space_process.start_space(kind, place, environment=WITH_LEVELS)
    service.cleanup.callback(started.stop)
    return started


def check_outputs(service: Service, job: dict[str, Any], song: bytes) -> None:
    """The two outputs and the report are what the kind promises of this song."""
    answer = service.fetched(job, "json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == 'attachment; filename="levels.json"'
    found = json.loads(answer.content)["levels_dbfs"]
    assert found == pytest.approx([-9.03, -15.05, -21.07], abs=0.05)
    samples, _ = soundfile.read(io.BytesIO(service.fetched(job, "wav16").content), dtype="int16")
    assert np.array_equal(samples, soundfile.read(io.BytesIO(song), dtype="int16")[0])
    assert (job["kind"], job["report"]["windows"]) == ("levels", 3)
    assert [output["format"] for output in job["outputs"]] == ["json", "wav16"]


def test_a_tier_that_lacks_the_kind_is_passed_over_and_where_all_do_the_job_is_refused(service: Service) -> None:
    refused = service.make()
    assert refused.status_code == 503
    assert refused.json()["code"] == "no_tier"
    assert "Managed CPU workers: does no jobs of the kind 'levels'" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0


@pytest.mark.timeout(300)
def test_it_is_done_by_both_spaces_and_a_worker_each_where_the_tiers_above_can_not(
    service: Service, song: bytes
) -> None:
    asked = {"options": {"window_s": 1.0}, "outputs": ["json", "wav16"]}
    with ThreadPoolExecutor() as pool:
        gpu, cpu = pool.map(lambda kind: space(service, kind), ("zero_gpu", "cpu"))
    service.add("gpu", "gpu_space", gpu.url)
    service.add("cpu", "cpu_space", cpu.url)
    job = service.done(song, **asked)
    check_outputs(service, job, song)
    (attempt,) = job["attempts"]
    assert attempt["tier"] == "gpu_space"
    assert "Managed CPU workers: does no jobs of the kind 'levels'" in attempt["reason"]
    gpu.kill()
    job = service.done(song, **asked)
    check_outputs(service, job, song)
    assert job["attempts"][-1]["tier"] == "cpu_space"
    worker = stack.start_worker(service.folder, 1, environment=WITH_LEVELS)
    service.cleanup.callback(worker.stop)
    stack.wait_for(worker, f"{worker.url}/v1/health")
    service.add("own", "managed", worker.url)
    space_process.until(lambda: service.done(song, **asked)["attempts"][-1]["tier"] == "managed", PATIENCE_S)
    job = service.done(song, **asked)
    check_outputs(service, job, song)
    assert job["attempts"][-1]["tier"] == "managed"
    receipt = service.http.delete(f"/v1/jobs/{job['id']}").json()["receipt"]
    assert receipt["input_key_destroyed_at"]
    assert receipt["outputs_key_destroyed_at"]
    check_records(service)


def check_records(service: Service) -> None:
    """The log speaks of the kind and its own words, and has dropped nothing."""
    lines = [json.loads(line) for line in service.router.said().splitlines() if line.startswith("{")]
    records = [line for line in lines if line["event"] == "render" and line["outcome"] == "mastered"]
    assert {(line["kind"], line["window_s"]) for line in records} == {("levels", 1.0)}
    assert {line["tier"] for line in records} == {"gpu_space", "cpu_space", "managed"}


WRONG = {
    "an unknown kind": ({"kind": "karaoke"}, "kind", "Choose one of: master, levels"),
    "an unknown option": ({"options": {"windows": 1}}, "windows", "Extra inputs"),
    "an option out of its bounds": ({"options": {"window_s": 11}}, "window_s", "less than or equal to 10"),
    "options that do not go together": ({"options": {"window_s": 6, "floor_dbfs": -1}}, "floor_dbfs", "lower floor"),
    "an unknown output": ({"outputs": ["midi"]}, "outputs", "Choose among: json, wav16"),
    "no output": ({"outputs": []}, "outputs", "Choose among"),
    "an option of a master": ({"style": "warm"}, "style", "Put options into `options`"),
    "options that are no object": ({"options": [1]}, "options", "dictionary"),
    "a kind that is no name": ({"kind": "../x"}, "kind", "pattern"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_asked_wrongly_is_refused_with_the_field_and_what_it_takes(service: Service, name: str) -> None:
    asked, where, says = WRONG[name]
    answer = service.make(**asked)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "bad_settings", where)
    assert says in answer.json()["detail"]


def test_what_can_be_asked_for_is_in_the_options(service: Service) -> None:
    offered = service.options()["kinds"]
    assert list(offered) == ["master", "levels"]
    assert offered["levels"]["outputs"]["json"]["media_type"] == "application/json"
    assert offered["levels"]["options"]["properties"]["window_s"]["maximum"] == 10
    assert offered["levels"]["max_duration_s"] == levels.LEVELS.max_duration_s
    assert offered["levels"]["max_references"] == 0
    described = service.http.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    view = schemas["JobView"]["properties"]
    assert "window_s" in json.dumps(_resolved(view["settings"], schemas))
    assert "loudest_dbfs" in json.dumps(_resolved(view["report"], schemas))


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> list[object]:
    """What a field may be, named schemas spelled out."""
    named = (re.search(r"schemas/(\w+)$", choice.get("$ref", "")) for choice in schema["anyOf"])
    return [choice if name is None else schemas[name[1]] for choice, name in zip(schema["anyOf"], named, strict=True)]


def test_a_reference_is_refused_where_the_kind_takes_none(service: Service, song: bytes) -> None:
    job = service.make().raise_for_status().json()
    answer = service.http.put(f"/v1/jobs/{job['id']}/references/1", content=song)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "takes no such reference" in answer.json()["detail"]
