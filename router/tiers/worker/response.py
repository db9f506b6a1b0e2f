"""A worker's answer to a render, frame by frame (`protocol.frames`), its master straight to whoever keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

from mastering.protocol import frames
from mastering.protocol.frame_parser import RESPONSE, FrameParser, ReportMissing, SizeMismatch
from router.core.buffers import WriteBuffer
from router.core.threads import MAX_TURN_BYTES
from router.tiers import responses
from router.tiers.policy.faults import FaultClass, TierFault, fault_of_engine
from router.tiers.port import Accepted, Finished, Heartbeat, OutputStarted, RenderProgress
from router.tiers.worker.connection import WorkerConnection, read_bytes, read_into


class RenderResponse:
    """The frames of `response`, which came by `line`. Raises TierFault, ProtocolError, httpx.TransportError."""

    def __init__(self, line: WorkerConnection, response: HTTPResponse, seal: frames.Seal) -> None:
        self._line, self._response = line, response
        self._parser = FrameParser(RESPONSE, seal)
        self._report: dict[str, Any] | None = None

    async def next(self) -> Accepted | Heartbeat | RenderProgress | OutputStarted | Finished:
        """What the worker says next; after Finished all of the answer is read, and its connection may serve again."""
        return await self._line.run_in_thread(self._next)

    def _next(self) -> Accepted | Heartbeat | RenderProgress | OutputStarted | Finished:
        while True:
            match self._event():
                case None:
                    raise TierFault(FaultClass.BAD_OUTPUT, "the worker sent more than it announced")
                case frames.AcceptedEvent(device=device):
                    return Accepted(device)
                case frames.HeartbeatEvent():
                    return Heartbeat()
                case frames.ProgressEvent(stage=stage, fraction=fraction):
                    return RenderProgress(stage, fraction)
                case frames.ReportEvent(report=report):
                    self._report = report
                case frames.PartEvent(name=name, size=size):
                    return OutputStarted(name.removeprefix("output/"), size, _Output(self._line, self, size))
                case frames.EndEvent():
                    return self._finished()
                case _:
                    raise TierFault(FaultClass.BUG, "the worker sent an event out of its turn")

    def _event(self) -> frames.Event | None:
        """The next event; None where data comes instead. Raises TierFault for what the worker says went wrong."""
        event = None
        while event is None and not self._parser.data_left:
            event = self._parser.take(self._exactly(self._parser.wanted))
        if isinstance(event, frames.FaultEvent):
            raise fault_of_engine(event.code, event.message, event.numbers)
        return event

    def _finished(self) -> Finished:
        if self._report is None:
            raise TierFault(FaultClass.BAD_OUTPUT, "the master came without its report")
        if read_bytes(self._response, 1):
            raise TierFault(FaultClass.BUG, "the worker sent more after the end")
        return Finished(self._report)

    def _exactly(self, count: int) -> bytes:
        data = read_bytes(self._response, count)
        if len(data) < count:
            raise _ended()
        return data

    def fill(self, room: memoryview) -> None:
        """In a thread: the next bytes of a master, all of `room`. Raises TierFault where it ends before."""
        while room:
            while not self._parser.data_left:
                self._begin_data()
            piece = room[: self._parser.data_left]
            if read_into(self._response, piece) < len(piece):
                raise _ended()
            self._parser.pass_data(piece)
            room = room[len(piece) :]

    def _begin_data(self) -> None:
        match self._event():
            case None | frames.HeartbeatEvent() | frames.ProgressEvent():
                return
            case _:
                raise TierFault(FaultClass.BAD_OUTPUT, "the master ended before its announced size")


class _Output:
    """The next `left` bytes of an answer, as `router.core.buffers.BodySource`. Raises TierFault."""

    def __init__(self, line: WorkerConnection, answer: RenderResponse, left: int) -> None:
        self._line, self._answer, self._left = line, answer, left

    async def fill(self, room: WriteBuffer) -> bool:
        await self._line.run_in_thread(self._drain, room)
        return self._left > 0

    def _drain(self, room: WriteBuffer) -> None:
        """In a thread. What `room` raises is none of the worker's doing, and stays as it is."""
        enough = max(0, self._left - MAX_TURN_BYTES)
        while self._left > enough:
            if not room.free_view:
                room.flush()
            piece = room.free_view[: self._left]
            with translated(reached=True):
                self._answer.fill(piece)
            self._left -= len(piece)
            room.commit(len(piece))


@contextmanager
def translated(*, reached: bool) -> Iterator[None]:
    """`answers.translated`, and what is not in the protocol."""
    try:
        with responses.translate_errors("the worker", reached=reached):
            yield
    except SizeMismatch:
        raise TierFault(FaultClass.BAD_OUTPUT, "the master has not the size that the worker announced") from None
    except ReportMissing:
        raise TierFault(FaultClass.BAD_OUTPUT, "the master came without its report") from None
    except frames.SealBroken:
        raise TierFault(FaultClass.BAD_OUTPUT, "what came is not what the worker sent: its seal differs") from None
    except (frames.ProtocolError, ValueError) as error:
        if isinstance(error, TierFault):
            raise
        raise TierFault(FaultClass.BUG, "the worker's answer is not in the protocol") from None


def _ended() -> TierFault:
    return TierFault(FaultClass.CRASH, "the worker's answer ended before the master was whole")
