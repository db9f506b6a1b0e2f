"""The frames of a request → its job, and its audio in memory files. The audio itself is not parsed."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mastering.contract import Fault, FaultCode, JobOptions
from mastering.contract.kinds import JobKind
from mastering.protocol.frame_parser import REQUEST, FrameParser
from mastering.protocol.frames import (
    PROTOCOL_VERSION,
    Event,
    JobEvent,
    PartEvent,
    ProtocolError,
    Seal,
    other_version,
)
from mastering.worker.served_kinds import served_kind


@dataclass(frozen=True)
class JobRequest:
    """What a caller asks for: a kind that is served here, and options that it takes."""

    kind: JobKind[Any]
    options: JobOptions
    deadline_s: float | None
    """Seconds that the caller will wait."""


class RenderRequest:
    """Reads one request body from its chunks. The memory files are closed when its `with` block ends."""

    def __init__(self, max_part_bytes: int, max_references: int, seal: Seal | None = None) -> None:
        self._parser = FrameParser(REQUEST, seal)
        self._max_part_bytes = max_part_bytes
        self._max_references = max_references
        self._request: JobRequest | None = None
        self.parts: dict[str, int] = {}
        """Name of the part -> descriptor of its memory file, at its beginning once `finish` was called."""

    @property
    def kind(self) -> str | None:
        """The job's kind, once it is known and served here."""
        return self._request.kind.name if self._request else None

    def __enter__(self) -> RenderRequest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for descriptor in self.parts.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def feed(self, chunk: bytes) -> None:
        """Raises Fault(bad_request, bad_settings, too_large, unknown_kind)."""
        try:
            for item in self._parser.feed(chunk):
                if isinstance(item, bytes):
                    self._store(item)
                else:
                    self._take_event(item)
        except ProtocolError as error:
            raise _bad(str(error)) from None

    def finish(self) -> JobRequest:
        """The job, when the body has ended. Raises Fault(bad_request) where something is missing."""
        if not self._parser.is_over or self._request is None:
            raise _bad("the body ends before its end frame")
        for descriptor in self.parts.values():
            os.lseek(descriptor, 0, os.SEEK_SET)
        return self._request

    def _take_event(self, event: Event) -> None:
        match event:
            case JobEvent():
                self._take_job(event)
            case PartEvent():
                self._take_part(event)

    def _take_job(self, event: JobEvent) -> None:
        if event.protocol != PROTOCOL_VERSION:
            raise _bad(other_version(event.protocol))
        kind = served_kind(event.kind)
        self._max_references = min(self._max_references, kind.max_references)
        self._request = JobRequest(kind, kind.parse(event.options), event.deadline_s)

    def _take_part(self, event: PartEvent) -> None:
        if event.size > self._max_part_bytes:
            raise Fault(
                FaultCode.TOO_LARGE,
                f"A part of {event.size} bytes is too large; at most {self._max_part_bytes} are taken.",
                size_bytes=event.size,
                allowed_bytes=self._max_part_bytes,
            )
        if event.name in self.parts or not self._is_expected(event.name):
            raise _bad(f"the part {event.name} is out of place")
        self.parts[event.name] = os.memfd_create("part", os.MFD_CLOEXEC)

    def _is_expected(self, name: str) -> bool:
        """The audio first, then references 0, 1, …"""
        if not self.parts:
            return name == "audio"
        references = len(self.parts) - 1
        return references < self._max_references and name == f"reference/{references}"

    def _store(self, data: bytes) -> None:
        descriptor, view = next(reversed(self.parts.values())), memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]


def _bad(what: str) -> Fault:
    return Fault(FaultCode.BAD_REQUEST, f"The request is not in the protocol: {what}.")
