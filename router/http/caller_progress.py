"""How long a connection has waited for its caller: to take what was sent, or to send what is still to come.

What a program has handed over says nothing of what a caller took: the kernel's buffers hold megabytes. So the kernel's
own counts are read, of bytes that the other side has acknowledged and of bytes that have come (Linux: TCP_INFO).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from typing import Any, NamedTuple

_TCP_CLOSE = 7
"""State of a connection that was reset (linux/tcp_states.h)."""
_TCP_INFO_BYTES = 136
_COUNTS = struct.Struct("=B119xQQ")
"""Of struct tcp_info (linux/tcp.h): state, bytes acknowledged, bytes received."""


class Wait(NamedTuple):
    """Seconds for which a caller has done less than it should. 0 for one that keeps up or has nothing to do."""

    seconds: float
    is_for_reading: bool
    """It is to take what was sent; else to send what is to come."""


KEEPS_UP = Wait(0.0, is_for_reading=False)


class _Counts(NamedTuple):
    at_s: float
    taken_bytes: int
    handed_bytes: int
    """Those that were taken and those that wait to be."""
    came_bytes: int


class CallerProgress:
    """Compares what a caller has done since a look at which it kept up with `least_bytes_per_s`.

    A caller keeps up who takes all that waited at that look, or so many bytes a second of it, and sends so many a
    second where something is to come. So an event stream on which little happens waits for nobody.
    """

    def __init__(self, transport: Any, least_bytes_per_s: float) -> None:
        self._socket = transport.get_extra_info("socket")
        self._least_bytes_per_s = least_bytes_per_s
        self._before = self._counts(0)

    def begin(self) -> None:
        """From now on something else is awaited of the caller."""
        self._before = self._counts(0)

    def look(self, held_bytes: int, is_more_to_come: bool) -> Wait:
        """How long it has been since the caller kept up. `held_bytes`: what the program holds for it yet."""
        now, before = self._counts(held_bytes), self._before
        waited_s = now.at_s - before.at_s
        enough = self._least_bytes_per_s * waited_s
        if now.taken_bytes < min(before.handed_bytes, before.taken_bytes + enough):
            return Wait(waited_s, is_for_reading=True)
        if is_more_to_come and now.came_bytes < before.came_bytes + enough and not self._ioctl(termios.FIONREAD):
            return Wait(waited_s, is_for_reading=False)
        self._before = now
        return KEEPS_UP

    @property
    def is_reset(self) -> bool:
        """The caller is gone. A transport that isn't being read or written to doesn't notice."""
        return int(self._info()[0]) == _TCP_CLOSE

    def _counts(self, held_bytes: int) -> _Counts:
        _, taken, came = self._info()
        return _Counts(time.monotonic(), taken, taken + self._ioctl(termios.TIOCOUTQ) + held_bytes, came)

    def _info(self) -> tuple[int, int, int]:
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        state, taken, came = _COUNTS.unpack(info)
        return state, taken, came

    def _ioctl(self, request: int) -> int:
        """Bytes in a buffer of the kernel: those that were not acknowledged, or those that were not received yet."""
        (count,) = struct.unpack("=i", fcntl.ioctl(self._socket.fileno(), request, bytes(4)))
        return int(count)
