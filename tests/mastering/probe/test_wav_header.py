"""What a WAV's header and beginning say of it: the same as decoding all of it does, or nothing."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mastering.contract import Facts, Fault
from mastering.probe import answer
from mastering.probe.growing_file import GrowingFile
from mastering.probe.wav_header import plain_wav_facts, serve_wav_headers
from mastering.protocol.probe import (
    MAX_WAV_BEGINNING_BYTES,
    WAV_HEADER_SIZES,
    ProbeAnswer,
    ProbeRequest,
    VerifiedAudio,
)
from tests.hostile_audio import all_hostile, chunk, encoded, form_chunk, noise, riff, two_faced, written

BEGINNING_BYTES = 256 * 1024
SOUND = (noise() * 32767).astype("<i2").tobytes()
PLAIN = {
    "16 bits": written(noise()),
    "24 bits": written(noise(), subtype="PCM_24"),
    "mono": written(noise(channels=1), subtype="PCM_24"),
    "96 kHz": written(noise(rate_hz=96_000), 96_000),
    "extensible": written(noise(), kind="WAVEX", subtype="PCM_24"),
    "a filler before its audio": riff(chunk(b"JUNK", bytes(28)) + form_chunk() + chunk(b"data", SOUND)),
    "audio from the fourth kilobyte on": riff(form_chunk() + chunk(b"FLLR", bytes(4044)) + chunk(b"data", SOUND)),
    "long": written(noise(16.0)),
}
SILENT_AT_FIRST = np.concatenate([np.zeros((70_000, 2), np.float32), noise()])
NOT_PLAIN = {
    "float": written(noise(), subtype="FLOAT"),
    "32 bits": written(noise(), subtype="PCM_32"),
    "8 bits": written(noise(), subtype="PCM_U8"),
    "RF64": written(noise(), kind="RF64"),
    "FLAC": written(noise(), kind="FLAC"),
    "MP3": encoded("mp3", "libmp3lame"),
    "a chunk behind its audio": riff(form_chunk() + chunk(b"data", SOUND) + chunk(b"LIST", bytes(400))),
    "a list before its audio": riff(chunk(b"LIST", b"INFO" + bytes(400)) + form_chunk() + chunk(b"data", SOUND)),
    "a count of other frames": riff(form_chunk() + chunk(b"fact", bytes(4)) + chunk(b"data", SOUND)),
    "two formats": riff(form_chunk(rate=8000) + form_chunk() + chunk(b"data", SOUND)),
    "a beginning in silence": written(SILENT_AT_FIRST),
    "digital silence": written(np.zeros((90_000, 2), np.float32)),
    "half a second": written(noise(0.5)),
    "no audio at all": riff(form_chunk() + chunk(b"data", b"")),
    "a byte more than it says": PLAIN["16 bits"] + b"\0",
    "a byte less than it says": PLAIN["16 bits"][:-1],
    "four gigabytes more than it says": PLAIN["16 bits"],
}
SIZES_BYTES = {"four gigabytes more than it says": len(PLAIN["16 bits"]) + 2**32}


def by_header(data: bytes, size: int | None = None, **asked: Any) -> Facts | None:
    request = ProbeRequest.model_validate({"op": "probe", "size": len(data) if size is None else size, **asked})
    return plain_wav_facts(request, memoryview(bytearray(data[:BEGINNING_BYTES])))


def by_decoders(data: bytes) -> Facts | None:
    """What the decoders say of all of it."""
    source = os.memfd_create("")
    try:
        os.write(source, data)
        request = ProbeRequest(op="probe", size=len(data))
        return answer.probe_file(source, request, GrowingFile(mmap.mmap(source, 0)))
    except Fault:
        return None
    finally:
        os.close(source)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_wav_is_what_the_decoders_say_it_is(name: str) -> None:
    found = by_header(PLAIN[name])
    assert found is not None
    assert found == by_decoders(PLAIN[name])


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_nothing_is_said_of_any_other(name: str) -> None:
    assert by_header(NOT_PLAIN[name], SIZES_BYTES.get(name)) is None


def test_nothing_is_said_of_a_file_that_is_larger_than_allowed() -> None:
    data = PLAIN["16 bits"]
    assert by_header(data, max_bytes=len(data)) is not None
    assert by_header(data, max_bytes=len(data) - 1) is None
    vast = struct.pack("<4sI", b"RIFF", 36) + form_chunk().join([b"WAVE", b"data\xf0\xff\xff\xff"]) + SOUND
    assert by_header(vast, 2**32 + 44 - 16, max_bytes=2**40) is None


def test_nothing_is_said_of_a_file_that_is_refused() -> None:
    refused = {name: data for name, (data, _) in all_hostile().items()} | two_faced()
    assert {name: found for name, data in refused.items() if (found := by_header(data)) is not None} == {}


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(PLAIN)),
    spoilt=st.dictionaries(st.integers(0, 90), st.integers(0, 255), min_size=1, max_size=3),
    cut=st.integers(-3, 3),
)
def test_whatever_a_header_says_the_decoders_say_it_too(name: str, spoilt: dict[int, int], cut: int) -> None:
    data = bytearray(PLAIN[name])
    for at, value in spoilt.items():
        data[at] = value
    file = bytes(data[:cut]) if cut < 0 else bytes(data) + bytes(cut)
    found = by_header(file)
    assert found is None or found == by_decoders(file)


@pytest.mark.parametrize(
    ("wrong", "is_it"),
    [({}, True), ({"frames": 66_152}, True), ({"frames": 1}, False), ({"rate_hz": 48_000}, False),
     ({"channels": 1}, False), ({"size": 1}, False)],
)  # fmt: skip
def test_a_master_that_is_another_one_is_left_to_a_child(wrong: dict[str, int], is_it: bool) -> None:
    master = PLAIN["24 bits"]
    expected = {"frames": 66_150, "rate_hz": 44_100, "channels": 2, "tolerance_frames": 2, **wrong}
    found = by_header(master, expected_bytes=expected.pop("size", len(master)), expected=expected)
    assert (found is not None) == is_it
    if found is not None:
        assert isinstance(found, VerifiedAudio)
        assert found.size == len(master)


@pytest.fixture
def served() -> Iterator[socket.socket]:
    """The caller's end of a conversation with one that reads headers."""
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=serve_wav_headers, args=(theirs.fileno(),))
    with ours, theirs:
        ours.settimeout(10)
        serving.start()
        yield ours
        ours.close()
        serving.join(10)
        assert not serving.is_alive()


