"""Kill -9 where it hurts: an accepted job still ends in a verified master."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
import soundfile as sf

from tests.api import Api, Job
from tests.loopback import TLS
from tests.songs import RATE_HZ, demo
from tests.stack import Stack, stack, start_worker, wait_for

SECONDS = 120.0


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = demo(tmp_path_factory.mktemp("song") / "song.wav", SECONDS)
    assert path.stat().st_size > 20_000_000
    return path


def in_render(job: Job) -> bool:
    """The worker says that it renders: the song has left the router and no result has come."""
    return job["state"] == "running" and job["progress"] is not None and job["progress"]["fraction"] > 0.1


def assert_master(api: Api, job: Job) -> None:
    with sf.SoundFile(io.BytesIO(api.fetch(job))) as master:
        assert (master.frames, master.samplerate, master.channels) == (round(SECONDS * RATE_HZ), RATE_HZ, 2)
    assert job["report"]["after"]["integrated_lufs"] == pytest.approx(-14.0, abs=0.1)


def assert_input_gone(running: Stack, job: Job) -> None:
    """What is left in the spool is as many files as outputs, and as many keys."""
    blobs = [path for path in running.spool_dir.glob("*/*") if path.is_file()]
    assert len(blobs) == len(job["outputs"])
    assert len(list((running.ram_dir / "keys").iterdir())) == len(blobs)


def test_a_job_whose_worker_is_killed_mid_render_is_mastered_by_another(tmp_path: Path, song: Path) -> None:
    with stack(tmp_path, workers=2) as running, Api(running.url) as api:
        job = api.until(api.send(song)["id"], in_render)
        busy = next(
            worker
            for worker in running.workers
            if httpx.get(f"{worker.url}/v1/health", verify=TLS).json()["slots"]["running"]
        )
        busy.kill()
        job = api.mastered(job["id"])
        assert [attempt["outcome"] for attempt in job["attempts"]] == ["crash", "done"]
        assert_master(api, job)
        assert_input_gone(running, job)


def test_a_job_whose_only_worker_is_killed_waits_for_its_return(shared_stack: Stack, song: Path) -> None:
    running = shared_stack
    with Api(running.url) as api:
        job = api.until(api.send(song)["id"], in_render)
        port = int(running.workers[0].url.rpartition(":")[2])
        running.workers[0].kill()
        api.until(job["id"], lambda job: job["state"] == "queued")
        running.workers[0] = start_worker(running.folder, 1, port)
        wait_for(running.workers[0], f"{running.workers[0].url}/v1/health")
        assert_master(api, api.mastered(job["id"]))
        api.http.delete(f"/v1/jobs/{job['id']}")


def test_a_router_killed_mid_job_masters_it_after_its_restart(shared_stack: Stack, song: Path) -> None:
    running = shared_stack
    with Api(running.url) as api:
        job = api.until(api.send(song)["id"], in_render)
        running.router.kill()
        running.restart_router()
        job = api.mastered(job["id"])
        assert [attempt["outcome"] for attempt in job["attempts"]][-1] == "done"
        assert_master(api, job)
        assert_input_gone(running, job)
        api.http.delete(f"/v1/jobs/{job['id']}")


def test_an_upload_cut_by_a_killed_router_goes_on_where_it_stopped(shared_stack: Stack, song: Path) -> None:
    running, whole = shared_stack, song.read_bytes()
    with Api(running.url) as api:
        job = api.create(size_bytes=len(whole))
        part = whole[: 10 * 1024 * 1024 + 12_345]
        assert api.upload(job["id"], part).status_code == 202
        running.router.kill()
        running.restart_router()
        offset = int(api.http.head(f"/v1/jobs/{job['id']}/audio").headers["upload-offset"])
        assert offset == len(part)
        response = api.http.put(
            f"/v1/jobs/{job['id']}/audio", content=whole[offset:], headers={"upload-offset": str(offset)}
        )
        assert response.status_code == 202, response.text
        assert_master(api, api.mastered(job["id"]))
