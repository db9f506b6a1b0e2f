"""A worker that speaks the protocol and returns the song as its master: benchmarks measure the transfer, not a render.

`python -m ops.bench._stub_worker PORT RENDER_S LOG [STALL_FILE]`. It writes `begun`, `accepted` and, when the caller
hung up before the end, `freed` with the machine's monotonic time into LOG. The worker that finds STALL_FILE removes it,
writes `stalled` and stops reading in the middle of the upload.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mastering.contract import ENGINE_VERSION, Measurements, Plan, Report, Settings
from mastering.protocol import frames
from mastering.protocol.frame_parser import REQUEST, FrameParser

_LEVELS = dict.fromkeys(("max_momentary_lufs", "max_short_term_lufs", "integrated_lufs"), -14.0)
_MEASURED = Measurements(
    rate_hz=44_100, channels=2, frames=1, duration_s=1.0, loudness_range_lu=6.0, true_peak_dbtp=-1.0,
    sample_peak_dbfs=-1.0, crest_db=12.0, peak_to_loudness_lu=13.0, correlation=0.8, width_db=-12.0, dc_offset=0.0,
    clipped_samples=0, spectrum=(), **_LEVELS,
)  # fmt: skip
_PLAN = Plan(
    engine_version=ENGINE_VERSION,
    settings=Settings(),
    rate_hz=44_100,
    loudness_lufs=-14,
    ceiling_dbtp=-1,
    steps=(),
    seed=1,
)
REPORT = Report(engine_version=ENGINE_VERSION, before=_MEASURED, after=_MEASURED, plan=_PLAN).model_dump(mode="json")
STALLS_AFTER_BYTES = 1024 * 1024


class Stub:
    def __init__(self, render_s: float, log: Path, stall_file: Path | None) -> None:
        self._render_s, self._log, self._stall_file = render_s, log, stall_file

    def note(self, what: str) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps({"what": what, "at": time.monotonic(), "pid": os.getpid()}) + "\n")

    async def health(self, _: Request) -> Response:
        return JSONResponse(
            {
                "state": "ready",
                "protocol": frames.PROTOCOL_VERSION,
                "engine_version": ENGINE_VERSION,
                "device": "stub",
                "kinds": {"master": {}},
                "slots": {"total": 8},
            }
        )

    async def slot(self, _: Request) -> Response:
        return JSONResponse({"slot": "any"}, 201)

    async def render(self, request: Request) -> Response:
        self.note("begun")
        stalls = self._takes_stall_file()
        reader, song, outputs = FrameParser(REQUEST), bytearray(), ["wav24"]
        async for chunk in request.stream():
            for frame in reader.feed(chunk):
                if isinstance(frame, bytes):
                    song += frame
                elif isinstance(frame, frames.JobEvent):
                    outputs = frame.options["outputs"]
            if stalls and len(song) > STALLS_AFTER_BYTES:
                self.note("stalled")
                await asyncio.Event().wait()
        self.note("accepted")
        return StreamingResponse(self._answer(bytes(song), outputs), media_type=frames.MEDIA_TYPE)

    def _takes_stall_file(self) -> bool:
        try:
            if self._stall_file is not None:
                self._stall_file.unlink()
                return True
        except FileNotFoundError:
            pass
        return False

    async def _answer(self, song: bytes, outputs: list[str]) -> AsyncIterator[bytes]:
        try:
            async for frame in self._master(song, outputs):
                yield frame
        except asyncio.CancelledError:
            self.note("freed")
            raise

    async def _master(self, song: bytes, outputs: list[str]) -> AsyncIterator[bytes]:
        seal = frames.Seal()
        accepted = frames.AcceptedEvent(engine_version=ENGINE_VERSION, device="stub")
        yield seal.pass_on(frames.encode_event(accepted))
        ends_s = time.monotonic() + self._render_s
        while (left_s := ends_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, frames.HEARTBEAT_S))
            yield seal.pass_on(frames.encode_event(frames.HeartbeatEvent()))
        yield seal.pass_on(frames.encode_event(frames.ReportEvent(report=REPORT)))
        for name in outputs:
            part = frames.PartEvent(name=f"output/{name}", size=len(song))
            yield seal.pass_on(frames.encode_event(part))
            for at in range(0, len(song), frames.CHUNK_BYTES):
                piece = song[at : at + frames.CHUNK_BYTES]
                yield seal.pass_on(frames.data_header(len(piece)) + piece)
        yield frames.encode_event(seal.close(frames.EndEvent()))


def main() -> None:
    port, render_s, log = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    stub = Stub(render_s, log, Path(sys.argv[4]) if len(sys.argv) > 4 else None)
    routes = [
        Route("/v1/health", stub.health),
        Route("/v1/slots", stub.slot, methods=["POST"]),
        Route("/v1/renders", stub.render, methods=["POST"]),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=port, log_level="critical")


if __name__ == "__main__":
    main()
