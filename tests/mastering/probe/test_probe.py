"""The probe's process, spoken to directly: its protocol, its sandbox, and what the engine says of the same files."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from mastering.audio import decode
from mastering.audio.coded import CodedAudio
from mastering.audio.container import container_of, id3_end
from mastering.audio.truncation import shortfall_of
from mastering.contract import Fault, FaultCode
from mastering.probe.checks import decode_summary
from mastering.probe.recording import ProbedRecording
from tests.crowded_tags import CROWDED, mp3_with_text_frames
from tests.hostile_audio import all_hostile, encoded, noise, written
from tests.mastering.worker_process import until
from tests.processes import children


def tagged(audio: bytes) -> bytes:
    """Behind an ID3 tag of a picture's size, in place of the one that it has."""
    return b"ID3\4\0\0" + bytes([0, 20, 0, 0]) + bytes(20 << 14) + audio[id3_end(audio) :]


HONEST = {
    "wav": written(noise()),
    "wav, float": written(noise(), subtype="FLOAT"),
    "aiff": written(noise(), kind="AIFF"),
    "flac": written(noise(), kind="FLAC"),
    "ogg": written(noise(), kind="OGG", subtype="VORBIS"),
    "opus": encoded("ogg", "libopus"),
    "mp3": encoded("mp3", "libmp3lame"),
    "mp3 behind a large tag": tagged(encoded("mp3", "libmp3lame")),
    "mp3 behind two tags": b"ID3\4\0\0" + bytes([0, 1, 0, 0]) + bytes(1 << 14) + tagged(encoded("mp3", "libmp3lame")),
    "flac behind a tag": tagged(written(noise(), kind="FLAC")),
    "aac": encoded("mp4", "aac"),
    "alac": encoded("mp4", "alac"),
    "webm": encoded("webm", "libopus"),
}


class ForkServerProcess:
    """A fork server, and the socket that it lives by."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mastering.probe", "--fork-server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
            )
        self.layers = json.loads(self.control.recv(4096))["ready"]

    def ask(self, packet: bytes, feed: bytes = b"") -> dict[str, Any]:
        """Send one packet, feed the bytes, read the answer."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.settimeout(60)
            with theirs:
                socket.send_fds(self.control, [packet], [theirs.fileno()])
            with ours.makefile("rb") as answers:
                assert answers.readline() == b"+\n"
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # answered without asking for it
                    ours.sendall(feed)
                    ours.shutdown(socket.SHUT_WR)
                return dict(json.loads(answers.readline()))

    def probe(self, feed: bytes, **request: object) -> dict[str, Any]:
        return self.ask(json.dumps({"op": "probe", **request}).encode(), feed)


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServerProcess]:
    fork_server = ForkServerProcess()
    yield fork_server
    fork_server.control.close()
    assert fork_server.process.wait(20) == 0


@pytest.mark.parametrize("kind", HONEST)
def test_the_engine_decodes_what_the_probe_decoded(fork_server: ForkServerProcess, kind: str) -> None:
    """The router compares a master's length with the probe's facts: both must count alike."""
    facts = fork_server.probe(HONEST[kind])["ok"]
    recording = decode.open_recording(io.BytesIO(HONEST[kind]))
    frames = sum(block.shape[-1] for block in recording.decode())
    assert (facts["frames"], facts["rate_hz"], facts["channels"], facts["lossy"]) == (
        frames, recording.rate_hz, recording.channels, recording.lossy,
    )  # fmt: skip


@pytest.mark.parametrize(
    "packet", [b"{", b"[]", b'{"op":"format the disk"}', b'{"op":"probe","timeout_s":-1}', b"\xff"]
)
def test_a_request_it_does_not_know_is_a_bad_request(fork_server: ForkServerProcess, packet: bytes) -> None:
    assert fork_server.ask(packet)["fault"]["code"] == FaultCode.BAD_REQUEST
    assert "ok" in fork_server.probe(HONEST["wav"])


def test_a_packet_without_a_conversation_changes_nothing(fork_server: ForkServerProcess) -> None:
    fork_server.control.send(b'{"op":"probe"}')
    assert "ok" in fork_server.probe(HONEST["wav"])


@pytest.mark.parametrize("kind", HONEST)
def test_a_file_whose_size_is_told_is_answered_at_its_last_byte(fork_server: ForkServerProcess, kind: str) -> None:
    """Without an end of the stream."""
    data, (ours, theirs) = HONEST[kind], socket.socketpair()
    with ours, ours.makefile("rb") as answers:
        ours.settimeout(20)
        with theirs:
            request = json.dumps({"op": "probe", "size": len(data)}).encode()
            socket.send_fds(fork_server.control, [request], [theirs.fileno()])
        assert answers.readline() == b"+\n"
        ours.sendall(data)
        found = json.loads(answers.readline())
    assert found == fork_server.probe(data)
    assert found["ok"]["frames"] >= len(noise())


