"""A plan's board as a Python script that does the same with pedalboard alone, for whoever wants to carry it on."""

from __future__ import annotations

from mastering.contract import Fault, FaultCode, Plan
from mastering.contract.board import Processor
from mastering.dsp import board
from mastering.engine.steps import processors

_HEAD = '''\
#!/usr/bin/env python3
"""The board of a mastering plan: python board.py song.wav shaped.wav (needs pedalboard and soundfile).

The same samples as the plan's step `board`, as 32-bit float, for a song of {rate_hz} Hz that both read alike (WAV,
AIFF, FLAC). Gain and limiter follow in a master; they are not in here.
"""

import sys

import numpy as np
import soundfile
from pedalboard import {names}

RATE_HZ = {rate_hz}


def run(samples, *plugins):
    """Samples (channels, frames) through the plugins."""
    return Pedalboard(plugins).process(np.ascontiguousarray(samples), RATE_HZ)


def mid_side(pair):
    return (pair[:1] + pair[1:]) * np.float32(0.5), (pair[:1] - pair[1:]) * np.float32(0.5)


def left_right(mid, side):
    return np.concatenate([mid + side, mid - side])


def both(samples, *plugins):
    return run(samples, *plugins)


def linked(samples, *plugins):
    """One gain for all channels: that of the louder one, sample by sample."""
    level = np.maximum(np.abs(samples).max(axis=0, keepdims=True), np.float32({quietest}))
    return samples * (run(level, *plugins) / level)


def mid(samples, *plugins):
    if len(samples) == 1:
        return run(samples, *plugins)
    middle, sides = mid_side(samples)
    return left_right(run(middle, *plugins), sides)


def side(samples, *plugins):
    middle, sides = mid_side(samples)
    return left_right(middle, run(sides, *plugins))


def shaped(samples):
    """The board on samples (channels, frames), float32."""
'''
_TAIL = """\
    return samples


def main(source, target):
    samples, rate_hz = soundfile.read(source, dtype="float32", always_2d=True)
    if rate_hz != RATE_HZ:
        sys.exit(f"The plan is for {RATE_HZ} Hz; this song has {rate_hz}. Resample it first.")
    soundfile.write(target, shaped(np.ascontiguousarray(samples.T)).T, RATE_HZ, format="WAV", subtype="FLOAT")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
"""


def as_pedalboard(plan: Plan, channels: int) -> str:
    """The script for a song of so many channels. Raises Fault(bad_settings) for a plan without a board."""
    if plan.board is None:
        raise Fault(FaultCode.BAD_SETTINGS, "The plan has no step 'board'. Make it anew with this engine.")
    fitting = [each for each in processors(plan.board) if board.fits(each, plan.rate_hz, channels)]
    names = ", ".join(sorted({"Pedalboard", *(each.processor for each in fitting)}))
    head = _HEAD.replace("{rate_hz}", str(plan.rate_hz)).replace("{names}", names)
    lines = [line for stage in board.stages(fitting) for line in _stage(*stage)]
    return head.replace("{quietest}", repr(board.QUIETEST)) + "\n".join(lines) + "\n" + _TAIL


def _stage(on: str, linked: bool, group: list[Processor]) -> list[str]:
    """A call for each run of processors, one line for each of these with its reason."""
    lines = [f"    samples = {'linked' if linked else on}(", "        samples,"]
    for each in group:
        values = ", ".join(f"{name}={value!r}" for name, value in board.numbers(each).items())
        lines.append(f"        {each.processor}({values}),  # {' '.join(each.reason.split())}")
    return [*lines, "    )"]
