"""`router submit`: sends a song to a running router and fetches its master, with progress on the terminal.

A connection that breaks on the way is made anew: the upload goes on from the byte that the router has, the download
from the byte that lies here, and an Idempotency-Key keeps one song from becoming two jobs. What the router refuses is
never asked again.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mastering.runtime.command_line import ended_by_signals
from router.cli.server import checked_token, checked_url, why_no_answer
from router.cli.submit_files import check_paths, check_song, named_outputs, part_of, paths_of
from router.core.command_error import CommandError
from router.core.retry import attempts

_CHUNK_BYTES = 256 * 1024
_EXIT_REFUSED = 3
_EXIT_UNREACHABLE = 4
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_TRIES = 20
"""Tries in a row without progress: half a minute of waits, in which a router that restarts is back long before."""
_DELETE_TRIES = 3
"""Tries of the last request, after which the router destroys the audio by itself when its time is over."""
_MASTERED = ("mastered", "delivered")
_ENDED = ("failed", "cancelled", "expired", "wiped")


def wanted(
    kind: str, named: Mapping[str, object], options: Sequence[str] | None, outputs: Sequence[str] | None
) -> dict[str, object]:
    """What is asked for, as `POST /v1/jobs` takes it.

    `named` are options with a name of their own on the command line, `options` the others, as NAME=VALUE: a value is
    JSON, or else text. Raises CommandError.
    """
    given: dict[str, object] = dict(named)
    for option in options or ():
        name, is_pair, value = option.partition("=")
        if not is_pair:
            raise CommandError(f"--option {option}: write NAME=VALUE.", exit_code=2)
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    return {"kind": kind, "options": given, **({"outputs": list(outputs)} if outputs else {})}


def submit(
    url: str,
    song: Path,
    output: Path | None,
    asked: Mapping[str, Any],
    *,
    as_json: bool,
    keep: bool,
    token: str | None = None,
    resume: str | None = None,
) -> None:
    """Send `song`, follow the job, write its outputs to `output` (default: beside the song). Raises CommandError.

    `asked` is the body of `POST /v1/jobs` (`wanted`). Of several outputs each has the name with its own extension.
    `token` is a personal one of the account page, for a router with sign-in. `resume` is the id of a job that an
    earlier call made, which goes on in place of a new one. A signal to end destroys the job, as Ctrl-C does.
    """
    url, token = checked_url(url), checked_token(token)
    check_song(song)
    console = Console(stderr=True)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    job: dict[str, Any] = {}
    try:
        with (
            ended_by_signals(signal.SIGTERM, signal.SIGHUP),
            httpx.Client(base_url=url, timeout=_TIMEOUT, trust_env=False, headers=headers) as http,
            _progress_bars(console) as progress,
        ):
            offered = _offered_outputs(http, str(asked["kind"]))
            names = named_outputs(output, asked.get("outputs"), offered) if offered else None
            asked = {**asked, **({"outputs": names} if names else {})}
            found = song.stat()
            job = _ok(http.get(f"/v1/jobs/{resume}")) if resume else _make_job(http, asked, found.st_size)
            try:
                usual = song.with_name(f"{song.stem} ({job['kind']})")
                paths = paths_of(job["settings"]["outputs"], offered, output, usual)
                check_paths(song, paths)
                _upload_song(http, job["id"], song, found, progress, is_begun=bool(resume))
                job = _follow(http, job["id"], progress)
                for made, path in zip(job["outputs"], paths, strict=True):
                    _download(http, made, path, progress)
            except httpx.TransportError:
                raise  # the job stays, and can be resumed
            except BaseException:
                if not keep:
                    _delete_job(http, job["id"], console)
                raise
            if not keep:
                _delete_job(http, job["id"], console)
    except httpx.TransportError as error:
        raise CommandError(_lost(url, job, error), _EXIT_UNREACHABLE) from None
    if as_json:
        print(json.dumps(job, indent=2))  # noqa: T201 — the command's result
        return
    after = (job["report"] or {}).get("after")
    said = f": {after['integrated_lufs']:.1f} LUFS, {after['true_peak_dbtp']:.2f} dBTP" if after else ""
    console.print(f"{', '.join(map(str, paths))}{said}", markup=False, highlight=False, soft_wrap=True)


def _offered_outputs(http: httpx.Client, kind: str) -> dict[str, dict[str, Any]]:
    """The outputs of a kind of job by name; none of a kind that the router does not know, which it will say."""
    known: dict[str, Any] = {}
    for attempt in attempts(_is_lost_answer, tries=_TRIES):
        with attempt:
            known = _ok(http.get("/v1/options"))["kinds"]
    found: dict[str, dict[str, Any]] = known.get(kind, {}).get("outputs", {})
    return found


def _lost(url: str, job: Mapping[str, Any], error: Exception) -> str:
    if not job:
        return f"{why_no_answer(url, error)}. Is the router running? Start it with 'make run'."
    left_min = float(job["expires_in_s"]) / 60
    return (
        f"the connection to {url} broke and did not come back. Nothing is lost for {left_min:.0f} minutes: the same"
        f" command with --resume {job['id']} goes on."
    )


def _progress_bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)


def _is_broken_connection(error: Exception) -> bool:
    return isinstance(error, httpx.TransportError)


def _is_lost_answer(error: Exception) -> bool:
    """A connection that was made and then broke. One that can't be made at first says that no router is there."""
    return _is_broken_connection(error) and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