def test_samples_that_are_not_kept_take_no_memory(fork_server: ForkServerProcess) -> None:
    """Ten minutes of WAV, 106 MB, silent but for the last seconds, decoded by a child that may have a tenth of it."""
    data = written(np.concatenate([np.zeros((26_019_000, 2), np.float32), noise(10.0)]))
    assert fork_server.probe(data, size=len(data), max_bytes=len(data))["ok"]["duration_s"] == pytest.approx(600)


def test_a_size_beyond_the_limit_is_refused_at_once(fork_server: ForkServerProcess) -> None:
    assert fork_server.probe(b"", size=1001, max_bytes=1000)["fault"]["code"] == FaultCode.TOO_LARGE
    assert fork_server.probe(b"", size=0)["fault"]["code"] == FaultCode.EMPTY_FILE


def test_a_file_that_needs_more_memory_than_it_may_is_a_resource_limit(fork_server: ForkServerProcess) -> None:
    """A FLAC whose picture is 15 MB of zeros: the decoder wants to hold it."""
    whole, size = HONEST["flac"], 15 << 20
    kind, rest = b"image/png", size - 41
    picture = struct.pack(">II9sIIIIII", 3, len(kind), kind, 0, 1, 1, 24, 0, rest) + bytes(rest)
    block = b"\x06" + len(picture).to_bytes(3, "big") + picture
    flac = whole[:42] + block + whole[42:]
    assert fork_server.probe(flac)["ok"]["frames"] == len(noise())
    assert fork_server.probe(flac, memory_bytes=1 << 20)["fault"]["code"] == FaultCode.RESOURCE_LIMIT


