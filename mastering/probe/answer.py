"""What one child of the fork server does: take the bytes in, lock itself up, decode, answer. It ends in `os._exit`."""

from __future__ import annotations

import math
import mmap
import os
import socket

from mastering.audio import refusals
from mastering.audio.codecs import allowed_missing_frames
from mastering.audio.container import CONTAINER_HEAD_BYTES, container_of, ends_inside_tag, leading_end, tags_end
from mastering.audio.truncation import shortfall_of
from mastering.contract import Facts, Fault, FaultCode
from mastering.contract.kinds import ExpectedJson
from mastering.probe.checks import check_header, decode_summary, facts_of
from mastering.probe.decoders import open_recording
from mastering.probe.growing_file import GrowingFile
from mastering.probe.json_output import verified_json
from mastering.probe.wav_header import serve_wav_headers
from mastering.protocol.probe import (
    ProbeAnswer,
    ProbeFault,
    ProbeRequest,
    SandboxChecks,
    VerifiedJson,
    verified_audio,
)
from mastering.runtime import sandbox, syscall_filter
from mastering.runtime.sandbox_check import refused_attempts

_READ_BYTES = 256 * 1024
"""Of a file of unknown size, in one call."""
_FIRST_SOUND_S = 3.0
"""Processor time up to a file's first samples, most of which honest files leave: libraries look each field of a tag up
in a list of all others, so that a megabyte of tiny fields takes them minutes."""
_TAKEN_BYTES_PER_S = 100_000_000
"""Bytes a second that a slow machine takes from the socket: some files are opened when their last byte is there."""


def answer(request: ProbeRequest, conversation: socket.socket) -> bytes:
    """The ProbeAnswer to `request`, as JSON without an end of line. Locks the calling process up for good."""
    try:
        return _outcome(request, conversation)
    except Fault as fault:
        return fault_answer(fault)
    except MemoryError:
        return fault_answer(refusals.demanding_song())
    except (NameError, TypeError, AttributeError, ImportError):
        # Ours, not the file's. The text is the library's or ours, and the line is in no log: reproduce it by a test.
        return fault_answer(Fault(FaultCode.INTERNAL, "The check of this file failed. Try again."))
    except Exception:
        return fault_answer(refusals.undecodable_song())


def fault_answer(fault: Fault) -> bytes:
    told = ProbeFault(code=fault.code, message=fault.message, numbers=fault.numbers)
    return ProbeAnswer(fault=told).model_dump_json(exclude_none=True).encode()


def answer_of(found: Facts | VerifiedJson | SandboxChecks) -> bytes:
    return ProbeAnswer(ok=found).model_dump_json(exclude_none=True).encode()


def _outcome(request: ProbeRequest, conversation: socket.socket) -> bytes:
    if request.op == "selfcheck":
        _lock_up(request)
        return answer_of(SandboxChecks(refused=refused_attempts()))
    if request.is_long_lived:
        _lock_up(request)
        serve_wav_headers(conversation.fileno())
        return b""
    source, feed = os.memfd_create(""), None
    if request.size is None:
        _read_to_end(source, request, conversation)
    else:
        _reserve(source, request, request.size)
        feed = conversation.fileno()
    size = os.fstat(source).st_size
    if size == 0:
        raise Fault(FaultCode.EMPTY_FILE, "The file is empty. Choose another one.")
    data = mmap.mmap(source, 0)  # mapped now: later no descriptor can be had
    file = GrowingFile(data, feed, request.most_kept_bytes)
    _lock_up(request, size)
    if isinstance(request.expected, ExpectedJson):
        return answer_of(verified_json(request, request.expected, file))
    facts = probe_file(source, request, file)
    return answer_of(facts if request.expected is None else verified_audio(facts, size, request))


def _read_to_end(source: int, request: ProbeRequest, conversation: socket.socket) -> None:
    """Read a file of unknown size to its end into the memory file `source`. Raises Fault(too_large)."""
    buffer = memoryview(bytearray(_READ_BYTES))
    total = 0
    while got := conversation.recv_into(buffer):
        total += got
        if total > request.max_bytes:
            continue  # read on, so that the caller's last write does not fail
        _write_all(source, buffer[:got])
    if total > request.max_bytes:
        raise _too_large(request)


def _write_all(target: int, data: memoryview) -> None:
    while data:
        data = data[os.write(target, data) :]


def _reserve(source: int, request: ProbeRequest, size: int) -> None:
    """For a file of known size. Only what is kept of it takes memory. Raises Fault(too_large)."""
    if size > request.max_bytes:
        raise _too_large(request)
    os.ftruncate(source, size)


def _too_large(request: ProbeRequest) -> Fault:
    allowed = request.max_bytes
    return Fault(
        FaultCode.TOO_LARGE,
        f"The file is larger than {allowed / sandbox.MIB:.0f} MiB. Send FLAC instead of WAV, or a shorter file.",
        allowed_bytes=allowed,
    )


def _lock_up(request: ProbeRequest, size: int = 0) -> None:
    """From here on untrusted bytes are parsed: nothing can be opened, sent, started or written but the answer."""
    is_decoded = size and not isinstance(request.expected, ExpectedJson)
    sandbox.limit_decoding(
        address_bytes=request.memory_bytes + size,
        heap_bytes=request.memory_bytes,
        cpu_s=math.ceil(request.timeout_s),
        early_cpu_s=round(_FIRST_SOUND_S + size / _TAKEN_BYTES_PER_S) if is_decoded else None,
    )
    syscall_filter.allow_decoding()


def probe_file(source: int, request: ProbeRequest, file: GrowingFile) -> Facts:
    """The facts of the file that arrives in the memory file `source`. Raises Fault, EOFError where it does not come."""
    data, container = file.data, _container(file)
    try:
        recording = open_recording(container, source, file)
    except Fault as fault:
        file.wait_for_all()
        if fault.code is FaultCode.UNDECODABLE and shortfall_of(container, data) is not None:
            raise Fault(FaultCode.TRUNCATED, "The file is cut short: its end is missing. Send it again.") from None
        raise
    check_header(recording, request.max_duration_s)
    summary = decode_summary(
        recording,
        request.max_duration_s,
        request.patience_s,
        lambda: file.waited_s,
        sandbox.lift_early_cpu_limit,
    )
    if not recording.is_settled:
        file.wait_for_all()
    is_cut_short = shortfall_of(container, data) is not None
    allowed_missing = allowed_missing_frames(recording.codec, recording.declared_frames or 0)
    return facts_of(recording, summary, is_cut_short, allowed_missing)


def _container(file: GrowingFile) -> str:
    """Raises Fault(truncated, unsupported_format)."""
    data = file.data
    for known_end in (tags_end, leading_end):
        end = -1
        while end != (end := known_end(data)):  # behind a tag that has arrived another one may begin
            file.wait_for(end + CONTAINER_HEAD_BYTES)
    if ends_inside_tag(data):
        raise Fault(FaultCode.TRUNCATED, "The file is cut short: it ends inside its tag. Send the whole file again.")
    container = container_of(data)
    if container is None:
        raise Fault(
            FaultCode.UNSUPPORTED_FORMAT,
            "This is no audio file that this service knows. Send WAV, AIFF, FLAC, MP3, Ogg or M4A.",
        )
    return container
