"""A plan's steps as the settings of the processors that carry them out, and back.

The only place that knows both forms: `mastering.contract.plan` tells what is stored and shown, `mastering.dsp` what is
computed with. Numbers are rounded here, once, so that a plan read from JSON is the plan that was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from mastering.contract import (
    BoardStep,
    CompressorParameters,
    CompressorStep,
    Fault,
    FaultCode,
    LimiterParameters,
    LimiterStep,
    LoudnessStep,
    Plan,
    ToneParameters,
    ToneStep,
)
from mastering.contract.board import Processor
from mastering.dsp import board
from mastering.dsp.dynamics import Compressor
from mastering.dsp.limiter import Limiter
from mastering.dsp.tone import ToneCurve

_MISSING = "The plan has no step '{name}'. Make it anew with this engine."


def tone_parameters(centres_hz: Sequence[float] | NDArray[np.float64], gains_db: NDArray[np.float64]) -> ToneParameters:
    """Gains (2, bands), mid and side, at the band centres."""
    return ToneParameters(
        hz=tuple(round(float(hz), 2) for hz in centres_hz),
        mid_db=tuple(round(float(gain), 3) for gain in gains_db[0]),
        side_db=tuple(round(float(gain), 3) for gain in gains_db[1]),
    )


def tone_curve(step: ToneStep | None) -> ToneCurve | None:
    return None if step is None else ToneCurve(**dict(step.parameters))


def processors(step: BoardStep | None) -> tuple[Processor, ...]:
    """The board's, none where the plan has no board."""
    return () if step is None else step.parameters.processors


def shaping_gains(plan: Plan, hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear gains (2, frequencies) that board and tone give to the mid and the side."""
    curve = tone_curve(plan.tone)
    board_gains = board.gains(processors(plan.board), plan.rate_hz, hz)
    return board_gains if curve is None else board_gains * curve.gains(hz)


def compressor_parameters(compressor: Compressor) -> CompressorParameters:
    return CompressorParameters(**asdict(compressor))


def compressor_settings(step: CompressorStep) -> Compressor:
    return Compressor(**dict(step.parameters))


def limiter_parameters(limiter: Limiter, *, peak_floor: float, offsets: tuple[float, ...] = ()) -> LimiterParameters:
    """`peak_floor`: the lowest peak that was read between the samples, before the gain; `offsets`: see the record."""
    return LimiterParameters(**asdict(limiter), peak_floor=peak_floor, offsets=offsets)


def limiter_settings(plan: Plan) -> Limiter:
    """Raises Fault(bad_settings) for a plan without a limiter."""
    return Limiter(**limiter_step(plan).parameters.model_dump(exclude={"peak_floor", "offsets"}))


def limiter_step(plan: Plan) -> LimiterStep:
    """Raises Fault(bad_settings) for a plan without one."""
    if plan.limiter is None:
        raise Fault(FaultCode.BAD_SETTINGS, _MISSING.format(name="limiter"))
    return plan.limiter


def gain_db(plan: Plan) -> float:
    """The gain before the limiter. Raises Fault(bad_settings) for a plan without one."""
    step: LoudnessStep | None = plan.loudness
    if step is None:
        raise Fault(FaultCode.BAD_SETTINGS, _MISSING.format(name="loudness"))
    return step.parameters.gain_db
