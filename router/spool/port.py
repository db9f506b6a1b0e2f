"""What the router asks of the store of its audio: one machine's spool today, a spool with a peer's copy later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from router.core.buffers import BodySource, ReadBuffer


class BlobGone(Exception):
    """The blob was dropped, has expired, or lost its key with a reboot."""


class SpoolFull(Exception):
    """Quota or disk do not allow so many bytes. Nothing partial is left behind."""

    def __init__(self, message: str, retry_after_s: float = 60.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WrongOffset(Exception):
    """The append does not start where the stored part of the blob ends."""

    def __init__(self, offset_bytes: int) -> None:
        super().__init__(f"the blob ends at {offset_bytes}")
        self.offset_bytes = offset_bytes


class Extent(NamedTuple):
    """How much of a blob is stored, and whether that is all of it."""

    size_bytes: int
    complete: bool


class SpoolUsage(NamedTuple):
    """How much of the spool is taken, for gauges and the operators' page."""

    reserved_bytes: int
    quota_bytes: int
    blobs: int
    oldest_s: float | None
    """Age of the oldest blob in seconds."""


PieceCallback = Callable[[memoryview], None]
"""Called in a thread with each piece of a body before it is stored; the memory is its own until it returns."""


class Blobs(Protocol):
    """Files of audio by opaque reference, written once and in order. Sizes are of the plain bytes."""

    async def reserve(self, size_bytes: int, expires_s: float, beside: str | None = None) -> str:
        """Reserve room for a new blob, in the folder of the blob `beside` if one is named; its reference.

        `expires_s`: on `core.clock`. Raises SpoolFull.
        """
        ...

    async def append(
        self,
        ref: str,
        offset: int,
        body: AsyncIterator[bytes] | BodySource,
        total: int | None,
        on_piece: PieceCallback | None = None,
    ) -> Extent:
        """Take `body` from `offset` on; complete when it ends, or at `total` bytes if that is known.

        Returns when every byte is stored, and `on_piece` was called with all that came. What arrived before `body`
        raised stays and can be continued. Raises WrongOffset, BlobGone, SpoolFull (also when more than the reserved
        size comes).
        """
        ...

    async def extent(self, ref: str) -> Extent:
        """How much of the blob is stored. Raises BlobGone."""
        ...

    def read(self, ref: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`. Raises BlobGone, also half-way when the blob expires."""
        ...

    def open_reader(self, ref: str, start: int, end: int | None) -> AbstractContextManager[ReadBuffer]:
        """The same bytes for a thread, each piece in memory that is used again for the next. Raises BlobGone, also
        half-way."""
        ...

    async def drop(self, ref: str) -> None:
        """Destroy the key, then the bytes. Nothing happens if they are gone already."""
        ...

    async def reconcile(self, alive: Collection[str]) -> int:
        """Drop every blob that is not in `alive`, and what else a killed writer left. Returns how many were dropped."""
        ...

    # What a spool knows of the blobs that lie on its own machine, without asking any other.

    def is_receiving(self, ref: str) -> bool:
        """Whether an append to the blob runs, though no byte of it may be stored yet."""
        ...

    def reserved_bytes_of(self, ref: str) -> int:
        """How many bytes of room are reserved for the blob; 0 when it is gone."""
        ...

    def bytes_to_free(self, size_bytes: int) -> int:
        """How many bytes must be freed before a blob of that size can be reserved; 0 when it can be now."""
        ...

    def expired(self) -> list[str]:
        """Blobs that have expired, and so can't be read any more."""
        ...

    def usage(self) -> SpoolUsage: ...
