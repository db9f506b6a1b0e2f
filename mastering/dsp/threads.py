"""Work beside work: a stage's next block is made while the last one is used. Where there is one core, nothing changes.

Each block goes through the same steps in the same order whatever the number of threads, so the result is the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from mastering.dsp.stream import Blocks, Samples

T = TypeVar("T")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in another thread while the caller is busy with the one before."""
    if cores() == 1:
        yield from items
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_next, items)
        while found := coming.result():
            coming = pool.submit(_next, items)
            yield found[0]


def _next(items: Iterator[T]) -> tuple[T] | None:
    for item in items:
        return (item,)
    return None


class BlockMeter(Protocol):
    """Anything that takes a recording block by block."""

    def feed(self, block: Samples, /) -> object: ...


def feed_all(blocks: Blocks, meters: Sequence[BlockMeter], *, beside: int = 0) -> Blocks:
    """The blocks, each of them fed to every meter: to the first one in a thread of its own, if a core is left for it.

    `beside`: threads that make the blocks. Three on two cores take longer than two.
    """
    if cores() <= 1 + beside:
        for block in blocks:
            for meter in meters:
                meter.feed(block)
            yield block
        return
    first, *others = meters
    with ThreadPoolExecutor(1) as pool:
        for block in blocks:
            fed = pool.submit(first.feed, block)
            for meter in others:
                meter.feed(block)
            fed.result()
            yield block
