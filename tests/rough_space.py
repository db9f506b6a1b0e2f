"""Real Gradio servers that misbehave as a test asks: with the API of our Space (`gradio.Server`), or a plain app.

    with rough_space() as space:
        space.behave(master="title", title="ZeroGPU quota exceeded")
        space.held()      # ids of the jobs that it still has data of

As a process (`python -m tests.rough_space PORT KIND`) it has the route `/rough` beside the Space's: POST sets its
behaviour, GET returns what it recorded. `answers` maps the start of a path (or all of it, with `$`) to the status,
headers and body of the response.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from mastering.contract import ENGINE_VERSION
from mastering.protocol.frames import PROTOCOL_VERSION
from tests import warm_start
from tests.loopback import TLS
from tests.stack import free_port
from tests.warm_start import WarmProcess

START_S = 60.0
_READY = "the rough Space is up"


@dataclass
class RoughSpace:
    """The running server, as tests see it."""

    process: WarmProcess
    url: str
    folder: Path

    def behave(self, **how: Any) -> None:
        """Behave like this from now on; what is not named is as at the start."""
        httpx.post(f"{self.url}/rough", json=how, trust_env=False, timeout=10, verify=TLS).raise_for_status()

    def saw(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/rough", trust_env=False, timeout=10, verify=TLS).raise_for_status().json())

    def held(self) -> list[str]:
        return list(self.saw()["held"])

    def send(self, how: signal.Signals) -> None:
        self.process.send_signal(how)

    def files(self) -> list[Path]:
        """The files in its temporary folder."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def rough_space(kind: str = "space", port: int | None = None) -> Iterator[RoughSpace]:
    """Run one of the kind `space` or `plain`."""
    port = port or free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GRADIO_TEMP_DIR": folder, "TMPDIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        environment |= {"HF_HUB_OFFLINE": "1", "GRADIO_SSR_MODE": "False", "HOME": folder}
        output = Path(folder).with_suffix(".txt")
        with output.open("wb") as sink:
            process = warm_start.start("tests.rough_space", [str(port), kind], environment, sink, subprocess.STDOUT)
        space = RoughSpace(process, f"http://127.0.0.1:{port}", Path(folder))
        try:
            _wait_until_up(space, output)
            yield space
        finally:
            space.stop()
            output.unlink()


def _wait_until_up(space: RoughSpace, output: Path) -> None:
    """Until its launch has returned: before that Gradio calls its own server, which a test would count."""
    deadline_s = time.monotonic() + START_S
    while _READY not in output.read_text("utf-8", errors="replace"):
        if space.process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(output.read_text("utf-8", errors="replace"))
        time.sleep(0.05)


class _Behaviour:
    """The behaviour that a test has set, and what the server has recorded."""

    def __init__(self) -> None:
        self.how: dict[str, Any] = {}
        self.jobs: dict[str, dict[str, bytes]] = {}
        self.seen: list[dict[str, Any]] = []
        self.ended: list[str] = []
        """How each render ended."""
        self.rendering = 0
        self.lock = threading.Lock()

    def master(self, job_id: str, settings: dict[str, Any]) -> Iterator[Any]:
        import gradio

        how = self.how.get("master", "good")
        with self.lock:
            self.rendering += 1
        end = "stopped"
        try:
            match how:
                case "title":
                    raise gradio.Error(self.how.get("message", "no more of it"), title=self.how["title"])
                case "raise":
                    raise RuntimeError("a bug at /home/somebody/app.py")
                case "garbage":
                    yield [1, 2, 3]
                    end = "ended"
                    return
                case "fault":
                    yield {"type": "accepted", "engine_version": ENGINE_VERSION, "device": "rough"}
                    yield {"type": "fault", "code": self.how["code"], "message": "As it was told.", "numbers": {}}
                    end = "ended"
                    return
            yield {"type": "accepted", "engine_version": ENGINE_VERSION, "device": "rough"}
            while self.how.get("master") == "slow" and job_id in self.jobs:
                time.sleep(0.1)
                yield {"type": "heartbeat"}
            if job_id not in self.jobs:
                yield {"type": "fault", "code": "cancelled", "message": "It was deleted.", "numbers": {}}
                return
            yield {"type": "progress", "stage": "render", "fraction": 0.5}
            yield self._end(job_id, settings)
            end = "ended"
        finally:
            with self.lock:
                self.rendering -= 1
                self.ended.append(end)

    def _end(self, job_id: str, settings: dict[str, Any]) -> dict[str, Any]:
        from tests.services import report

        audio = self.jobs[job_id].pop("audio")
        outputs = []
        for name in settings["outputs"]:
            self.jobs[job_id][f"outputs/{name}"] = audio
            sha256 = hashlib.sha256(b"another" if self.how.get("bad_checksum") else audio).hexdigest()
            outputs.append({"format": name, "size": len(audio) + self.how.get("size_off", 0), "sha256": sha256})
        return {"type": "end", "report": report(), "outputs": outputs}

    def health(self) -> dict[str, Any]:
        slots = {"total": 2, "free": 2}
        body = {
            "protocol": PROTOCOL_VERSION,
            "engine_version": ENGINE_VERSION,
            "device": "rough",
            "state": "ready",
            "slots": slots,
        }
        body |= {"max_bytes": 10**9, "max_duration_s": 5400, "kinds": {"master": {}}}
        return {**body, **self.how.get("health", {})}


