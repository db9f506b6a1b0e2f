"""What a render may take, by the headers of its recordings: bytes of its outputs, memory, processor time.

Reckoned before anything is rendered. In the rendering process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

from mastering.contract import MAX_DURATION_S, MAX_RATE_HZ, Fault, JobOptions
from mastering.contract.kinds import JobKind
from mastering.worker.budget import Budget, check_duration

_UNKNOWN_RATE_HZ = 48_000
"""Of a stream that does not say its length: those are Ogg, MP3 and the like."""


class Header(NamedTuple):
    """What a recording says of itself: seconds, samples a second, channels."""

    duration_s: float
    rate_hz: int
    channels: int


def read_header(source: BinaryIO) -> Header | None:
    """The header of `source`; None where it does not tell its length, or can't be read, which the engine will say."""
    from mastering.audio import decode  # a library's threads would keep the child from a user namespace of its own

    try:
        recording = decode.open_recording(source)
    except Fault:
        return None
    finally:
        source.seek(0)
    frames = recording.promised_frames
    return None if frames is None else Header(frames / recording.rate_hz, recording.rate_hz, recording.channels)


def check_output_size(
    song: Header | None, kind: JobKind[Any], options: JobOptions, budget: Budget, max_duration_s: float | None
) -> int:
    """The most bytes that the outputs of `song` can have: by its header, or by `budget` where that says nothing.

    Raises Fault(too_long, too_large).
    """
    if song is None:
        return budget.narrow()
    if max_duration_s is not None:
        check_duration(song.duration_s, max_duration_s)
    needed_bytes = kind.size_bound_bytes(options, *song)
    if needed_bytes > budget.allowed_bytes:
        raise budget.fault(needed_bytes)
    return needed_bytes


def longest(headers: Sequence[Header | None], max_duration_s: float | None) -> Header:
    """One recording as long as all of `headers` together, at the highest of their rates.

    One that does not tell its length is taken for the longest there may be.
    """
    unknown = Header(max_duration_s or MAX_DURATION_S, _UNKNOWN_RATE_HZ, 2)
    known = [header or unknown for header in headers]
    return Header(
        sum(one.duration_s for one in known),
        min(MAX_RATE_HZ, max(one.rate_hz for one in known)),
        max(one.channels for one in known),
    )
