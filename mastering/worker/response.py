"""Write the response of a render: its frames, the masters straight from memory files to the caller."""

from __future__ import annotations

import asyncio
import json
import os

from starlette.types import Message as Asgi
from starlette.types import Send

from mastering.contract import Fault
from mastering.protocol.frames import (
    CHUNK_BYTES,
    MAX_MESSAGE,
    MEDIA_TYPE,
    AcceptedEvent,
    EndEvent,
    FaultEvent,
    HeartbeatEvent,
    PartEvent,
    ProgressEvent,
    ReportEvent,
    Seal,
    data_header,
    encode_event,
)
from mastering.worker.render_process import Message
from mastering.worker.slots import Claim

HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"}
"""No proxy on the way may store a response, or hold it back until it is whole."""


class CallerGone(Exception):
    """The caller has hung up."""


class ResponseWriter:
    """The response, frame by frame. A caller that reads nothing for `stall_s` seconds counts as gone.

    Every method raises CallerGone.
    """

    def __init__(self, send: Send, stall_s: float, claim: Claim, seal: Seal) -> None:
        self._send = send
        self._seal = seal
        self._claim = claim
        self._stall_s = stall_s

    async def begin(self) -> None:
        headers = {"content-type": MEDIA_TYPE, **HEADERS}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send_message({"type": "http.response.start", "status": 200, "headers": raw})

    async def event(self, event: AcceptedEvent | HeartbeatEvent | ProgressEvent) -> None:
        await self._send_frame(encode_event(event))

    async def fault(self, fault: Fault) -> str:
        event = FaultEvent(code=fault.code, message=fault.message[:MAX_MESSAGE], numbers=fault.numbers)
        await self._send_last(self._seal.close(event))
        return fault.code

    async def results(self, done: Message) -> str:
        """Report, parts and end, straight from the memory files."""
        report_file, *outputs = done.descriptors
        report = json.loads(os.pread(report_file, os.fstat(report_file).st_size, 0))
        await self._send_frame(encode_event(ReportEvent(report=report)))
        for wanted, output in zip(done.body["done"], outputs, strict=True):
            await self._send_output(wanted, output)
        await self._send_last(self._seal.close(EndEvent()))
        return "done"

    async def _send_output(self, wanted: str, output: int) -> None:
        size = os.fstat(output).st_size
        await self._send_frame(encode_event(PartEvent(name=f"output/{wanted}", size=size)))
        for at in range(0, size, CHUNK_BYTES):
            data = os.pread(output, CHUNK_BYTES, at)
            await self._send_frame(data_header(len(data)) + data)

    async def _send_frame(self, data: bytes) -> None:
        await self._send_message({"type": "http.response.body", "body": self._seal.pass_on(data), "more_body": True})

    async def _send_last(self, event: EndEvent | FaultEvent) -> None:
        self._claim.release()  # a caller that has read the last byte may ask for a slot at once
        await self._send_message({"type": "http.response.body", "body": encode_event(event), "more_body": False})

    async def _send_message(self, message: Asgi) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await self._send(message)
        except (TimeoutError, OSError):
            raise CallerGone from None
