"""The check of every master before it is delivered: length, loudness, true peak, offset, as read from its own file."""

from __future__ import annotations

import math
from typing import TypeGuard

from mastering.contract import Fault, FaultCode, Measurements, Readings

LOUDNESS_TOLERANCE_LU = 0.1
"""The last digit that meters print."""
PEAK_TOLERANCE_DB = 0.01
"""Dither and the meter's grid."""
AGREEMENT_LU, AGREEMENT_DB = 0.1, 0.1
"""How far two sets of meters may be apart; then one of them is wrong."""
_DC_LIMIT = 0.0005
"""Of full scale. What the limiter made is taken out after it; more than this means that something went wrong."""


def misses(
    after: Measurements,
    *,
    second: Readings | None = None,
    loudness_lufs: float,
    ceiling_dbtp: float,
    frames: int,
    slack_frames: int = 0,
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
    if is_over(second, ceiling_dbtp):
        found.append(f"its true peak by soxr is {second.true_peak_dbtp:.2f} dBTP instead of {ceiling_dbtp:.1f} at most")
    if after.dc_offset > _DC_LIMIT:
        found.append(f"its DC offset is {after.dc_offset:.4f}; {_DC_LIMIT} is allowed")
    return found


def disagreements(ours: Readings, second: Readings) -> list[str]:
    """Where two sets of meters contradict each other, as parts of a sentence."""
    found = []
    one, other = ours.integrated_lufs, second.integrated_lufs
    if (one is None) != (other is None) or (one is not None and other is not None and abs(one - other) > AGREEMENT_LU):
        found.append(f"its loudness is {_lufs(one)} by the engine's meter and {_lufs(other)} by pyloudnorm")
    if abs(ours.true_peak_dbtp - second.true_peak_dbtp) > AGREEMENT_DB:
        found.append(
            f"its true peak is {ours.true_peak_dbtp:.2f} dBTP by the engine's meter "
            f"and {second.true_peak_dbtp:.2f} dBTP by soxr"
        )
    return found


def is_over(second: Readings | None, ceiling_dbtp: float) -> TypeGuard[Readings]:
    """Whether the second meters find a master over its ceiling by more than they may be apart from ours."""
    return second is not None and second.true_peak_dbtp > ceiling_dbtp + AGREEMENT_DB


def _lufs(loudness: float | None) -> str:
    return "none" if loudness is None else f"{loudness:.2f} LUFS"


def meets(found: Readings, loudness_lufs: float, ceiling_dbtp: float) -> bool:
    """Whether one set of readings is within the tolerances of a target."""
    read = found.integrated_lufs
    near = read is not None and abs(read - loudness_lufs) <= LOUDNESS_TOLERANCE_LU
    return near and found.true_peak_dbtp <= ceiling_dbtp + PEAK_TOLERANCE_DB


def bad_master(found: list[str]) -> Fault:
    return Fault(FaultCode.BAD_MASTER, f"The master failed its check: {'; '.join(found)}. It is not delivered.")
