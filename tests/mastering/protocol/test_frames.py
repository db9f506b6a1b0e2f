"""Frames and their seal: what is encoded comes out as it went in, or not at all."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from mastering.contract import FaultCode, Record
from mastering.protocol.frames import (
    MAX_DATA_BYTES,
    MAX_EVENT_BYTES,
    AcceptedEvent,
    EndEvent,
    Event,
    FaultEvent,
    HeartbeatEvent,
    PartEvent,
    ProtocolError,
    Seal,
    SealBroken,
    data_header,
    encode_event,
    frame_header,
    problem_seal,
)

KEY = b"k" * 32
ACCEPTED = AcceptedEvent(engine_version="0.1.0", device="cpu")
FAULT = FaultEvent(code=FaultCode.SILENT, message="It is silent.", numbers={"a": 1, "b": -70.5, "c": "3", "d": 2.0})


def opened(stream: list[bytes], key: bytes | None = None) -> list[Event]:
    seal = Seal(key)
    return [seal.opened(frame) for frame in stream]


def sealed_fault(fault: FaultEvent, key: bytes | None) -> list[bytes]:
    """Two frames: a worker accepts a song, then says `fault`, sealed by `key`."""
    seal = Seal(key)
    return [seal.pass_on(encode_event(ACCEPTED)), encode_event(seal.close(fault))]


def test_a_sealed_fault_comes_out_as_it_went_in() -> None:
    fault = opened(sealed_fault(FAULT, KEY), KEY)[-1]
    assert isinstance(fault, FaultEvent)
    assert fault.model_copy(update={"seal": None}) == FAULT


@pytest.mark.parametrize("key", [None, b"q" * 32], ids=["no seal", "another's seal"])
def test_a_fault_without_the_right_seal_does_not_come_out(key: bytes | None) -> None:
    with pytest.raises(SealBroken, match="seal"):
        opened(sealed_fault(FAULT, key), KEY)


def test_a_seal_holds_for_its_own_last_frame_alone() -> None:
    sealed = Seal(KEY).close(EndEvent())
    for forged in (
        FAULT.model_copy(update={"seal": sealed.seal}),
        Seal(KEY).close(FAULT).model_copy(update={"code": FaultCode.UNDECODABLE}),
    ):
        with pytest.raises(SealBroken, match="seal"):
            opened([encode_event(forged)], KEY)


def test_a_refusals_seal_covers_its_status_and_its_body() -> None:
    seals = {problem_seal(KEY, 400, b"a"), problem_seal(KEY, 413, b"a"), problem_seal(KEY, 400, b"b")}
    assert len(seals | {problem_seal(b"q" * 32, 400, b"a")}) == 4


def test_a_data_frame_holds_no_less_than_a_byte_and_no_more_than_its_limit() -> None:
    for size in (0, MAX_DATA_BYTES + 1):
        with pytest.raises(ProtocolError):
            data_header(size)
        with pytest.raises(ProtocolError):
            frame_header(b"\x02" + size.to_bytes(4, "big"))


def test_an_event_larger_than_its_limit_is_refused_by_its_header() -> None:
    with pytest.raises(ProtocolError):
        frame_header(b"\x01" + (MAX_EVENT_BYTES + 1).to_bytes(4, "big"))


def test_an_error_does_not_quote_what_was_sent() -> None:
    payload = b'{"type":"part","name":"../../canary","size":1}'
    with pytest.raises(ProtocolError) as caught:
        Seal().opened(b"\x01" + len(payload).to_bytes(4, "big") + payload)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["track/0", "audio/0", "reference/100", "output/", "output/../x", "settings"])
def test_a_part_has_a_name_of_the_protocol(name: str) -> None:
    with pytest.raises(ValidationError):
        PartEvent(name=name, size=1)


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
