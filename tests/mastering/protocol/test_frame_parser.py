"""The parser of a body of frames: any chunk boundaries, changed bytes, and frames in any order."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mastering.contract import FaultCode, OutputFormat, Settings, Stage
from mastering.protocol.frame_parser import (
    REQUEST,
    RESPONSE,
    BodyOrder,
    FrameParser,
    OutOfOrder,
    ReportMissing,
    SizeMismatch,
)
from mastering.protocol.frames import (
    AcceptedEvent,
    EndEvent,
    Event,
    FaultEvent,
    HeartbeatEvent,
    JobEvent,
    PartEvent,
    ProgressEvent,
    ProtocolError,
    ReportEvent,
    Seal,
    SealBroken,
    data_header,
    encode_event,
)
from tests.services import report

KEY = b"k" * 32
SETTINGS = JobEvent(options=Settings(outputs=(OutputFormat.FLAC,)).model_dump(mode="json"))
AUDIO, OUTPUT = PartEvent(name="audio", size=3), PartEvent(name="output/flac", size=3)
ACCEPTED = AcceptedEvent(engine_version="0.1.0", device="cpu")
BEAT, PROGRESS = HeartbeatEvent(), ProgressEvent(stage=Stage.RENDER, fraction=0.5)
REPORT = ReportEvent(report=report())
FAULT = FaultEvent(code=FaultCode.SILENT, message="It is silent.")


def body(*frames: Event | bytes, key: bytes | None = None) -> bytes:
    """Events, and bytes as one data frame each; an end or a fault gets its seal."""
    seal, encoded = Seal(key), bytearray()
    for frame in frames:
        if isinstance(frame, EndEvent | FaultEvent):
            encoded += encode_event(seal.close(frame))
        elif isinstance(frame, bytes):
            encoded += seal.pass_on(data_header(len(frame)) + frame)
        else:
            encoded += seal.pass_on(encode_event(frame))
    return bytes(encoded)


def song_request(audio: bytes, key: bytes | None = None) -> bytes:
    data = [audio] if audio else []
    return body(SETTINGS, PartEvent(name="audio", size=len(audio)), *data, EndEvent(), key=key)


def parsed(parser: FrameParser, stream: bytes, cuts: list[int]) -> tuple[list[Event], bytes]:
    """The events and the data that `parser` finds in `stream`, fed in chunks that end at `cuts`."""
    events: list[Event] = []
    data = bytearray()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in pairwise(edges):
        for item in parser.feed(stream[start:end]):
            if isinstance(item, bytes):
                data += item
            else:
                events.append(item)
    return events, bytes(data)


@given(st.binary(max_size=3000), st.lists(st.integers(0, 5000), max_size=40), st.sampled_from([None, KEY]))
def test_frames_survive_any_chunk_boundaries(audio: bytes, cuts: list[int], key: bytes | None) -> None:
    parser = FrameParser(REQUEST, Seal(key))
    events, data = parsed(parser, song_request(audio, key), cuts)
    assert parser.is_over
    assert data == audio
    assert events[:2] == [SETTINGS, PartEvent(name="audio", size=len(audio))]
    assert isinstance(events[-1], EndEvent)


@given(st.binary(min_size=1, max_size=3000), st.integers(1, 700))
def test_who_reads_by_itself_is_told_how_much_of_what_comes_next(audio: bytes, most: int) -> None:
    """As the caller of a worker does, whose data go straight into memory of its own."""
    parser, rest, data = FrameParser(REQUEST, Seal(KEY)), memoryview(song_request(audio, KEY)), bytearray()
    events: list[Event] = []
    while not parser.is_over:
        size = min(most, parser.data_left or parser.wanted)
        piece, rest = rest[:size], rest[size:]
        if parser.data_left:
            parser.pass_data(piece)
            data += piece
        elif event := parser.take(bytes(piece)):
            events.append(event)
    assert (data, bytes(rest)) == (audio, b"")
    assert [event.type for event in events] == ["job", "part", "end"]


@given(st.integers(0, 10_000), st.integers(1, 255), st.sampled_from([None, KEY]))
def test_no_body_that_was_changed_comes_to_its_end(at: int, change: int, key: bytes | None) -> None:
    stream = bytearray(song_request(b"the audio of one song", key))
    stream[at % len(stream)] ^= change
    parser, failure = FrameParser(REQUEST, Seal(key)), None
    try:
        events, _ = parsed(parser, bytes(stream), [])
    except ProtocolError as error:
        failure, events = error, []
    assert failure is not None or not parser.is_over
    assert not any(isinstance(event, EndEvent) for event in events)


@pytest.mark.parametrize("key", [b"j" * 32, None], ids=["another key", "no key"])
def test_a_body_without_the_right_seal_does_not_end(key: bytes | None) -> None:
    with pytest.raises(SealBroken, match="seal"):
        parsed(FrameParser(REQUEST, Seal(KEY)), song_request(b"abc", key), [])


def test_a_parser_without_a_key_does_not_take_the_seal_of_one_with_a_key() -> None:
    with pytest.raises(SealBroken):
        parsed(FrameParser(REQUEST), song_request(b"abc", KEY), [])


@given(st.binary(min_size=5, max_size=400))
def test_noise_that_begins_no_event_is_a_protocol_error(noise: bytes) -> None:
    assume(not (noise[0] == 1 and 0 < int.from_bytes(noise[1:5], "big") <= 1024 * 1024))
    with pytest.raises(ProtocolError):
        list(FrameParser(REQUEST).feed(noise))


@given(st.binary(min_size=1, max_size=400))
def test_noise_in_an_event_is_a_protocol_error(noise: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(FrameParser(REQUEST).feed(b"\x01" + len(noise).to_bytes(4, "big") + b"\xff" + noise[1:]))


@given(st.binary(max_size=400))
def test_an_event_of_noise_that_has_not_ended_is_none_yet(noise: bytes) -> None:
    parser = FrameParser(REQUEST)
    assert list(parser.feed(b"\x01" + (len(noise) + 1).to_bytes(4, "big") + noise)) == []
    assert (parser.wanted, parser.is_over) == (1, False)


WHOLE = {
    "a request": (REQUEST, [SETTINGS, AUDIO, b"abc", EndEvent()]),
    "a part in several data frames": (REQUEST, [SETTINGS, AUDIO, b"a", b"bc", EndEvent()]),
    "an empty part": (REQUEST, [SETTINGS, PartEvent(name="audio", size=0), EndEvent()]),
    "a response": (RESPONSE, [ACCEPTED, BEAT, PROGRESS, REPORT, OUTPUT, b"abc", OUTPUT, b"abc", EndEvent()]),
    "signs of life inside a part": (RESPONSE, [ACCEPTED, REPORT, OUTPUT, b"ab", PROGRESS, BEAT, b"c", EndEvent()]),
    "a refusal at once": (RESPONSE, [FAULT]),
    "a fault while rendering": (RESPONSE, [ACCEPTED, PROGRESS, FAULT]),
    "a fault inside a part": (RESPONSE, [ACCEPTED, REPORT, OUTPUT, b"a", FAULT]),
}  # fmt: skip
WRONG = {
    "no settings": (REQUEST, [AUDIO], OutOfOrder),
    "settings twice": (REQUEST, [SETTINGS, SETTINGS], OutOfOrder),
    "a request without a part": (REQUEST, [SETTINGS, EndEvent()], OutOfOrder),
    "a fault in a request": (REQUEST, [SETTINGS, FAULT], OutOfOrder),
    "data before a part": (REQUEST, [SETTINGS, b"abc"], SizeMismatch),
    "more bytes than announced": (REQUEST, [SETTINGS, AUDIO, b"abcd"], SizeMismatch),
    "more frames than announced": (REQUEST, [SETTINGS, AUDIO, b"abc", b"d"], SizeMismatch),
    "fewer bytes than announced, then the end": (REQUEST, [SETTINGS, AUDIO, b"ab", EndEvent()], SizeMismatch),
    "fewer bytes than announced, then a part": (REQUEST, [SETTINGS, AUDIO, b"ab", AUDIO], SizeMismatch),
    "something after the end": (REQUEST, [SETTINGS, AUDIO, b"abc", EndEvent(), BEAT], OutOfOrder),
    "settings in a response": (RESPONSE, [ACCEPTED, SETTINGS], OutOfOrder),
    "accepted twice": (RESPONSE, [ACCEPTED, ACCEPTED], OutOfOrder),
    "a sign of life before it was accepted": (RESPONSE, [BEAT], OutOfOrder),
    "an output without the report": (RESPONSE, [ACCEPTED, OUTPUT], ReportMissing),
    "an end without the report": (RESPONSE, [ACCEPTED, EndEvent()], ReportMissing),
    "the report twice": (RESPONSE, [ACCEPTED, REPORT, REPORT], OutOfOrder),
    "an end without an output": (RESPONSE, [ACCEPTED, REPORT, EndEvent()], OutOfOrder),
    "something after a fault": (RESPONSE, [FAULT, BEAT], OutOfOrder),
}  # fmt: skip


@pytest.mark.parametrize(("order", "frames"), WHOLE.values(), ids=WHOLE)
def test_a_body_in_its_order_comes_to_its_end(order: BodyOrder, frames: list[Event | bytes]) -> None:
    parser = FrameParser(order)
    events, data = parsed(parser, body(*frames), [])
    assert parser.is_over
    assert [event.type for event in events] == [frame.type for frame in frames if not isinstance(frame, bytes)]
    assert data == b"".join(frame for frame in frames if isinstance(frame, bytes))


@pytest.mark.parametrize(("order", "frames", "error"), WRONG.values(), ids=WRONG)
def test_a_body_out_of_its_order_is_refused(
    order: BodyOrder, frames: list[Event | bytes], error: type[ProtocolError]
) -> None:
    parser = FrameParser(order)
    in_order, whole = body(*frames[:-1]), body(*frames)
    parsed(parser, in_order, [])
    with pytest.raises(error):
        parsed(parser, whole.removeprefix(in_order), [])
