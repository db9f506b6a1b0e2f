"""The state machine that reads one body of frames, without I/O: the worker's side and the caller's use the same one.

Like h11, it is given bytes and says what they were: it works with any kind of I/O and is tested without. A reader of
chunks of any size gives them to `feed`. One that reads data straight into memory of its own asks `wanted` how many
bytes of a header or an event come next, gives those to `take`, and reports what it has read of a data frame's
`data_left` bytes to `pass_data`: there, data is neither gathered nor copied.

Checked on the way: the frames' sizes, the order of events (`REQUEST`, `RESPONSE`), that each part has the bytes that it
announced, and the seal of the last frame, after which nothing may follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mastering.protocol.frames import (
    HEADER_BYTES,
    AcceptedEvent,
    Buffer,
    EndEvent,
    Event,
    FaultEvent,
    FrameKind,
    HeartbeatEvent,
    JobEvent,
    PartEvent,
    ProgressEvent,
    ProtocolError,
    ReportEvent,
    Seal,
    frame_header,
)


class OutOfOrder(ProtocolError):
    """A frame came where none of its kind may."""


class SizeMismatch(ProtocolError):
    """A part has fewer or more bytes than it announced."""


class ReportMissing(ProtocolError):
    """A response's outputs came without the report on them."""


@dataclass(frozen=True)
class BodyOrder:
    """Which events may follow in each state of a body, and the state that each leads to. It begins in `start`."""

    transitions: Mapping[str, Mapping[type[Event], str]]


REQUEST = BodyOrder(
    {
        "start": {JobEvent: "job"},
        "job": {PartEvent: "parts"},
        "parts": {PartEvent: "parts", EndEvent: "end"},
        "end": {},
    }
)
_ALIVE = (HeartbeatEvent, ProgressEvent)
RESPONSE = BodyOrder(
    {
        "start": {AcceptedEvent: "rendering", FaultEvent: "end"},
        "rendering": {**dict.fromkeys(_ALIVE, "rendering"), ReportEvent: "report", FaultEvent: "end"},
        "report": {**dict.fromkeys(_ALIVE, "report"), PartEvent: "parts", FaultEvent: "end"},
        "parts": {**dict.fromkeys(_ALIVE, "parts"), PartEvent: "parts", EndEvent: "end", FaultEvent: "end"},
        "end": {},
    }
)


class FrameParser:
    """Reads one body in the order of `order`. After a ProtocolError it can't be used any more.

    `seal` is the body's own, with the key that the two sides share for it, if any.
    """

    def __init__(self, order: BodyOrder, seal: Seal | None = None) -> None:
        self._transitions = order.transitions
        self._state = "start"
        self._seal = seal or Seal()
        self._gathered = bytearray()
        """What has come of a header, or of an event's frame."""
        self._frame_bytes = HEADER_BYTES
        """Of what is being gathered, when it is whole."""
        self._part_left = 0
        """Bytes of the announced part whose data frames have not begun yet."""
        self.data_left = 0
        """Bytes that are still to come of the data frame that has begun."""

    @property
    def wanted(self) -> int:
        """How many bytes `take` can be given now: the rest of a header or of an event."""
        return self._frame_bytes - len(self._gathered)

    @property
    def is_over(self) -> bool:
        """Whether the last frame has come, and its seal held."""
        return self._state == "end"

    def feed(self, chunk: bytes) -> Iterator[Event | bytes]:
        """Yield the events that `chunk` completes, and its data in pieces. Raises ProtocolError."""
        rest = memoryview(chunk)
        while rest:
            if self.data_left:
                # What is data from end to end is handed on uncopied.
                piece = chunk if len(rest) == len(chunk) <= self.data_left else bytes(rest[: self.data_left])
                self.pass_data(piece)
                yield piece
            else:
                piece = bytes(rest[: self.wanted])
                event = self.take(piece)
                if event is not None:
                    yield event
            rest = rest[len(piece) :]

    def take(self, piece: bytes) -> Event | None:
        """The next at most `wanted` bytes of a header or an event; the event, where they complete one.

        After a data frame's header there is `data_left`. Raises ProtocolError.
        """
        if self.is_over:
            raise OutOfOrder("something follows the last frame")
        self._gathered += piece
        if self.wanted:
            return None
        if len(self._gathered) == HEADER_BYTES:
            self._take_header(bytes(self._gathered))
            return None
        event = self._seal.opened(bytes(self._gathered))
        self._await_header()
        self._take_event(event)
        return event

    def pass_data(self, piece: Buffer) -> None:
        """At most `data_left` bytes of the data frame have come, and are the caller's to keep."""
        self._seal.pass_on(piece)
        self.data_left -= len(piece)

    def _take_header(self, head: bytes) -> None:
        kind, size = frame_header(head)
        if kind is FrameKind.EVENT:
            self._frame_bytes = HEADER_BYTES + size
            return
        if size > self._part_left:
            raise SizeMismatch("there are more bytes than the part announced")
        self._part_left -= size
        self.data_left = size
        self._seal.pass_on(head)
        self._await_header()

    def _await_header(self) -> None:
        self._gathered.clear()
        self._frame_bytes = HEADER_BYTES

    def _take_event(self, event: Event) -> None:
        following = self._transitions[self._state].get(type(event))
        if isinstance(event, PartEvent | EndEvent) and self._part_left:
            raise SizeMismatch(f"{self._part_left} bytes of a part are missing")
        if following is None:
            if self._state == "rendering" and isinstance(event, PartEvent | EndEvent):
                raise ReportMissing("the report is missing")
            raise OutOfOrder(f"a frame of type {event.type} is out of place")
        if isinstance(event, PartEvent):
            self._part_left = event.size
        self._state = following
