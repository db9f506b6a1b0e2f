"""Frames of one job: the events and data that a worker and its caller exchange, and the seal over them. No I/O.

One exchange is one HTTP request and its response, both a run of frames, which `frame_parser` reads. A frame is a header
``!BI`` (kind, length of the payload in bytes) and the payload; an event's is UTF-8 JSON, a data frame's is raw.

Request:   job, then for each part (``audio``, ``reference/0`` …): part, data …, then end.
Response:  accepted, then heartbeats and progress, report, for each output (``output/wav24`` …): part, data …, then
           end; or, instead of what is still to come, fault.

A part says its size before its bytes; `end` and `fault` carry a seal over every frame before them and themselves:
the job, events and data, in their order. It guards the transfer while it lasts and is stored nowhere. Where the two
sides share a key (`signing`), it is a MAC for this one exchange, and a refusal by HTTP status carries one
over its body in a header.
"""

from __future__ import annotations

import hmac
import struct
from enum import IntEnum
from typing import Annotated, Any, Literal, TypeVar

from blake3 import blake3
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from mastering.contract import FaultCode, Record
from mastering.contract.kinds import KIND_NAME, STAGE_NAME

PROTOCOL_VERSION = 3
"""Of what the router speaks with workers and with Spaces, which are upgraded together; 3 brought kinds of jobs."""
MEDIA_TYPE = "application/vnd.mastering.frames"
HEARTBEAT_S = 2.0
MAX_DATA_BYTES = 1024 * 1024
CHUNK_BYTES = MAX_DATA_BYTES
"""Of a data frame, but for the last of a part: each frame costs its reader as much as to look at half of this."""
MAX_EVENT_BYTES = 1024 * 1024
MAX_MESSAGE = 500
SLOT_HEADER = "mastering-slot"
SEAL_HEADER = "mastering-seal"
"""On a problem+json answer where the sides share a key: `problem_seal` of it."""

_HEADER = struct.Struct("!BI")
HEADER_BYTES = _HEADER.size
_SealHex = Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")]


class FrameKind(IntEnum):
    EVENT = 1
    DATA = 2


class JobEvent(Record):
    """What is to be done: the job's kind, and its options, which only that kind's own record says more about."""

    type: Literal["job"] = "job"
    protocol: int = PROTOCOL_VERSION
    kind: Annotated[str, Field(pattern=KIND_NAME)] = "master"
    options: dict[str, Any]
    deadline_s: float | None = None
    """Seconds the caller will wait for all of the work."""


class PartEvent(Record):
    type: Literal["part"] = "part"
    name: Annotated[str, Field(pattern=r"^(audio|reference/\d{1,2}|output/[a-z0-9]{1,16})$")]
    size: Annotated[int, Field(ge=0)]


class EndEvent(Record):
    type: Literal["end"] = "end"
    seal: _SealHex = None


class AcceptedEvent(Record):
    type: Literal["accepted"] = "accepted"
    engine_version: Annotated[str, Field(max_length=32)]
    device: Annotated[str, Field(max_length=64)]


class HeartbeatEvent(Record):
    """Sent by the process that renders, not by the event loop beside it."""

    type: Literal["heartbeat"] = "heartbeat"


class ProgressEvent(Record):
    type: Literal["progress"] = "progress"
    stage: Annotated[str, Field(pattern=STAGE_NAME)]
    fraction: Annotated[float, Field(ge=0, le=1)]
    """Of all the work, not of the stage; never goes back."""


class ReportEvent(Record):
    type: Literal["report"] = "report"
    report: dict[str, Any]
    """By the kind's own record."""


class FaultEvent(Record):
    type: Literal["fault"] = "fault"
    code: FaultCode
    message: Annotated[str, Field(max_length=MAX_MESSAGE)]
    numbers: dict[str, float | int | str] = Field(default_factory=dict)
    seal: _SealHex = None


Last = TypeVar("Last", EndEvent, FaultEvent)
Buffer = TypeVar("Buffer", bytes, memoryview)
Event = Annotated[
    JobEvent | PartEvent | EndEvent | AcceptedEvent | HeartbeatEvent | ProgressEvent | ReportEvent | FaultEvent,
    Field(discriminator="type"),
]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class ProtocolError(ValueError):
    """The other side sent something that is not in this protocol."""


