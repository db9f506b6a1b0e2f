"""Bodies that come and go by the memory of whoever keeps them: nobody copies a song twice."""

from __future__ import annotations

from typing import Protocol


class WriteBuffer(Protocol):
    """Memory of the store that waits for the next bytes of a body."""

    @property
    def free(self) -> memoryview:
        """Where they go, from its start on."""
        ...

    def add(self, count: int) -> None:
        """So many bytes have been written there. Raises Full, or WrongOffset where none were due."""
        ...

    def empty(self) -> None:
        """In a thread, when nothing is free and more is certain to come: store what is there, and all is free again.

        Raises Full, Gone, OSError.
        """
        ...


class BodySource(Protocol):
    """A body that is written into the store's own memory."""

    async def fill(self, room: WriteBuffer) -> bool:
        """Add some of what comes, at most until `room` has nothing free, or, in a thread, `empty` it and go on; whether
        more may come, which is certain where nothing was free. What was added before it raised counts."""
        ...


class ReadBuffer(Protocol):
    """Some of a body, handed out from memory that is used again for each piece."""

    def next(self) -> memoryview:
        """In a thread: the next piece, good until the next call; empty at the end. Raises Gone."""
        ...

    def check(self) -> None:
        """Raises Gone when it is not to be had any more."""
        ...