def ask(served: socket.socket, data: bytes, in_pieces_of: int = 1 << 20) -> Facts | None:
    text, beginning = json.dumps({"op": "probe", "size": len(data)}).encode(), data[:BEGINNING_BYTES]
    question = WAV_HEADER_SIZES.pack(len(text), len(beginning)) + text + beginning
    for at in range(0, len(question), in_pieces_of):
        served.sendall(question[at : at + in_pieces_of])
    with served.makefile("rb") as answers:
        line = answers.readline()
    return None if line == b"null\n" else ProbeAnswer[Facts].model_validate_json(line).ok


def test_one_child_reads_file_after_file(served: socket.socket) -> None:
    for data, is_plain in ((PLAIN["long"], True), (NOT_PLAIN["FLAC"], False), (PLAIN["mono"], True)):
        found = ask(served, data, 60_000)
        assert found == (by_decoders(data) if is_plain else None)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_nothing_of_a_beginning_is_left_in_memory_when_it_has_been_looked_at(subtype: str) -> None:
    code = "import sys; from mastering.probe.wav_header import serve_wav_headers; serve_wav_headers(int(sys.argv[1]))"
    ours, theirs = socket.socketpair()
    data = written(noise(16.0), subtype=subtype)
    with ours:
        with theirs:
            command = [sys.executable, "-c", code, str(theirs.fileno())]
            serving = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        ours.settimeout(30)
        try:
            assert ask(ours, data) is not None
            kept = memory_of(serving.pid)
        finally:
            ours.close()
            assert serving.wait(30) == 0
    places = (*range(64, 16_384, 4080), *range(16_384, BEGINNING_BYTES, 48_000))
    stretches = [data[at : at + 12] for at in places]
    whole = [b"".join(b"\0" + one[at : at + 3] for at in range(0, 12, 3)) for one in stretches]  # 24 bits as 32
    assert [one for one in (*stretches, *whole) if one in kept] == []


def memory_of(pid: int) -> bytes:
    """All that the process can write to."""
    kept = bytearray()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            where, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(edge, 16) for edge in where.split("-"))
                memory.seek(start)
                kept += memory.read(end - start) or b""
    return bytes(kept)


def test_a_beginning_has_a_greatest_length() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(struct.pack("!II", 2, MAX_WAV_BEGINNING_BYTES + 1))
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(ValueError, match="beginning"):
            serve_wav_headers(theirs.fileno())