def _make_job(http: httpx.Client, asked: Mapping[str, object], size_bytes: int) -> dict[str, Any]:
    body = {**asked, "size_bytes": size_bytes}
    headers = {"idempotency-key": secrets.token_urlsafe(16)}
    job: dict[str, Any] = {}
    for attempt in attempts(_is_lost_answer, tries=_TRIES):
        with attempt:
            job = _ok(http.post("/v1/jobs", json=body, headers=headers))
    return job


def _upload_song(
    http: httpx.Client, job_id: str, song: Path, found: os.stat_result, progress: Progress, *, is_begun: bool
) -> None:
    """Send the song as it was `found`; after a broken connection, or where it `is_begun`, from where the router has it.

    Raises CommandError, also where the file changes meanwhile, and TransportError.
    """
    size_bytes = found.st_size
    task = progress.add_task("Uploading", total=size_bytes or 1)
    offset, is_first = 0, not is_begun

    def known_offset() -> int:
        return offset

    for attempt in attempts(_is_broken_connection, tries=_TRIES, progress=known_offset):
        with attempt, song.open("rb") as file:
            if not is_first:
                arrived = _arrived_bytes(http, job_id, size_bytes)
                if arrived is None:
                    return
                offset = arrived
            is_first = False
            file.seek(offset)
            progress.update(task, completed=offset)
            headers = {"content-length": str(size_bytes - offset), "upload-offset": str(offset)}
            chunks = _chunks(file, found, progress, task)
            _ok(http.put(f"/v1/jobs/{job_id}/audio", content=chunks, headers=headers))


def _arrived_bytes(http: httpx.Client, job_id: str, size_bytes: int) -> int | None:
    """Where to continue the upload; None when there is nothing to send: it is complete, or the job has ended."""
    seen = http.head(f"/v1/jobs/{job_id}/audio")
    if not seen.is_success:  # what became of the job is said to whoever follows it
        return None
    offset = int(seen.headers["upload-offset"])
    if offset >= size_bytes and _ok(http.get(f"/v1/jobs/{job_id}"))["state"] != "received":
        return None
    return offset


