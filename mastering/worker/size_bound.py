"""What a song's header says of its masters' size, before anything is rendered. In the rendering process alone."""

from __future__ import annotations

from typing import BinaryIO

from mastering.contract import Fault, Settings
from mastering.worker.budget import Budget, bound, check_duration


def check(source: BinaryIO, settings: Settings, budget: Budget, max_duration_s: float | None) -> int:
    """The most bytes that the outputs of `source` can have: by its header, or by `budget` where that says nothing.
    Raises Fault(too_long, too_large)."""
    from mastering.audio import decode  # a library's threads would stand in the way of the child's fence

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
    needed_bytes = bound(settings, duration_s, settings.rate_hz or recording.rate_hz, recording.channels)
    if needed_bytes > budget.allowed_bytes:
        raise budget.fault(needed_bytes)
    return needed_bytes
