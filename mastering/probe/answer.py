"""What one child of the zygote does: take the bytes in, lock itself up, decode, answer. It ends in `os._exit`."""

from __future__ import annotations

import json
import math
import mmap
import os
import socket
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from mastering import sandbox
from mastering.codecs import LOSSLESS
from mastering.contract import MAX_DURATION_S, MAX_INPUT_BYTES, Facts, Fault, FaultCode, Record
from mastering.probe import structure
from mastering.probe.arriving import Arriving
from mastering.probe.listen import PATIENCE_S, check_header, judge, listen
from mastering.probe.recordings import Recording, open_recording, resource_fault, undecodable_fault
from mastering.probe.trials import trials

_CHUNK_BYTES = 256 * 1024
_HEAD_BYTES = 16 * 1024
"""Enough of a file's beginning to tell its container."""


class Expected(Record):
    """What a master must be. `tolerance_frames` is for lossy formats, which pad."""

    frames: int
    rate_hz: int
    channels: int
    tolerance_frames: int = 0
    size: int | None = None


class Request(Record):
    """One packet from the router; the descriptors travel beside it."""

    op: Literal["probe", "verify", "selfcheck"]
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    patience_s: Annotated[float, Field(gt=0, le=3600)] = PATIENCE_S
    """Seconds of decoding after which only a recording that gives honest amounts of sound may take the rest."""
    max_bytes: Annotated[int, Field(gt=0)] = MAX_INPUT_BYTES
    max_duration_s: Annotated[float, Field(gt=0)] = MAX_DURATION_S
    most_kept_bytes: Annotated[int, Field(gt=0)] | None = None
    """Of a feed of known size: a child that must keep more gives up, and is asked when all is there."""
    memory_bytes: Annotated[int, Field(gt=0)] = 1024 * sandbox.MIB
    size: Annotated[int, Field(ge=0)] | None = None
    """Of the feed in bytes, where the caller knows it: then it is heard while it comes."""
    expected: Expected | None = None


def answer(request: Request, conversation: socket.socket) -> bytes:
    """The JSON answer to `request`: {"ok": …} or {"fault": …}. Locks the calling process up for good."""
    try:
        return json.dumps({"ok": _outcome(request, conversation)}).encode()
    except Fault as fault:
        return fault_answer(fault)
    except MemoryError:
        return fault_answer(resource_fault())
    except (NameError, TypeError, AttributeError, ImportError):
        # Ours, not the file's. The text is the library's or ours, and the line is in no log: reproduce it by a test.
        return fault_answer(Fault(FaultCode.INTERNAL, "The check of this file failed. Try again."))
    except Exception:
        return fault_answer(undecodable_fault())


def fault_answer(fault: Fault) -> bytes:
    return json.dumps({"fault": {"code": fault.code, "message": fault.message, "numbers": fault.numbers}}).encode()


def _outcome(request: Request, conversation: socket.socket) -> dict[str, Any]:
    if request.op == "selfcheck":
        _lock_up(request)
        return trials()
    source, feed = os.memfd_create(""), None
    if request.size is None:
        _take_in(source, request, conversation)
    else:
        _make_room(source, request, request.size)
        feed = conversation.fileno()
    size = os.fstat(source).st_size
    if size == 0:
        raise Fault(FaultCode.EMPTY_FILE, "The file is empty. Choose another one.")
    data = mmap.mmap(source, 0)  # mapped now: later no descriptor can be had
    arriving = Arriving(data, feed, request.most_kept_bytes)
    _lock_up(request, size)
    if request.expected is None:
        return _probe(source, request, arriving).model_dump()
    return _verify(source, request, request.expected, arriving)


def _take_in(source: int, request: Request, conversation: socket.socket) -> None:
    """Read the feed, of unknown size, to its end into the memory file `source`."""
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    total = 0
    while got := conversation.recv_into(buffer):
        total += got
        if total > request.max_bytes:
            continue  # read on, so that the caller's last byte finds somebody
        _write_all(source, buffer[:got])
    if total > request.max_bytes:
        raise _too_large(request)


