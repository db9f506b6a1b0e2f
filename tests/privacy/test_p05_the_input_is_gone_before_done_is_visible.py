"""P05: polled as fast as it goes, nobody ever sees a job over while its input can still be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api import Api
from tests.loopback import TLS
from tests.songs import demo
from tests.stack import Stack, stack

OVER = ("mastered", "delivered", "failed", "cancelled", "expired", "wiped")


class Watcher(threading.Thread):
    """Polls one job; in the moment when it is over, counts the files in the spool."""

    def __init__(self, running: Stack, job_id: str) -> None:
        super().__init__(daemon=True)
        self._running, self._job_id = running, job_id
        self.looking = threading.Event()
        self.state = ""
        self.inputs_left = -1

    def run(self) -> None:
        with httpx.Client(base_url=self._running.url, trust_env=False, timeout=30, verify=TLS) as http:
            for _ in range(100_000):
                job = http.get(f"/v1/jobs/{self._job_id}").json()
                self.looking.set()
                if job["state"] in OVER:
                    files = sum(path.is_file() for path in self._running.spool_dir.glob("*/*"))
                    keys = len(list((self._running.ram_dir / "keys").iterdir()))
                    self.state, self.inputs_left = job["state"], max(files, keys) - len(job["outputs"])
                    return


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("stack")) as whole:
        yield whole


@pytest.mark.parametrize("end", ["success", "failure", "cancel"])
def test_nobody_sees_a_job_over_while_its_input_exists(running: Stack, tmp_path: Path, end: str) -> None:
    song = demo(tmp_path / "song.wav", 5)
    with Api(running.url) as api:
        job = api.create()
        watcher = Watcher(running, job["id"])
        watcher.start()
        assert watcher.looking.wait(30)
        api.upload(job["id"], b"no song" * 1000 if end == "failure" else song)
        if end == "cancel":
            api.http.delete(f"/v1/jobs/{job['id']}")
        watcher.join(90)
        api.http.delete(f"/v1/jobs/{job['id']}")
        assert watcher.inputs_left == 0
        assert watcher.state == {"success": "mastered", "failure": "failed", "cancel": "cancelled"}[end]