def _import_without_stubs() -> None:
    """Let Gradio be imported as our Spaces import it, its files where this process was told to put them."""
    folder = os.environ["GRADIO_TEMP_DIR"]
    import mastering_space.gradio_environment  # noqa: F401 - it sets what Gradio reads at import

    os.environ["GRADIO_TEMP_DIR"] = folder


def _serve_space(port: int) -> None:
    _import_without_stubs()
    import gradio

    behaviour, server = _Behaviour(), gradio.Server()

    @server.middleware("http")
    async def answer_for(request: Request, call_next: Any) -> Any:
        path = request.url.path
        if path != "/rough":
            behaviour.seen.append({"method": request.method, "path": path, "headers": dict(request.headers)})
        for start, (status, headers, body) in behaviour.how.get("answers", {}).items():
            if path == start.removesuffix("$") or (path.startswith(start) and not start.endswith("$")):
                return Response(body, status, headers)
        return await call_next(request)

    @server.post("/rough")
    async def behave(request: Request) -> None:
        behaviour.how = await request.json()
        behaviour.seen.clear()
        behaviour.ended.clear()
        if behaviour.how.get("forget"):
            behaviour.jobs.clear()

    @server.get("/rough")
    async def tell() -> dict[str, Any]:
        held = [job_id for job_id, parts in behaviour.jobs.items() if parts]
        return {
            "held": held,
            "seen": behaviour.seen,
            "ended": behaviour.ended,
            "rendering": behaviour.rendering,
            "threads": threading.active_count(),
            "fds": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 — async
        }

    @server.get("/v1/health")
    async def health() -> dict[str, Any]:
        return behaviour.health()

    @server.put("/v1/jobs/{job_id}/{part:path}", status_code=201)
    async def put(job_id: str, part: str, request: Request) -> None:
        body = b"".join([chunk async for chunk in request.stream()])
        behaviour.jobs.setdefault(job_id, {})[part] = body

    @server.get("/v1/jobs/{job_id}")
    async def held(job_id: str) -> Response:
        return JSONResponse({}) if behaviour.jobs.get(job_id) else Response(status_code=404)

    @server.get("/v1/jobs/{job_id}/outputs/{name}")
    async def output(job_id: str, name: str) -> Response:
        body = behaviour.jobs.get(job_id, {}).get(f"outputs/{name}")
        return JSONResponse({"code": "bad_request"}, 404) if body is None else Response(body)

    @server.delete("/v1/jobs/{job_id}", status_code=204)
    async def delete(job_id: str) -> None:
        behaviour.jobs.pop(job_id, None)

    @server.api(name="master", concurrency_limit=2)  # type: ignore[untyped-decorator]
    def master(job_id: str, settings: dict, deadline_s: float | None) -> Iterator[dict]:  # type: ignore[type-arg]
        yield from behaviour.master(job_id, settings)

    server.launch(server_name="127.0.0.1", server_port=port, quiet=True, prevent_thread_lock=True, _frontend=False)


def _serve_plain(port: int) -> None:
    _import_without_stubs()
    import gradio

    def process(song: str) -> str:
        made = Path(tempfile.mkdtemp()) / "master.wav"
        made.write_bytes(Path(song).read_bytes())
        return str(made)

    file = gradio.File(type="filepath")
    app = gradio.Interface(process, file, gradio.File(), api_name="process", concurrency_limit=16)
    app.launch(server_name="127.0.0.1", server_port=port, quiet=True, prevent_thread_lock=True)


if __name__ == "__main__":
    _serve_plain(int(sys.argv[1])) if sys.argv[2] == "plain" else _serve_space(int(sys.argv[1]))
    print(_READY, flush=True)
    threading.Event().wait()
