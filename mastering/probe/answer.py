"""What one child of the zygote does: take the bytes in, lock itself up, decode, answer. It ends in `os._exit`."""

from __future__ import annotations

import json
import math
import mmap
import os
import socket
from dataclasses import replace
from typing import Any

from mastering.audio.codecs import allowed_missing_frames
from mastering.audio.container import CONTAINER_HEAD_BYTES, container_of, ends_inside_id3, id3_end, xing_frames
from mastering.audio.truncation import shortfall_of
from mastering.contract import Facts, Fault, FaultCode
from mastering.probe.checks import check_header, judge, listen
from mastering.probe.decoders import open_recording, resource_fault, undecodable_fault
from mastering.probe.growing_file import Arriving
from mastering.probe.sandbox_check import trials
from mastering.probe.wav_header import serve
from mastering.protocol.probe import Request
from mastering.runtime import sandbox

_CHUNK_BYTES = 256 * 1024


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
    if request.is_standing:
        _lock_up(request)
        serve(conversation.fileno())
        return {}
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
    return request.answer(_probe(source, request, arriving), size)


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
        if fault.code is FaultCode.UNDECODABLE and shortfall_of(container, data) is not None:
            raise Fault(FaultCode.TRUNCATED, "The file is cut short: its end is missing. Send it again.") from None
        raise
    if container == "mp3":
        recording = replace(recording, declared_frames=xing_frames(data))
    check_header(recording, request.max_duration_s)
    heard = listen(recording, request.max_duration_s, request.patience_s, lambda: arriving.waited_s)
    if not recording.is_settled:
        arriving.need_all()
    is_cut_short = shortfall_of(container, data) is not None
    return judge(
        recording, heard, is_cut_short, allowed_missing_frames(recording.codec, recording.declared_frames or 0)
    )


def _container(arriving: Arriving) -> str:
    """Raises Fault where it is none, or nothing but a tag."""
    data = arriving.data
    arriving.need(CONTAINER_HEAD_BYTES)
    arriving.need(id3_end(data) + CONTAINER_HEAD_BYTES)
    if ends_inside_id3(data):
        raise Fault(FaultCode.TRUNCATED, "The file is cut short: it ends inside its tag. Send the whole file again.")
    container = container_of(data)
    if container is None:
        raise Fault(
            FaultCode.UNSUPPORTED_FORMAT,
            "This is no audio file that this service knows. Send WAV, AIFF, FLAC, MP3, Ogg or M4A.",
        )
    return container
