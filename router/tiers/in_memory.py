"""A song that lies in memory, as a source: for whoever asks a backend without a spool, as benchmarks do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext

from router.tiers.port import Source

_PIECE_BYTES = 512 * 1024


def source_of(data: bytes) -> Source:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in _pieces(data):
            yield bytes(piece)

    return Source(len(data), pieces, lambda: nullcontext(_Lent(data)))


class _Lent:
    def __init__(self, data: bytes) -> None:
        self._pieces = _pieces(data)

    def next_piece(self) -> memoryview:
        return next(self._pieces, memoryview(b""))

    def check_available(self) -> None:
        """It is always to be had."""


def _pieces(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))
