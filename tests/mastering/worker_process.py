"""A real worker on loopback for the tests, and the frames that go to it and come back."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from mastering.contract import OutputFormat, Settings
from mastering.protocol.frame_parser import RESPONSE, FrameParser
from mastering.protocol.frames import (
    CHUNK_BYTES,
    MEDIA_TYPE,
    SLOT_HEADER,
    EndEvent,
    Event,
    FaultEvent,
    JobEvent,
    PartEvent,
    ReportEvent,
    Seal,
    data_header,
    encode_event,
)
from mastering.protocol.signing import Keys, Signed, Signer
from tests import warm_start
from tests.loopback import TLS
from tests.processes import family, renderers
from tests.warm_start import WarmProcess

FAKE = "tests.mastering.worker_engines"


@dataclass
class Answer:
    """A whole response, read."""

    events: list[Event] = field(default_factory=list)
    outputs: dict[str, bytearray] = field(default_factory=dict)

    def take(self, chunk: bytes, reader: FrameParser) -> None:
        for item in reader.feed(chunk):
            if isinstance(item, bytes):
                next(reversed(self.outputs.values())).extend(item)
                continue
            self.events.append(item)
            if isinstance(item, PartEvent):
                self.outputs[item.name] = bytearray()

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def fault(self) -> FaultEvent:
        return next(event for event in self.events if isinstance(event, FaultEvent))

    @property
    def report(self) -> ReportEvent:
        return next(event for event in self.events if isinstance(event, ReportEvent))


@dataclass
class WorkerProcess:
    """A worker that listens; `client` speaks to it, signing what it sends where there is a `signer`."""

    process: WarmProcess
    client: httpx.Client
    signer: Signer | None = None

    def sign(self, method: str, path: str, **headers: str) -> Signed:
        """Headers for one request, signed if this worker wants that."""
        if self.signer is None:
            return Signed(headers, Keys())
        return self.signer.sign(method, f"{self.client.base_url}".rstrip("/") + path, headers)

    def health(self) -> dict[str, Any]:
        return dict(self.client.get("/v1/health", headers=self.sign("GET", "/v1/health").headers).json())

    def slot(self) -> str:
        """A slot, once the worker is warm for the next render and has let go of the last one."""
        until(lambda: self.free_slots() >= 1 and self.health()["state"] == "ready")
        answer = self.client.post("/v1/slots", headers=self.sign("POST", "/v1/slots").headers)
        return str(answer.raise_for_status().json()["slot"])

    def free_slots(self) -> int:
        return int(self.health()["slots"]["free"])

    def family(self) -> set[int]:
        """Its fork server and all rendering processes."""
        return family(self.process.pid)

    def renderers(self) -> set[int]:
        """The processes that render, or wait to."""
        return renderers(self.process.pid)

    def render(self, body: bytes, slot: str | None = None) -> Answer:
        """POST a render and read its whole answer, which must be a 200."""
        return self.exchange(lambda seal: body, slot)

    def exchange(self, body: Callable[[Seal], bytes], slot: str | None = None) -> Answer:
        """The same, with a body that depends on the key of the exchange."""
        signed = self.sign("POST", "/v1/renders", **{SLOT_HEADER: slot or self.slot(), "content-type": MEDIA_TYPE})
        answer, reader = Answer(), FrameParser(RESPONSE, Seal(signed.keys.response))
        content = body(Seal(signed.keys.request))
        with self.client.stream("POST", "/v1/renders", content=content, headers=signed.headers) as response:
            response.raise_for_status()
            for chunk in response.iter_raw():
                answer.take(chunk, reader)
        return answer


def request_body(
    audio: bytes, settings: Settings | None = None, references: tuple[bytes, ...] = (), seal: Seal | None = None
) -> bytes:
    """The frames of a whole request."""
    seal = seal or Seal()
    frames = [
        encode_event(JobEvent(options=(settings or Settings(outputs=(OutputFormat.WAV16,))).model_dump(mode="json")))
    ]
    for name, data in {"audio": audio, **{f"reference/{at}": one for at, one in enumerate(references)}}.items():
        frames.append(encode_event(PartEvent(name=name, size=len(data))))
        for at in range(0, len(data), CHUNK_BYTES):
            piece = data[at : at + CHUNK_BYTES]
            frames += [data_header(len(piece)), piece]
    return b"".join([*map(seal.pass_on, frames), encode_event(seal.close(EndEvent()))])


@contextlib.contextmanager
def running_worker(
    engine: str = f"{FAKE}:copy",
    *,
    signer: Signer | None = None,
    tls: ssl.SSLContext | None = None,
    **settings: object,
) -> Iterator[WorkerProcess]:
    """A worker on a free port, warm. `settings` become MASTERING_WORKER_… variables."""
    named = {f"MASTERING_WORKER_{name.upper()}": str(value) for name, value in settings.items()}
    environment = {**os.environ, "MASTERING_WORKER_ENGINE": engine, "PYTHONPATH": ".", **named}
    process = warm_start.start("mastering.worker", ["--port", "0"], environment, subprocess.PIPE)
    assert process.stdout is not None
    try:
        url = f"{'https' if tls else 'http'}://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        with httpx.Client(base_url=url, timeout=60, trust_env=False, verify=tls or TLS) as client:
            worker = WorkerProcess(process, client, signer)
            until(lambda: worker.health()["state"] == "ready", tries=6000)
            yield worker
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def until(condition: Callable[[], bool], tries: int = 1000) -> None:
    """Poll until it holds; a hundredth of a second between tries."""
    for _ in range(tries):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass")
