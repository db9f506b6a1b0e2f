"""The check of every master before it is delivered: length, loudness, true peak, offset, as read from its own file."""

from __future__ import annotations

import math

from mastering.contract import Fault, FaultCode, Measurements

LOUDNESS_TOLERANCE_LU = 0.1
"""The last digit that meters print."""
PEAK_TOLERANCE_DB = 0.01
"""Dither and the meter's grid."""
_DC_LIMIT = 0.01
"""Of full scale. A master has none; more than this means that something went wrong."""


def misses(
    after: Measurements, *, loudness_lufs: float, ceiling_dbtp: float, frames: int, slack_frames: int = 0
) -> list[str]:
    """What a master fails in, as parts of a sentence; empty for a good one. `slack_frames`: a lossy coder's padding."""
    found = []
    if not 0 <= after.frames - frames <= slack_frames:
        found.append(f"it has {after.frames} frames instead of {frames}")
    loudness = after.integrated_lufs
    if loudness is None or not math.isclose(loudness, loudness_lufs, abs_tol=LOUDNESS_TOLERANCE_LU):
        read = "silent" if loudness is None else f"at {loudness:.2f} LUFS"
        found.append(f"it is {read} instead of {loudness_lufs:.1f} LUFS")
    if after.true_peak_dbtp > ceiling_dbtp + PEAK_TOLERANCE_DB:
        found.append(f"its true peak is {after.true_peak_dbtp:.2f} dBTP instead of {ceiling_dbtp:.1f} at most")
    if after.dc_offset > _DC_LIMIT:
        found.append(f"its DC offset is {after.dc_offset:.4f}; {_DC_LIMIT} is allowed")
    return found


def meets(integrated_lufs: float | None, true_peak_dbtp: float, loudness_lufs: float, ceiling_dbtp: float) -> bool:
    """Whether one set of readings is within the tolerances of a target."""
    near = integrated_lufs is not None and abs(integrated_lufs - loudness_lufs) <= LOUDNESS_TOLERANCE_LU
    return near and true_peak_dbtp <= ceiling_dbtp + PEAK_TOLERANCE_DB


def bad_master(found: list[str]) -> Fault:
    return Fault(FaultCode.BAD_MASTER, f"The master failed its check: {'; '.join(found)}. It is not delivered.")
