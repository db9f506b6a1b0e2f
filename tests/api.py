"""A small client of the router's API for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import httpx

from tests.loopback import TLS

Job = dict[str, Any]


class Api:
    """A client of one running router."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=httpx.Timeout(60, connect=5), trust_env=False, verify=TLS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def create(self, **settings: Any) -> Job:
        response = self.http.post("/v1/jobs", json=settings)
        response.raise_for_status()
        return dict(response.json())

    def upload(self, job_id: str, song: Path | bytes) -> httpx.Response:
        content = song if isinstance(song, bytes) else song.read_bytes()
        return self.http.put(f"/v1/jobs/{job_id}/audio", content=content)

    def send(self, song: Path, **settings: Any) -> Job:
        """Make a job and upload its song."""
        job = self.create(**settings)
        response = self.upload(job["id"], song)
        assert response.status_code == 202, response.text
        return dict(response.json())

    def show(self, job_id: str) -> Job:
        return dict(self.http.get(f"/v1/jobs/{job_id}").json())

    def events(self, job_id: str, limit_s: float = 90) -> Generator[Job]:
        """The job's views from its event stream, until it is over."""
        headers = {"accept": "text/event-stream"}
        with self.http.stream("GET", f"/v1/jobs/{job_id}", headers=headers, timeout=limit_s) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def until(self, job_id: str, accepts: Callable[[Job], bool]) -> Job:
        """The first view for which `accepts` is true. Fails when the job is over before."""
        seen = []
        with closing(self.events(job_id)) as events:
            for job in events:
                if accepts(job):
                    return job
                seen.append(job["state"])
        raise AssertionError(f"the job was over before: {seen}, {self.show(job_id)['error']}")

    def mastered(self, job_id: str) -> Job:
        return self.until(job_id, lambda job: job["state"] in ("mastered", "delivered"))

    def fetch(self, job: Job, output_format: str = "wav24") -> bytes:
        response = self.http.get(f"/v1/jobs/{job['id']}/outputs/{output_format}")
        assert response.status_code == 200, response.text
        return response.content
