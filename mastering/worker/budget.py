"""The bytes that a render may write: a limit on all its outputs together, checked before it begins and while it runs.

A compressed song can be a hundredth of its masters: an hour and a half of Opus, at 192 kHz in five lossless formats,
is twenty gigabytes. So the outputs' size is reckoned from the song's header before anything is rendered; a header may
lie, and what is written is counted too; and no file of the process may grow past the whole budget, whoever writes it.
"""

from __future__ import annotations

import io
import os
import resource
from typing import Any, BinaryIO, cast

from mastering.contract import Fault, FaultCode

_REPORT_BYTES = 16 << 20
"""The report is a file too, which the caller did not ask for."""


class Budget:
    """The bytes that a render's outputs may have together, and what they have.

    `unforeseen_bytes`: the limit for a song whose header does not tell how long it is.
    """

    def __init__(self, allowed_bytes: int, unforeseen_bytes: int | None = None) -> None:
        self.allowed_bytes = allowed_bytes
        self._unforeseen_bytes = allowed_bytes if unforeseen_bytes is None else unforeseen_bytes
        self.is_exceeded = False
        self._sizes: dict[int, int] = {}

    def enforce(self) -> None:
        """Have the kernel limit each file, too: for what is written without `open`."""
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        most = self.allowed_bytes + _REPORT_BYTES
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, least))

    def narrow(self) -> int:
        """Lower the limit for a song whose header does not tell how long it is, and return it."""
        self.allowed_bytes = min(self.allowed_bytes, self._unforeseen_bytes)
        return self.allowed_bytes

    def open(self, descriptor: int) -> BinaryIO:
        """A file on `descriptor` whose bytes are counted. Closing it closes the descriptor."""
        return cast(BinaryIO, io.BufferedRandom(_CountedFile(descriptor, self)))

    def grow(self, descriptor: int, end: int) -> None:
        """A file is about to have `end` bytes at least. Raises Fault(too_large) where the budget has too few."""
        size = max(end, self._sizes.get(descriptor, 0))
        if sum(self._sizes.values()) - self._sizes.get(descriptor, 0) + size > self.allowed_bytes:
            self.is_exceeded = True
            raise self.fault()
        self._sizes[descriptor] = size

    def shrink(self, descriptor: int, size: int) -> None:
        self._sizes[descriptor] = size

    def fault(self, needed_bytes: int | None = None) -> Fault:
        """Fault(too_large); `needed_bytes` is the size bound, where it was known beforehand."""
        numbers = {"allowed_bytes": self.allowed_bytes} | ({"needed_bytes": needed_bytes} if needed_bytes else {})
        many = f"up to {_mib(needed_bytes)}" if needed_bytes else "more than that"
        return Fault(
            FaultCode.TOO_LARGE,
            f"The masters may have {_mib(self.allowed_bytes)} together here, and these would have {many}. "
            "Ask for fewer formats or a lower sample rate, or send the song in parts.",
            **numbers,
        )


class _CountedFile(io.FileIO):
    """A file that asks the budget before it grows: a coder in a library may swallow the fault, but can't write more."""

    def __init__(self, descriptor: int, budget: Budget) -> None:
        super().__init__(descriptor, "r+b")
        self._budget = budget

    def write(self, data: Any, /) -> int:
        self._budget.grow(self.fileno(), self.tell() + memoryview(data).nbytes)
        return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        wanted = self.tell() if size is None else size
        if wanted > os.fstat(self.fileno()).st_size:
            self._budget.grow(self.fileno(), wanted)
        cut = super().truncate(wanted)
        self._budget.shrink(self.fileno(), cut)
        return cut


def check_duration(duration_s: float, allowed_s: float) -> None:
    """Raises Fault(too_long)."""
    if duration_s > allowed_s:
        raise Fault(
            FaultCode.TOO_LONG,
            f"The audio lasts {duration_s / 60:.1f} minutes; at most {allowed_s / 60:.1f} are taken here. "
            "Send it in parts.",
            duration_s=round(duration_s, 3),
            allowed_s=allowed_s,
        )


def _mib(size: int | None) -> str:
    return f"{(size or 0) / 2**20:.0f} MiB"
