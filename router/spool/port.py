"""What the router asks of whoever keeps its audio: one machine's spool today, a spool with a peer's copy later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from router.core.buffers import BodySource, ReadBuffer


class BlobGone(Exception):
    """The audio is not here any more: dropped, expired, or its key went with a reboot."""


class SpoolFull(Exception):
    """No room. Nothing partial is left behind."""

    def __init__(self, message: str, retry_after_s: float = 60.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WrongOffset(Exception):
    """The append does not start where the blob ends."""

    def __init__(self, offset_bytes: int) -> None:
        super().__init__(f"the blob ends at {offset_bytes}")
        self.offset_bytes = offset_bytes


class Extent(NamedTuple):
    """How much of a blob is stored, and whether that is all of it."""

    size_bytes: int
    complete: bool


PieceCallback = Callable[[memoryview], None]
"""Hears a body stretch by stretch, in a thread; what it is shown is its own until it returns."""


class Blobs(Protocol):
    """Stretches of audio by opaque reference. Sizes are of the plain bytes."""

    async def reserve(self, size_bytes: int, expires_s: float, beside: str | None = None) -> str:
        """Room for a new blob, in the folder of the blob `beside` if one is named. Raises Full."""
        ...

    async def append(
        self,
        ref: str,
        offset: int,
        body: AsyncIterator[bytes] | BodySource,
        total: int | None,
        listener: PieceCallback | None = None,
    ) -> Extent:
        """Take `body` from `offset` on; complete when it ends, or at `total` bytes if that is known.

        Returns when every byte rests in the store, and `listener` has heard of all that came. What arrived before
        `body` raised stays and can be continued. Raises WrongOffset, Gone, Full (also when more than the reserved size
        comes).
        """
        ...

    async def extent(self, ref: str) -> Extent:
        """Raises Gone."""
        ...

    def read(self, ref: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`. Raises Gone, also half-way when its time comes."""
        ...

    def open_reader(self, ref: str, start: int, end: int) -> AbstractContextManager[ReadBuffer]:
        """The same for a thread, each piece in memory that serves for the next. Raises Gone, also half-way."""
        ...

    async def drop(self, ref: str) -> None:
        """Destroy the key, then the bytes. Nothing happens if they are gone already."""
        ...
