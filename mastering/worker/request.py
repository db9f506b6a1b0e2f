"""Request frames → settings and memory files. Everything is checked against what was announced; nothing is parsed."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType

from mastering.contract import Fault, FaultCode, Settings
from mastering.protocol.frames import (
    PROTOCOL_VERSION,
    EndEvent,
    Event,
    FrameReader,
    PartEvent,
    ProtocolError,
    Seal,
    SettingsEvent,
)


class RenderRequest:
    """Takes the chunks of one request body. The memory files are closed when its `with` block ends."""

    def __init__(self, max_part_bytes: int, max_references: int, seal: Seal | None = None) -> None:
        self._reader = FrameReader(seal)
        self._max_part_bytes = max_part_bytes
        self._max_references = max_references
        self._request: SettingsEvent | None = None
        self._left = 0
        self._ended = False
        self.parts: dict[str, int] = {}
        """Name of the part -> descriptor of its memory file, at its beginning once `finish` was called."""

    def __enter__(self) -> RenderRequest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for descriptor in self.parts.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def feed(self, chunk: bytes) -> None:
        """Raises Fault(bad_request, too_large)."""
        try:
            for item in self._reader.feed(chunk):
                if isinstance(item, bytes):
                    self._take_data(item)
                else:
                    self._take_event(item)
        except ProtocolError as error:
            raise _bad(str(error)) from None

    def finish(self) -> SettingsEvent:
        """The body has ended. Raises Fault(bad_request) where something is missing."""
        if not self._ended or self._request is None or not self._reader.is_between_frames:
            raise _bad("the body ends before its end frame")
        for descriptor in self.parts.values():
            os.lseek(descriptor, 0, os.SEEK_SET)
        return self._request

    @property
    def settings(self) -> Settings:
        if self._request is None:
            raise _bad("the settings are missing")
        return self._request.settings

    def _take_event(self, event: Event) -> None:
        if self._ended:
            raise _bad("something follows the end frame")
        match event:
            case SettingsEvent() if self._request is None:
                self._take_settings(event)
            case PartEvent() if self._request is not None:
                self._take_part(event)
            case EndEvent() if "audio" in self.parts:
                self._check_whole()
                self._ended = True
            case _:
                raise _bad(f"a frame of type {event.type} is out of place")

    def _take_settings(self, event: SettingsEvent) -> None:
        if event.protocol != PROTOCOL_VERSION:
            raise _bad(f"protocol {event.protocol} is not spoken here, only {PROTOCOL_VERSION}")
        self._request = event

    def _take_part(self, event: PartEvent) -> None:
        self._check_whole()
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
        self._left = event.size

    def _is_expected(self, name: str) -> bool:
        """The audio first, then references 0, 1, …"""
        references = len(self.parts) - 1
        return name == "audio" if references < 0 else name == f"reference/{references}" and self._has_room(references)

    def _has_room(self, references: int) -> bool:
        return references < self._max_references

    def _take_data(self, data: bytes) -> None:
        if self._ended or len(data) > self._left:
            raise _bad("there are more bytes than the part announced")
        self._left -= len(data)
        descriptor, view = next(reversed(self.parts.values())), memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def _check_whole(self) -> None:
        if self._left:
            raise _bad(f"{self._left} bytes of a part are missing")


def _bad(what: str) -> Fault:
    return Fault(FaultCode.BAD_REQUEST, f"The request is not in the protocol: {what}.")
