"""Tiers that die, freeze, rest and come back under a real router: what the person and the operator see of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ops.bench._setup import BenchSetup, running_setup, song
from ops.topology import free_port
from tests.loopback import TLS

SMALL = song(200_000)
PATIENCE_S = 30.0


def eventually(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


class Operator:
    """The operators' port of a field's router."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def status(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/v1/status", verify=TLS).raise_for_status().json())

    def backend(self, name: str) -> dict[str, Any]:
        return next(b for tier in self.status()["tiers"] for b in tier["backends"] if b["name"] == name)

    def tell(self, name: str, mode: str) -> None:
        httpx.put(f"{self.url}/v1/backends/{name}/mode", json={"mode": mode}).raise_for_status()


def tiers_of(job: dict[str, Any]) -> list[tuple[str, str]]:
    return [(attempt["tier"], attempt["outcome"]) for attempt in job["attempts"]]


def test_when_a_whole_tier_dies_under_its_jobs_everybody_gets_a_master() -> None:
    with running_setup(["managed", "managed", "cpu_space"], render_s=0.5, max_running_per_account=4) as field:
        client = field.client()
        jobs = [client.send(SMALL) for _ in range(4)]
        for worker in field.workers[:2]:
            worker.stop()
        jobs += [client.send(SMALL) for _ in range(3)]
        ends = [client.wait(job_id) for job_id in jobs]
        assert [job["state"] for job in ends] == ["mastered"] * 7
        assert all(job["attempts"][-1]["tier"] == "cpu_space" for job in ends[-3:])
        assert client.fetch(jobs[0]) == SMALL


def test_a_song_in_flight_to_a_worker_that_is_killed_arrives_whole_at_another() -> None:
    audio = song(8 * 2**20)
    with running_setup(["managed", "managed"]) as field:
        client = field.client()
        field.stall_file.touch()
        began_s = time.monotonic()
        job_id = client.send(audio)
        victim, _ = field.latest("stalled", began_s, PATIENCE_S)
        victim.stop()
        job = client.wait(job_id)
        assert tiers_of(job) == [("managed", "crash"), ("managed", "done")]
        assert client.fetch(job_id) == audio


def test_a_worker_that_freezes_is_given_up_and_the_song_goes_elsewhere() -> None:
    with running_setup(["managed", "managed"]) as field:
        client = field.client()
        field.stall_file.touch()
        began_s = time.monotonic()
        job_id = client.send(song(8 * 2**20))
        victim, _ = field.latest("stalled", began_s, PATIENCE_S)
        victim.stop(signal.SIGSTOP)
        job = client.wait(job_id)
        assert tiers_of(job) == [("managed", "crash"), ("managed", "done")]


def test_managed_only_sends_no_byte_to_another_tier_whatever_is_down() -> None:
    with running_setup(["managed", "gpu_space", "cpu_space"]) as field:
        client = field.client()
        field.workers[0].stop()
        field.workers[0].process.wait()
        with httpx.Client(base_url=field.url) as http:
            job = http.post("/v1/jobs", json={"managed_only": True}).raise_for_status().json()
            http.put(f"/v1/jobs/{job['id']}/audio", content=SMALL).raise_for_status()
        others = client.wait(client.send(SMALL))
        assert others["attempts"][-1]["tier"] == "gpu_space"
        private = client.wait(job["id"], limit_s=0)
        assert private["state"] == "queued"
        assert [len(worker.notes("begun")) for worker in field.workers[1:]] == [1, 0]


def test_cancelling_a_render_frees_its_worker() -> None:
    with running_setup(["managed"], render_s=600.0) as field:
        client = field.client()
        began_s = time.monotonic()
        job_id = client.send(SMALL)
        field.latest("accepted", began_s, PATIENCE_S)
        client.end(job_id)
        field.latest("freed", began_s, PATIENCE_S)


@pytest.fixture(scope="module")
def operated() -> Iterator[tuple[BenchSetup, Operator]]:
    port = free_port()
    with running_setup(["managed", "managed"], render_s=0.2, admin_port=port) as field:
        yield field, Operator(port)


def test_a_drained_backend_gets_nothing_and_stays_drained_over_a_restart(operated: tuple[BenchSetup, Operator]) -> None:
    field, operator = operated
    client = field.client()
    operator.tell("stub-0", "draining")
    ends = [client.wait(client.send(SMALL)) for _ in range(3)]
    assert [job["state"] for job in ends] == ["mastered"] * 3
    assert field.workers[0].notes("begun") == []
    field.restart_router()
    assert operator.backend("stub-0")["state"] == "draining"
    operator.tell("stub-0", "ready")
    assert operator.backend("stub-0")["mode"] == "ready"


def test_a_catalogue_is_read_again_on_sighup_and_a_wrong_one_is_shown(operated: tuple[BenchSetup, Operator]) -> None:
    field, operator = operated
    assert field.router is not None
    catalogue = field.folder / "catalogue.toml"
    good = catalogue.read_text()
    catalogue.write_text(good.replace("managed", "quantum", 1))
    field.router.send_signal(signal.SIGHUP)
    eventually(lambda: "line 3: tier" in (operator.status()["catalogue_error"] or ""))
    assert operator.backend("stub-0")["tier"] == "managed"
    catalogue.write_text(good.replace("managed", "cpu_space", 1))
    field.router.send_signal(signal.SIGHUP)
    eventually(lambda: operator.backend("stub-0")["tier"] == "cpu_space")
    assert operator.status()["catalogue_error"] is None
    catalogue.write_text(good)
    eventually(lambda: operator.backend("stub-0")["tier"] == "managed")


def test_the_operators_port_is_not_on_the_peoples_port(operated: tuple[BenchSetup, Operator]) -> None:
    field, operator = operated
    for path in ("/v1/status", "/v1/tiers", "/metrics", "/livez", "/readyz"):
        assert httpx.get(operator.url + path).status_code == 200
        assert httpx.get(field.url + path).status_code == 404