def _write_all(target: int, data: memoryview) -> None:
    while data:
        data = data[os.write(target, data) :]


def _make_room(source: int, request: Request, size: int) -> None:
    """For a feed whose size is known. Only what is kept of it takes memory."""
    if size > request.max_bytes:
        raise _too_large(request)
    os.ftruncate(source, size)


def _too_large(request: Request) -> Fault:
    allowed = request.max_bytes
    return Fault(
        FaultCode.TOO_LARGE,
        f"The file is larger than {allowed / sandbox.MIB:.0f} MiB. Send FLAC instead of WAV, or a shorter file.",
        allowed_bytes=allowed,
    )


def _lock_up(request: Request, mapped_bytes: int = 0) -> None:
    """From here on a stranger's bytes are parsed: nothing can be opened, sent, started or written but the answer."""
    sandbox.limit(
        address_bytes=request.memory_bytes + mapped_bytes,
        heap_bytes=request.memory_bytes,
        cpu_s=math.ceil(request.timeout_s),
    )
    sandbox.filter_calls()


def _probe(source: int, request: Request, arriving: Arriving) -> Facts:
    data, container = arriving.data, _container(arriving)
    try:
        recording = open_recording(container, source, arriving)
    except Fault as fault:
        arriving.need_all()
        if fault.code is FaultCode.UNDECODABLE and structure.shortfall_of(container, data) is not None:
            raise Fault(FaultCode.TRUNCATED, "The file is cut short: its end is missing. Send it again.") from None
        raise
    if container == "mp3":
        recording = replace(recording, declared_frames=structure.mpeg_samples(data))
    check_header(recording, request.max_duration_s)
    heard = listen(recording, request.max_duration_s, request.patience_s, lambda: arriving.waited_s)
    if not recording.is_settled:
        arriving.need_all()
    is_cut_short = structure.shortfall_of(container, data) is not None
    return judge(recording, heard, is_cut_short, _slack_frames(recording))


def _container(arriving: Arriving) -> str:
    """Raises Fault where it is none, or nothing but a tag."""
    data = arriving.data
    arriving.need(_HEAD_BYTES)
    arriving.need(structure.after_tag(data) + _HEAD_BYTES)
    if structure.is_all_tag(data):
        raise Fault(FaultCode.TRUNCATED, "The file is cut short: it ends inside its tag. Send the whole file again.")
    container = structure.container_of(data)
    if container is None:
        raise Fault(
            FaultCode.UNSUPPORTED_FORMAT,
            "This is no audio file that this service knows. Send WAV, AIFF, FLAC, MP3, Ogg or M4A.",
        )
    return container


def _slack_frames(recording: Recording) -> int:
    """How many frames an honest file may lack against its header.

    Coded audio comes in packets, and the length of a lossy stream is told by time stamps, which may have gaps.
    """
    if recording.codec in LOSSLESS:
        return 4608 if recording.codec == "alac" else 0
    return 4608 + (recording.declared_frames or 0) // 1000


def _verify(source: int, request: Request, expected: Expected, arriving: Arriving) -> dict[str, Any]:
    facts = _probe(source, request, arriving)
    off_by = abs(facts.frames - expected.frames)
    wrong = [
        what
        for what, is_wrong in {
            "length": off_by > expected.tolerance_frames,
            "sample rate": facts.rate_hz != expected.rate_hz,
            "number of channels": facts.channels != expected.channels,
            "size": expected.size not in (None, arriving.size),
        }.items()
        if is_wrong
    ]
    if wrong:
        raise Fault(
            FaultCode.BAD_MASTER,
            f"The master is not the one that was announced: its {', '.join(wrong)} differs.",
            frames=facts.frames,
            expected_frames=expected.frames,
        )
    return {**facts.model_dump(), "size": arriving.size}
