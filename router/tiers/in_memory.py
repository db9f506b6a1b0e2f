"""Audio in memory as an `AudioSource`, for callers without a spool: benchmarks and tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext

from router.tiers.port import AudioSource

_SOURCE_CHUNK_BYTES = 512 * 1024
"""About a record of the spool, so that a benchmark of a backend reads as the router does."""


def audio_source_of(data: bytes) -> AudioSource:
    """The audio file `data` as a source that can be read any number of times."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in _chunks_of(data):
            yield bytes(piece)

    return AudioSource(len(data), pieces, lambda: nullcontext(_MemoryBuffer(data)))


class _MemoryBuffer:
    """Hands `data` out in chunks without a copy, as `router.core.buffers.ReadBuffer`."""

    def __init__(self, data: bytes) -> None:
        self._pieces = _chunks_of(data)

    def next_piece(self) -> memoryview:
        return next(self._pieces, memoryview(b""))

    def check_available(self) -> None:
        """Memory does not expire."""


def _chunks_of(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[at : at + _SOURCE_CHUNK_BYTES] for at in range(0, len(data), _SOURCE_CHUNK_BYTES))
