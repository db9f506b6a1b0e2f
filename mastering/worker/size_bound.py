"""The largest size that a song's outputs can have, by its header, before it is rendered. In the rendering process."""

from __future__ import annotations

from typing import Any, BinaryIO

from mastering.contract import Fault, JobOptions
from mastering.contract.kinds import JobKind
from mastering.worker.budget import Budget, check_duration


def check_output_size(
    source: BinaryIO, kind: JobKind[Any], options: JobOptions, budget: Budget, max_duration_s: float | None
) -> int:
    """The most bytes that the outputs of `source` can have: by its header, or by `budget` where that says nothing.

    Raises Fault(too_long, too_large).
    """
    from mastering.audio import decode  # a library's threads would keep the child from a user namespace of its own

    try:
        recording = decode.open_recording(source)
    except Fault:  # the engine will say so, if this is a song for it
        return budget.narrow()
    finally:
        source.seek(0)
    if recording.promised_frames is None:
        return budget.narrow()
    duration_s = recording.promised_frames / recording.rate_hz
    if max_duration_s is not None:
        check_duration(duration_s, max_duration_s)
    needed_bytes = kind.size_bound_bytes(options, duration_s, recording.rate_hz, recording.channels)
    if needed_bytes > budget.allowed_bytes:
        raise budget.fault(needed_bytes)
    return needed_bytes
