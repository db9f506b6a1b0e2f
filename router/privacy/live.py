"""The live canary test: sends a song full of canaries through a router and searches for what is left of them.

The router and its worker are of this installation's own code, started for the test in folders of their own. Searched
are all their files, command lines, environments and answers.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import httpx

from mastering.contract import kinds
from mastering.runtime import child_process
from router.privacy.canary import CanarySearch, Hit, samples, song, word

_START_S, _MASTER_S, _STOP_S = 90.0, 180.0, 30.0
"""Seconds for the router to start with its worker, for the song to be mastered, and for the router to stop."""
_KINDS = ("name", "tag", "agent", "referer", "language", "query", "path", "cookie", "body")
_KEPT = ("PYTHONPATH", "HOME", "MASTERING_PRESETS", kinds.VARIABLE)
"""Of this environment; no setting of this installation's own router, and no secret."""
PROMISES = ("P01", "P04", "P18", "P19", "P21", "P22", "P25", "P26", "P28", "P33")
"""The promises that are broken if a canary is found anywhere."""


class _OwnRouter(NamedTuple):
    """The router under test: its address, process and folders."""

    url: str
    pid: int
    folders: tuple[Path, ...]


class CanaryResult(NamedTuple):
    """The canaries that were found; `why_not` says why, where no song could be sent."""

    hits: tuple[Hit, ...] = ()
    why_not: str = ""


def send_canaries() -> CanaryResult:
    """Send a song with canaries through a router of its own and search for them."""
    canaries = {kind: word(kind).encode() for kind in _KINDS} | {"samples": samples()}
    search, answers = CanarySearch(canaries), bytearray()
    try:
        with _own_router() as running:
            with _canary_client(running.url, canaries) as http:
                for answer in _requests(http, canaries):
                    answers += repr(answer.headers.raw).encode() + answer.content
            hits = [*search.files(*running.folders), *search.processes(_process_tree(running.pid))]
    except (httpx.HTTPError, OSError, KeyError, ValueError, TimeoutError) as error:
        return CanaryResult(why_not=f"a router of its own did not master a song here ({type(error).__name__})")
    return CanaryResult((*hits, *search.within("an answer", bytes(answers))))


def _canary_client(url: str, canaries: dict[str, bytes]) -> httpx.Client:
    headers = {"user-agent": "agent", "referer": "referer", "accept-language": "language"}
    raw = [(name.encode(), canaries[kind]) for name, kind in headers.items()]
    raw.append((b"content-disposition", b'attachment; filename="' + canaries["name"] + b'"'))
    return httpx.Client(
        base_url=url,
        headers=raw,
        cookies={"visitor": quote(canaries["cookie"].decode())},
        params={"q": canaries["query"].decode()},
        trust_env=False,
        timeout=60,
    )


def _requests(http: httpx.Client, canaries: dict[str, bytes]) -> Iterator[httpx.Response]:
    """Master one song, fail with another, make a few odd requests; yields every response but the master's own."""
    yield http.get("/" + quote(canaries["path"].decode()))
    yield http.post("/v1/jobs", content=canaries["body"], headers={"content-type": "application/json"})
    bad = http.post("/v1/jobs", json={})
    yield http.put(f"/v1/jobs/{bad.json()['id']}/audio", content=canaries["body"] + canaries["samples"])
    good = http.post("/v1/jobs", json={"outputs": ["wav24"]})
    address = f"/v1/jobs/{good.json()['id']}"
    yield http.put(f"{address}/audio", content=song(canaries["samples"], canaries["tag"].decode()))
    give_up = time.monotonic() + _MASTER_S
    while (seen := http.get(address, headers={"prefer": "wait=5"})).json()["state"] != "mastered":
        if time.monotonic() > give_up or seen.json()["error"]:
            raise TimeoutError
        time.sleep(0.1)
    yield seen
    http.get(f"{address}/outputs/wav24").raise_for_status()
    yield http.delete(address)


@contextmanager
def _own_router() -> Iterator[_OwnRouter]:
    """A router and a worker of this installation's own code, in folders of their own."""
    shm = "/dev/shm"  # noqa: S108 — RAM-backed is the point; the folder is random and 0700
    at = shm if os.access(shm, os.W_OK) else None
    with tempfile.TemporaryDirectory() as disk, tempfile.TemporaryDirectory(dir=at, prefix="mastering-check-") as ram:
        folders = {"RAM_DIR": f"{ram}/ram", "SPOOL_DIR": f"{disk}/spool", "STATE_DIR": f"{disk}/state"}
        ours = {f"ROUTER_{name}": path for name, path in {**folders, "LOG_DIR": f"{disk}/log"}.items()}
        ours |= {"ROUTER_RAM_CHECK": "warn", "ROUTER_ADMIN_PORT": "0", "TMPDIR": f"{disk}/temporary"}
        Path(f"{disk}/temporary").mkdir()
        output = Path(disk) / "output.txt"
        with output.open("wb") as out:
            process = child_process.start_blocking(
                child_process.python("router", "run", "--port", 0),
                child_process.environment(_KEPT, child_process.RENDER_PREFIXES, ours),
                stdout=out,
                stderr=child_process.STDOUT,
            )
        try:
            yield _OwnRouter(_ready_address(process, output), process.pid, (Path(disk), Path(ram)))
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready_address(process: subprocess.Popen[bytes], output: Path) -> str:
    """The router's address, once it answers and its worker takes jobs. Raises TimeoutError."""
    give_up, url = time.monotonic() + _START_S, ""
    while time.monotonic() < give_up and process.poll() is None:
        ready = [line for line in output.read_text().splitlines() if line.startswith("Ready: ")]
        url = ready[0].split()[1] if ready else ""
        if (
            url
            and httpx.post(f"{url}/v1/jobs", json={"size_bytes": 1}, trust_env=False).status_code == httpx.codes.CREATED
        ):
            return url
        time.sleep(0.2)
    raise TimeoutError


def _process_tree(pid: int) -> Iterator[int]:
    """The process and all its descendants."""
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        yield one
        children = Path(f"/proc/{one}/task/{one}/children")
        waiting += map(int, children.read_text().split()) if children.exists() else []
