"""`router submit`: a song to a running router and its master back, with progress on the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from router.core.command_error import CommandError

_CHUNK_BYTES = 256 * 1024
_EXIT_REFUSED = 3
_EXIT_UNREACHABLE = 4
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class SubmitOptions(NamedTuple):
    target: str
    style: str
    amount_percent: float
    outputs: tuple[str, ...]
    effort: str = "quick"


def submit(
    url: str,
    song: Path,
    output: Path | None,
    wanted: SubmitOptions,
    *,
    as_json: bool,
    keep: bool,
    token: str | None = None,
) -> None:
    """Send `song`, follow the job, write the master to `output` (default: beside the song). `token` is a personal one
    of the account page, where the router asks who is there. Raises Complaint."""
    if not song.is_file() or not os.access(song, os.R_OK):
        raise CommandError(f"{song} is not a file that can be read.", exit_code=2)
    console = Console(stderr=True)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with (
            httpx.Client(base_url=url, timeout=_TIMEOUT, trust_env=False, headers=headers) as http,
            _progress(console) as progress,
        ):
            job = _ok(http.post("/v1/jobs", json={**wanted._asdict(), "size_bytes": song.stat().st_size}))
            try:
                _upload(http, job["id"], song, progress)
                job = _follow(http, job["id"], progress)
                output = output or song.with_name(f"{song.stem} (master).{job['outputs'][0]['extension']}")
                _fetch(http, job["outputs"][0], output, progress)
            finally:
                if not keep:
                    http.delete(f"/v1/jobs/{job['id']}")
    except httpx.TransportError as error:
        raise CommandError(
            f"no answer from {url} ({type(error).__name__}). Is the router running? Start it with 'make run'.",
            _EXIT_UNREACHABLE,
        ) from None
    if as_json:
        print(json.dumps(job, indent=2))  # noqa: T201 — the command's result
        return
    after = job["report"]["after"]
    console.print(f"{output}: {after['integrated_lufs']:.1f} LUFS, {after['true_peak_dbtp']:.2f} dBTP")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)


def _upload(http: httpx.Client, job_id: str, song: Path, progress: Progress) -> None:
    size = song.stat().st_size
    task = progress.add_task("Uploading", total=size or 1)

    def chunks(file: BinaryIO) -> Iterator[bytes]:
        while chunk := file.read(_CHUNK_BYTES):
            progress.advance(task, len(chunk))
            yield chunk

    with song.open("rb") as file:
        _ok(http.put(f"/v1/jobs/{job_id}/audio", content=chunks(file), headers={"content-length": str(size)}))


def _follow(http: httpx.Client, job_id: str, progress: Progress) -> dict[str, Any]:
    """The job when it is mastered. Raises Complaint when it ends otherwise."""
    task = progress.add_task("Waiting", total=1.0)
    headers = {"accept": "text/event-stream"}
    while True:
        with http.stream("GET", f"/v1/jobs/{job_id}", headers=headers) as stream:
            if not stream.is_success:
                stream.read()
                _ok(stream)
            for line in stream.iter_lines():
                if not line.startswith("data: "):
                    continue
                job: dict[str, Any] = json.loads(line.removeprefix("data: "))
                _show(progress, task, job)
                if job["state"] in ("mastered", "delivered"):
                    return job
                if job["state"] in ("failed", "cancelled", "expired", "wiped"):
                    raise CommandError((job["error"] or {}).get("detail", f"the job is {job['state']}"), _EXIT_REFUSED)


def _show(progress: Progress, task: Any, job: dict[str, Any]) -> None:
    running = job["progress"]
    if running:
        stage = running["stage"] or "starting"
        progress.update(task, completed=running["fraction"], description=f"{running['tier_title']}: {stage}")
    elif job["state"] in ("mastered", "delivered"):
        progress.update(task, completed=1.0, description="Mastered")
    else:
        progress.update(task, description=job["state"].capitalize())


def _fetch(http: httpx.Client, output: dict[str, Any], path: Path, progress: Progress) -> None:
    task = progress.add_task("Downloading", total=output["size_bytes"])
    part = path.with_name(path.name + ".part")
    try:
        with http.stream("GET", output["url"]) as stream, part.open("wb") as file:
            if stream.status_code != httpx.codes.OK:
                stream.read()
                _ok(stream)
            for chunk in stream.iter_bytes(_CHUNK_BYTES):
                file.write(chunk)
                progress.advance(task, len(chunk))
        if part.stat().st_size != output["size_bytes"]:
            raise CommandError("the download ended early; run the command again.", _EXIT_UNREACHABLE)
        part.replace(path)
    except OSError as error:
        raise CommandError(f"{path} can't be written ({error.strerror}).", exit_code=2) from None
    finally:
        part.unlink(missing_ok=True)


def _ok(response: httpx.Response) -> dict[str, Any]:
    if response.is_success:
        body: dict[str, Any] = response.json()
        return body
    if response.status_code == httpx.codes.UNAUTHORIZED:
        sentence = "the router asks who you are. Make a token on its account page and set ROUTER_TOKEN to it."
        raise CommandError(sentence, _EXIT_REFUSED)
    try:
        sentence = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        sentence = f"the router answered with status {response.status_code}."
    raise CommandError(sentence, _EXIT_REFUSED)
