"""Who hands whose memory to whom when a body is received or sent: nobody copies a song twice.

The store lends its own memory to a connection: a `WriteBuffer` to receive into, a `ReadBuffer` to send from. A
`BodySource` is a body that fills a `WriteBuffer`.
"""

from __future__ import annotations

from typing import Protocol


class WriteBuffer(Protocol):
    """Memory of the store for the next bytes of a body."""

    @property
    def free_view(self) -> memoryview:
        """The part that is free: the next bytes go to its start."""
        ...

    def commit(self, count: int) -> None:
        """`count` bytes have been written to the start of `free_view`. Raises SpoolFull, or WrongOffset where none may
        come."""
        ...

    def flush(self) -> None:
        """In a thread, when nothing is free and more bytes are certain to come: store what is there; then all is free.

        Raises SpoolFull, BlobGone, OSError.
        """
        ...


class BodySource(Protocol):
    """A body on its way, read into the store's own memory."""

    async def fill(self, buffer: WriteBuffer) -> bool:
        """Commit some of the bytes that are there: at most until nothing is free, or, in a thread, beyond that by
        `flush`. True where more bytes may come; they are certain to where nothing was free.

        What was committed before it raised counts.
        """
        ...


class ReadBuffer(Protocol):
    """A part of a blob, piece by piece in memory that is used again for the next piece."""

    def next_piece(self) -> memoryview:
        """In a thread: the next piece, valid until the next call; empty at the end. Raises BlobGone."""
        ...

    def check_available(self) -> None:
        """Raises BlobGone where the blob was dropped or has expired."""
        ...
