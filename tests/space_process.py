"""Runs a Space as a process on loopback: `python app.py` in a folder with the files of its upload."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, Literal

import httpx

from mastering.contract import Settings
from mastering_space import upload
from tests import warm_start
from tests.loopback import TLS
from tests.processes import family, is_alive
from tests.warm_start import WarmProcess

Kind = Literal["cpu", "zero_gpu"]
START_S = 120.0
STOP_S = 30.0
FAMILY_S = 5.0


@dataclass
class SpaceProcess:
    """A Space that listens. `said` holds the lines of its log."""

    process: subprocess.Popen[bytes] | WarmProcess
    url: str
    folder: Path
    temp: Path
    """TMPDIR and HOME of the process."""
    headers: dict[str, str] = field(default_factory=dict)
    """The Space's key, where it has one: `client` sends it by default."""
    said: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def client(self, **options: Any) -> httpx.Client:
        options.setdefault("headers", self.headers)
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, verify=TLS, **options)

    def health(self) -> dict[str, Any]:
        with self.client() as client:
            return dict(client.get("/v1/health").raise_for_status().json())

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone, and with it whatever it had started."""
        started = family(self.pid)
        self.process.kill()
        self.process.wait()
        until(lambda: not any(map(is_alive, started)), FAMILY_S)

    def terminate(self) -> int:
        """SIGTERM, as Hugging Face stops a Space; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def stop(self) -> None:
        """Kill it unless it has ended."""
        if self.process.poll() is None:
            self.kill()


@contextlib.contextmanager
def running_space(
    kind: Kind = "cpu",
    *,
    port: int = 0,
    environment: dict[str, str] | None = None,
    python: str | Path = sys.executable,
    **settings: object,
) -> Iterator[SpaceProcess]:
    """A Space of `kind`, warm. `settings` become MASTERING_SPACE_… variables; a `port` of 0 takes a free one; `python`
    is what it runs by."""
    with tempfile.TemporaryDirectory(prefix="space-") as place:
        space = start_space(kind, Path(place), port=port, environment=environment, python=python, **settings)
        try:
            yield space
        finally:
            space.stop()


def start_space(
    kind: Kind,
    place: Path,
    *,
    port: int = 0,
    environment: dict[str, str] | None = None,
    python: str | Path = sys.executable,
    **settings: object,
) -> SpaceProcess:
    """Start a Space that the caller stops. `place` is an empty folder, or that of an earlier start."""
    folder, temp = place / "app", place / "temp"
    temp.mkdir(exist_ok=True)
    if not folder.exists():
        put_together(kind, folder)
        _add_bytecode(kind, folder)
    named = {f"MASTERING_SPACE_{name.upper()}": str(value) for name, value in settings.items()}
    variables = _clean() | {"GRADIO_SERVER_PORT": str(port or _free_port())} | _home(temp) | named | (environment or {})
    process: subprocess.Popen[bytes] | WarmProcess
    if python == sys.executable:
        process = warm_start.start("app.py", [], variables, subprocess.PIPE, folder=folder)
    else:
        process = subprocess.Popen(
            [python, "app.py"], cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    assert process.stdout is not None
    first = process.stdout.readline()
    if not first:
        process.wait()
        raise AssertionError("the Space did not start; its own output is above")
    said = json.loads(first)
    assert said["event"] == "listening", said
    headers = {"x-mastering-key": str(settings["key"])} if "key" in settings else {}
    space = SpaceProcess(process, f"http://127.0.0.1:{said['port']}", folder, temp, headers, [first.decode()])
    threading.Thread(target=_listen, args=(space,), daemon=True).start()
    try:
        until(lambda: space.health()["state"] == "ready", START_S)
    except BaseException:
        space.stop()
        raise
    return space


def put_together(kind: Kind, folder: Path) -> None:
    """Copy the files of a Space's upload into `folder`."""
    for name, source in upload.files(kind).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _add_bytecode(kind: Kind, folder: Path) -> None:
    """What this checkout has compiled already: it need not be compiled again for each Space."""
    for name, source in upload.files(kind).items():
        compiled = Path(cache_from_source(str(source))) if source.suffix == ".py" else source
        if compiled != source and compiled.is_file():
            target = Path(cache_from_source(str(folder / name)))
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(compiled, target)


def put(space: SpaceProcess, job_id: str, audio: bytes | Path, part: str = "audio", **headers: str) -> httpx.Response:
    """PUT a song, streamed where it is a file."""
    with space.client() as client:
        content = audio.read_bytes() if isinstance(audio, Path) else audio
        return client.put(f"/v1/jobs/{job_id}/{part}", content=content, headers=headers)


def call(
    space: SpaceProcess,
    job_id: str,
    settings: Settings | None = None,
    deadline_s: float | None = None,
    *,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """/master by Gradio's plain protocol (a POST, then server-sent events); the last event."""
    asked = (settings or Settings()).model_dump(mode="json")
    last: dict[str, Any] = {}
    with space.client(**({"headers": headers} if headers else {})) as client:
        answer = client.post("/gradio_api/call/master", json={"data": [job_id, asked, deadline_s]})
        event_id = answer.raise_for_status().json()["event_id"]
        with client.stream("GET", f"/gradio_api/call/master/{event_id}") as stream:
            for event in _events(stream.iter_lines()):
                on_event(event)
                last = event
    return last


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    kind = ""
    for line in lines:
        if line.startswith("event:"):
            kind = line.removeprefix("event:").strip()
        elif line.startswith("data:") and kind in ("generating", "complete"):
            data = json.loads(line.removeprefix("data:"))
            if data and isinstance(data[0], dict):
                yield data[0]
        elif line.startswith("data:") and kind == "error":
            raise AssertionError(f"Gradio says: {line}")


def fetch(space: SpaceProcess, job_id: str, output: str = "wav24") -> bytes:
    with space.client() as client:
        return client.get(f"/v1/jobs/{job_id}/outputs/{output}").raise_for_status().content


def until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Poll `condition` until it holds; AssertionError after `limit_s`."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if condition():
                return
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


def _listen(space: SpaceProcess) -> None:
    assert space.process.stdout is not None
    with space.process.stdout as lines:
        space.said.extend(line.decode() for line in lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _clean() -> dict[str, str]:
    """This environment without variables that Hugging Face would not set."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GRADIO_", "MASTERING_", "SPACE", "HF_")) and name != "PYTHONPATH"
    }


def _home(temp: Path) -> dict[str, str]:
    return {"TMPDIR": str(temp), "HOME": str(temp), "GRADIO_SERVER_NAME": "127.0.0.1"}
