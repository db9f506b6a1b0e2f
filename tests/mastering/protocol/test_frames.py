"""The wire frames: whatever the chunk boundaries, and whoever sits in between."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mastering.contract import FaultCode, OutputFormat, Record, Settings
from mastering.protocol.frames import (
    MAX_DATA_BYTES,
    MAX_EVENT_BYTES,
    AcceptedEvent,
    EndEvent,
    Event,
    FaultEvent,
    FrameReader,
    HeartbeatEvent,
    PartEvent,
    ProtocolError,
    Seal,
    SealBroken,
    SettingsEvent,
    data_header,
    encode_event,
    problem_seal,
)

KEY = b"k" * 32
SETTINGS = SettingsEvent(settings=Settings(outputs=(OutputFormat.FLAC,)))


def frames(audio: bytes, key: bytes | None = None) -> bytes:
    seal = Seal(key)
    sent = [encode_event(SETTINGS), encode_event(PartEvent(name="audio", size=len(audio)))]
    if audio:
        sent += [data_header(len(audio)), audio]
    return b"".join(map(seal.pass_on, sent)) + encode_event(seal.close(EndEvent()))


def read(stream: bytes, cuts: list[int], key: bytes | None = None) -> tuple[list[Event], bytes]:
    reader, events, data = FrameReader(Seal(key)), [], bytearray()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in pairwise(edges):
        for item in reader.feed(stream[start:end]):
            if isinstance(item, bytes):
                data += item
            else:
                events.append(item)
    assert reader.is_between_frames
    return events, bytes(data)


@given(st.binary(max_size=3000), st.lists(st.integers(0, 5000), max_size=40), st.sampled_from([None, KEY]))
def test_frames_survive_any_chunk_boundaries(audio: bytes, cuts: list[int], key: bytes | None) -> None:
    events, data = read(frames(audio, key), cuts, key)
    assert data == audio
    assert events[:2] == [SETTINGS, PartEvent(name="audio", size=len(audio))]
    assert isinstance(events[-1], EndEvent)


@given(st.integers(0, 10_000), st.integers(1, 255), st.sampled_from([None, KEY]))
def test_no_change_of_a_stream_goes_unnoticed(at: int, change: int, key: bytes | None) -> None:
    stream = bytearray(frames(b"the audio of one song", key))
    stream[at % len(stream)] ^= change
    try:
        events, _ = read(bytes(stream), [], key)
    except (ProtocolError, AssertionError):
        return
    assert not any(isinstance(event, EndEvent) for event in events)


@pytest.mark.parametrize("key", [b"j" * 32, None], ids=["another key", "no key"])
def test_frames_without_the_right_seal_do_not_end(key: bytes | None) -> None:
    with pytest.raises(ProtocolError, match="seal"):
        read(frames(b"abc", key), [], KEY)


FAULT = FaultEvent(code=FaultCode.SILENT, message="It is silent.", numbers={"a": 1, "b": -70.5, "c": "3", "d": 2.0})


def faulty(fault: FaultEvent, key: bytes | None) -> bytes:
    """A beat, then `fault`, sealed by `key`."""
    seal = Seal(key)
    return seal.pass_on(encode_event(HeartbeatEvent())) + encode_event(seal.close(fault))


def test_a_sealed_fault_comes_out_as_it_went_in() -> None:
    events, _ = read(faulty(FAULT, KEY), [], KEY)
    fault = events[-1]
    assert isinstance(fault, FaultEvent)
    assert fault.model_copy(update={"seal": None}) == FAULT


@pytest.mark.parametrize("key", [None, b"q" * 32], ids=["no seal", "another's seal"])
def test_a_fault_without_the_right_seal_does_not_come_out(key: bytes | None) -> None:
    with pytest.raises(ProtocolError, match="seal"):
        read(faulty(FAULT, key), [], KEY)


def test_a_seal_holds_for_its_own_last_frame_alone() -> None:
    sealed = Seal(KEY).close(EndEvent())
    for forged in (
        FAULT.model_copy(update={"seal": sealed.seal}),
        Seal(KEY).close(FAULT).model_copy(update={"code": FaultCode.UNDECODABLE}),
    ):
        with pytest.raises(ProtocolError, match="seal"):
            read(encode_event(forged), [], KEY)


def test_a_refusals_seal_covers_its_status_and_its_body() -> None:
    seals = {problem_seal(KEY, 400, b"a"), problem_seal(KEY, 413, b"a"), problem_seal(KEY, 400, b"b")}
    assert len(seals | {problem_seal(b"q" * 32, 400, b"a")}) == 4


def test_a_reader_without_a_key_does_not_take_the_seal_of_one_with_a_key() -> None:
    with pytest.raises(SealBroken):
        read(frames(b"abc", KEY), [])


@given(st.binary(min_size=1, max_size=400))
def test_noise_is_a_protocol_error_or_an_unfinished_frame(noise: bytes) -> None:
    reader = FrameReader()
    try:
        items = list(reader.feed(noise))
    except ProtocolError:
        return
    assert all(isinstance(item, bytes) for item in items) or not reader.is_between_frames


def test_a_data_frame_holds_no_less_than_a_byte_and_no_more_than_its_limit() -> None:
    for size in (0, MAX_DATA_BYTES + 1):
        with pytest.raises(ProtocolError):
            data_header(size)
        with pytest.raises(ProtocolError):
            list(FrameReader().feed(b"\x02" + size.to_bytes(4, "big")))


def test_an_event_larger_than_its_limit_is_refused_by_its_header() -> None:
    with pytest.raises(ProtocolError):
        list(FrameReader().feed(b"\x01" + (MAX_EVENT_BYTES + 1).to_bytes(4, "big")))


def test_an_error_does_not_quote_what_was_sent() -> None:
    payload = b'{"type":"part","name":"../../canary","size":1}'
    with pytest.raises(ProtocolError) as caught:
        list(FrameReader().feed(b"\x01" + len(payload).to_bytes(4, "big") + payload))
    assert "canary" not in str(caught.value)


def test_a_heartbeat_is_small() -> None:
    assert len(encode_event(HeartbeatEvent())) < 40


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (FaultEvent, {"code": "silent", "message": "a" * 501}),
        (AcceptedEvent, {"engine_version": "0.1.0", "device": "a" * 65}),
        (AcceptedEvent, {"engine_version": "0" * 33, "device": "a"}),
    ],
)
def test_what_is_shown_to_people_has_a_greatest_length(kind: type[Record], said: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="at most"):
        kind.model_validate_json(json.dumps(said))