def processor_time_of_children_s(fork_server: ForkServerProcess) -> float:
    """Of those that have ended."""
    fields = Path(f"/proc/{fork_server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("kind", CROWDED)
def test_a_tag_of_too_many_fields_is_given_up_after_three_seconds(fork_server: ForkServerProcess, kind: str) -> None:
    data, before_s = CROWDED[kind](), processor_time_of_children_s(fork_server)
    assert fork_server.probe(data)["fault"]["code"] == FaultCode.RESOURCE_LIMIT
    until(lambda: processor_time_of_children_s(fork_server) > before_s + 2.5)
    assert processor_time_of_children_s(fork_server) < before_s + 4.5


def test_a_tag_that_no_library_is_shown_takes_no_time(fork_server: ForkServerProcess) -> None:
    """260,000 fields, of which libav would look each up in a list of all others."""
    data, before_s = mp3_with_text_frames(), processor_time_of_children_s(fork_server)
    assert fork_server.probe(data)["ok"]["frames"] == 72_000
    assert processor_time_of_children_s(fork_server) < before_s + 2.5


def test_no_hostile_file_makes_a_child_open_a_file_or_touch_the_network(tmp_path: Path) -> None:
    """strace over the fork server and all its children: every call they make, refused ones included."""
    fork_server, trace = ForkServerProcess(), tmp_path / "trace"
    tracer = subprocess.Popen(
        ["strace", "-f", "-q", "-o", str(trace), "-p", str(fork_server.process.pid)], stderr=subprocess.DEVNULL
    )
    try:
        status = Path(f"/proc/{fork_server.process.pid}/status")
        until(lambda: "TracerPid:\t0\n" not in status.read_text())
        for data, _ in all_hostile().values():
            if len(data) < 2_000_000:
                assert "fault" in fork_server.probe(data)
        assert "ok" in fork_server.probe(HONEST["aac"])
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
        fork_server.control.close()
        fork_server.process.wait(20)
    calls = re.findall(rf"^(?!{fork_server.process.pid}\b)\d+ +(\w+)\(", trace.read_text(), re.MULTILINE)
    assert calls.count("prctl") >= 50, "the trace saw no children"
    # What takes request and feed in (before any of it is parsed), and what works on memory and open descriptors.
    assert set(calls) <= {
        "recvmsg", "getsockname", "getpeername", "recvfrom", "read", "write", "lseek", "pread64", "fstat", "newfstatat",
        "fcntl", "close", "close_range",
        "memfd_create", "mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "prlimit64", "prctl", "seccomp",
        "rt_sigaction",
        "rt_sigprocmask", "set_robust_list", "rseq", "gettid", "getpid", "getppid", "getrandom", "futex", "exit_group",
        "sched_yield", "clock_gettime",
    }  # fmt: skip


def _waiting(fork_server: ForkServerProcess) -> set[int]:
    """The children that the fork server has made ahead, once they are there."""
    pid = fork_server.process.pid
    for _ in range(50):
        seen = children(pid)
        time.sleep(0.1)
        if len(seen) == 2 and seen == children(pid):  # else one of them was about to end
            return seen
    raise AssertionError("no children wait")


def _are_gone(pids: Iterable[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_two_children_wait_and_each_decodes_one_file(fork_server: ForkServerProcess) -> None:
    waiting = _waiting(fork_server)
    for _ in range(2):
        assert "ok" in fork_server.probe(HONEST["wav"])
    until(partial(_are_gone, waiting))
    assert not _waiting(fork_server) & waiting


def test_a_second_child_is_forked_when_one_is_left_over(fork_server: ForkServerProcess) -> None:
    waiting = _waiting(fork_server)
    fork_server.probe(HONEST["wav"])
    until(lambda: len(waiting & children(fork_server.process.pid)) == 1)
    assert len(waiting & _waiting(fork_server)) == 1


def test_children_that_die_while_they_wait_cost_no_request(fork_server: ForkServerProcess) -> None:
    for count in (1, 2):
        killed = sorted(_waiting(fork_server))[:count]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until(partial(_are_gone, killed))
        assert "ok" in fork_server.probe(HONEST["wav"])


@pytest.mark.parametrize("kind", HONEST)
def test_a_whole_file_lacks_nothing_and_a_cut_one_does(kind: str) -> None:
    container = container_of(HONEST[kind])
    assert container is not None
    assert shortfall_of(container, HONEST[kind]) is None
    if container in ("wav", "aiff", "ogg", "mp4", "webm"):
        assert shortfall_of(container, HONEST[kind][: len(HONEST[kind]) * 2 // 3]) is not None


def test_a_codec_that_nobody_knows_is_unsupported(fork_server: ForkServerProcess) -> None:
    """FFmpeg has no decoder for it, and so no context either."""
    unknown = encoded("mp4", "alac").replace(b"alac", b"zlac")
    assert fork_server.probe(unknown)["fault"]["code"] == FaultCode.UNSUPPORTED_FORMAT


def test_the_help_is_one_line() -> None:
    ended = subprocess.run([sys.executable, "-m", "mastering.probe"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: ")


class Packet:
    """One packet of a coded stream, good or damaged."""

    def __init__(self, is_good: bool) -> None:
        self._is_good = is_good

    def decode(self) -> list[Any]:
        if not self._is_good:
            raise av.InvalidDataError(0, "")
        return []


def packets_read(pattern: Iterable[bool]) -> tuple[int, Fault | None]:
    """How many packets of a lossy stream are taken, and what is said of it."""
    taken = 0

    def demux(_: object) -> Iterator[Packet]:
        nonlocal taken
        for is_good in pattern:
            taken += 1
            yield Packet(is_good)

    stream = SimpleNamespace(codec_context=None, disposition=0)
    media = SimpleNamespace(demux=demux, streams=SimpleNamespace(audio=(stream,)))
    audio = CodedAudio.__new__(CodedAudio)
    audio.codec, audio._container = "aac", "mp4"
    try:
        for _ in audio._packets_of(media):
            pass
    except Fault as fault:
        return taken, fault
    return taken, None


def test_a_stream_of_damaged_packets_is_given_up_early() -> None:
    taken, fault = packets_read([True] * 20 + [False] * 100_000)
    assert taken == 84
    assert fault is not None
    assert fault.code is FaultCode.UNDECODABLE


def test_a_burst_of_damage_in_a_long_recording_is_decoded_to_its_end() -> None:
    assert packets_read([True] * 20_000 + [False] * 100) == (20_100, None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock takes ten milliseconds."""
    ticks = itertools.count()
    monkeypatch.setattr("mastering.probe.checks.time", SimpleNamespace(monotonic=lambda: next(ticks) / 100))


@pytest.mark.usefixtures("clock")
def test_what_decodes_to_next_to_nothing_is_given_up_when_patience_ends() -> None:
    blocks = iter([np.full((100, 2), 0.5, np.float32)] * 10_000)
    with pytest.raises(Fault) as caught:
        decode_summary(ProbedRecording("ogg", "opus", 48_000, 2, None, lambda: blocks), 600.0)
    assert caught.value.code is FaultCode.RESOURCE_LIMIT
    assert 6_900 <= len(list(blocks)) <= 7_000


@pytest.mark.usefixtures("clock")
def test_an_honest_recording_may_take_longer_than_patience() -> None:
    block = np.full((48_000, 2), 0.5, np.float32)
    summary = decode_summary(ProbedRecording("ogg", "opus", 48_000, 2, None, lambda: iter([block] * 4_000)), 5400.0)
    assert summary.frames == 4_000 * 48_000