class SealBroken(ProtocolError):
    """The frames are not those that were sent."""


def encode_event(event: Event) -> bytes:
    payload = _EVENT.dump_json(event)
    return _HEADER.pack(FrameKind.EVENT, len(payload)) + payload


def frame_header(head: bytes) -> tuple[FrameKind, int]:
    """Kind and payload bytes of the frame that begins with these HEADER_BYTES. Raises ProtocolError."""
    kind, size = _HEADER.unpack(head)
    if kind == FrameKind.DATA:
        if not 0 < size <= MAX_DATA_BYTES:
            raise ProtocolError(f"a data frame of {size} bytes; at most {MAX_DATA_BYTES} are allowed")
    elif kind != FrameKind.EVENT or not 0 < size <= MAX_EVENT_BYTES:
        raise ProtocolError(f"a frame of kind {kind} and {size} bytes is not in this protocol")
    return FrameKind(kind), size


def data_header(size: int) -> bytes:
    """The header of a data frame of `size` bytes; the bytes follow as they are, uncopied."""
    if not 0 < size <= MAX_DATA_BYTES:
        raise ProtocolError(f"a data frame holds 1 to {MAX_DATA_BYTES} bytes, not {size}")
    return _HEADER.pack(FrameKind.DATA, size)


class Seal:
    """BLAKE3 over the frames of one direction, the last one included: by a key of 32 bytes a MAC, else a checksum.

    A third of SHA-256's time where the processor knows SHA, a tenth where it does not, so that it needs no thread.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._hash = blake3(key=key) if key else blake3()

    def pass_on(self, frame: Buffer) -> Buffer:
        """Take a frame (or a piece of one) into account, and hand it on."""
        self._hash.update(frame)
        return frame

    def opened(self, frame: bytes) -> Event:
        """The event in a whole frame, taken into account. Raises ProtocolError, SealBroken for a last one that lies."""
        event = _parse(frame[HEADER_BYTES:])
        if isinstance(event, EndEvent | FaultEvent):
            self.check(event)
        else:
            self.pass_on(frame)
        return event

    def close(self, last: Last) -> Last:
        """The last frame with the seal in it."""
        return last.model_copy(update={"seal": self._over(last)})

    def check(self, last: EndEvent | FaultEvent) -> None:
        """Raises SealBroken where the frames are not those that were sent, or not by the holder of the key."""
        if not hmac.compare_digest(last.seal or "", self._over(last)):
            raise SealBroken("the frames are not those that were sent: their seal is missing or differs")

    def _over(self, last: EndEvent | FaultEvent) -> str:
        whole = self._hash.copy()
        whole.update(encode_event(last.model_copy(update={"seal": None})))
        return str(whole.hexdigest())


def problem_seal(key: bytes, status: int, body: bytes) -> str:
    """The MAC of a refusal. `key` is the response's, so it holds for one exchange; no run of frames begins so."""
    return str(blake3(f"problem {status}\0".encode() + body, key=key).hexdigest())


def _parse(payload: bytes) -> Event:
    try:
        return _EVENT.validate_json(payload)
    except ValidationError as error:
        _refuse_other_version(payload)
        # Pydantic's own text quotes the input; only where it failed may travel on.
        where = ", ".join(".".join(map(str, part["loc"])) or "event" for part in error.errors(include_input=False)[:3])
        raise ProtocolError(f"an event this protocol does not know (at {where})") from None


class _AnyVersion(BaseModel):
    """Of an event of any version of the protocol: which one it is."""

    protocol: int | None = None


def _refuse_other_version(payload: bytes) -> None:
    """Raise ProtocolError, with what to do, where an event that was not understood names another version."""
    try:
        theirs = _AnyVersion.model_validate_json(payload).protocol
    except ValidationError:
        return
    if theirs not in (None, PROTOCOL_VERSION):
        raise ProtocolError(other_version(theirs))


def other_version(theirs: object) -> str:
    """The sentence for a side that speaks another version of the protocol."""
    return f"protocol {theirs} is not spoken here, only {PROTOCOL_VERSION}: upgrade the older of the two sides"