def _chunks(file: BinaryIO, found: os.stat_result, progress: Progress, task: TaskID) -> Iterator[bytes]:
    """The rest of the file. Raises CommandError before its last bytes where it is no longer as it was `found`: then
    the router never has it whole, and nothing is mastered."""
    while (left := found.st_size - file.tell()) > 0:
        chunk = file.read(min(_CHUNK_BYTES, left))
        now = os.fstat(file.fileno())
        if not chunk or (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
            raise CommandError("the song changed while it was sent. Send it again when it is whole.", exit_code=2)
        progress.advance(task, len(chunk))
        yield chunk


def _follow(http: httpx.Client, job_id: str, progress: Progress) -> dict[str, Any]:
    """The job when it is mastered. Raises CommandError when it ends otherwise, TransportError."""
    task = progress.add_task("Waiting", total=1.0)
    revision = heartbeats = 0

    def received() -> tuple[int, int]:
        return revision, heartbeats

    for attempt in attempts(_is_broken_connection, tries=_TRIES, progress=received):
        with attempt:
            for job in _events(http, job_id):
                if job is None:
                    heartbeats += 1
                    continue
                revision = job["revision"]
                _show_state(progress, task, job)
                if job["state"] in _MASTERED:
                    return job
                if job["state"] in _ENDED:
                    sentence = (job["error"] or {}).get("detail", f"the job is {job['state']}")
                    raise CommandError(sentence, _EXIT_REFUSED)
            raise httpx.RemoteProtocolError("the event stream ended before the job did")  # as when the router stops
    raise AssertionError("unreachable: the last attempt returns or raises")


def _events(http: httpx.Client, job_id: str) -> Iterator[dict[str, Any] | None]:
    """The job at each of its changes, None at each heartbeat, until the stream of server-sent events ends."""
    with http.stream("GET", f"/v1/jobs/{job_id}", headers={"accept": "text/event-stream"}) as stream:
        if not stream.is_success:
            stream.read()
            _ok(stream)
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))
            elif line.startswith(":"):
                yield None


def _show_state(progress: Progress, task: TaskID, job: dict[str, Any]) -> None:
    running = job["progress"]
    if running:
        stage = running["stage"] or "starting"
        progress.update(task, completed=running["fraction"], description=f"{running['tier_title']}: {stage}")
    elif job["state"] in _MASTERED:
        progress.update(task, completed=1.0, description="Done")
    elif job["queue"] and job["queue"].get("reason"):
        progress.update(task, description=f"Queued. {job['queue']['reason']}")
    else:
        progress.update(task, description=job["state"].capitalize())


def _download(http: httpx.Client, output: dict[str, Any], path: Path, progress: Progress) -> None:
    """Write the master to `path`, whole or not at all. Raises CommandError, TransportError."""
    task = progress.add_task("Downloading", total=output["size_bytes"])
    path = path.resolve()  # what a link leads to is written, and the link stays
    part = part_of(path)
    try:
        with part.open("xb") as file:
            etag = ""
            for attempt in attempts(_is_broken_connection, tries=_TRIES, progress=file.tell):
                with attempt:
                    # The part that lies here is continued only if the router still has the same master.
                    resume = {"range": f"bytes={file.tell()}-", "if-range": etag} if etag else {}
                    with http.stream("GET", output["url"], headers=resume) as stream:
                        if not stream.is_success:
                            stream.read()
                            _ok(stream)
                        if stream.status_code != httpx.codes.PARTIAL_CONTENT:
                            file.seek(0)
                            file.truncate()
                        etag = stream.headers["etag"]
                        progress.update(task, completed=file.tell())
                        for chunk in stream.iter_bytes():
                            file.write(chunk)
                            progress.advance(task, len(chunk))
        if part.stat().st_size != output["size_bytes"]:
            raise CommandError("the download ended early; run the command again.", _EXIT_UNREACHABLE)
        part.replace(path)
    except OSError as error:
        raise CommandError(f"{path} can't be written ({error.strerror}).", exit_code=2) from None
    finally:
        part.unlink(missing_ok=True)


def _delete_job(http: httpx.Client, job_id: str, console: Console) -> None:
    """Destroy the job. Where the router can't be told, it does so by itself when the job's time is over."""
    try:
        for attempt in attempts(_is_broken_connection, tries=_DELETE_TRIES):
            with attempt:
                http.delete(f"/v1/jobs/{job_id}")
    except httpx.TransportError:
        console.print("The router could not be told to delete the job; it does so when its time is over.")


def _ok(response: httpx.Response) -> dict[str, Any]:
    """The response's JSON object. Raises CommandError for an error, with the router's own sentence."""
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
