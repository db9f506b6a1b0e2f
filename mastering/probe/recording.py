"""What the probe's decoders have in common: a recording with its header and its blocks.

Blocks are ``(frames, channels)``, as the libraries give them: whole numbers stay whole (`full_scale`), since only their
number and the largest of them are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

DecodedBlock = NDArray[Any]


@dataclass(frozen=True)
class Header:
    """What a recording says of itself. `declared_frames` is None where it does not say how many it has."""

    container: str
    codec: str
    rate_hz: int
    channels: int
    declared_frames: int | None


@dataclass(frozen=True)
class ProbedRecording(Header):
    """A recording that is open and not yet decoded."""

    blocks: Callable[[], Iterator[DecodedBlock]]
    """Raises Fault(undecodable, resource_limit, unsupported_format)."""
    is_settled: bool = False
    """Whole numbers up to the file's last byte, as many frames as declared: whatever they are, they are sound."""


def full_scale(block: DecodedBlock) -> float:
    """The number that stands for 0 dBFS in this block."""
    return float(1 << 8 * block.dtype.itemsize - 1) if block.dtype.kind == "i" else 1.0
