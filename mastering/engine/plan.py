"""Analysis + Settings (+ references) → Plan: every parameter of the render, each with its reason. No audio in here.

The rules of the engine's taste stand here and, for the board, in `board_plan`. The order of the steps is
that of `contract.CHAIN`; one that has nothing to do is left out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mastering.contract import (
    ENGINE_VERSION,
    CompressorStep,
    LimiterStep,
    LoudnessParameters,
    LoudnessStep,
    Measurements,
    Plan,
    SaturationParameters,
    SaturationStep,
    Settings,
    ToneStep,
)
from mastering.contract.presets import Style, presets
from mastering.dsp.dynamics import Compressor
from mastering.dsp.limiter import Limiter
from mastering.dsp.spectrum import band_centres_hz, bin_frequencies_hz
from mastering.dsp.tone import splits
from mastering.engine import board_plan
from mastering.engine.bounds import BOUNDS
from mastering.engine.match import match, most_gain_db, reference_levels
from mastering.engine.steps import compressor_parameters, limiter_parameters, shaping_gains, tone_parameters

Power = NDArray[np.float64]

_AUDIBLE_DB = 0.05
"""A tone of less is none."""
_COMFORTABLE_LIMITING_DB = 5.0
"""What the limiter may take at the highest peaks before a compressor shares the work."""
_SHORT_LU = 0.05
"""What is missing of the loudness asked for before it is said."""
_EVENT_DB = 6.0
"""What stands out further over the usual peak is a single event, which no compressor need see to."""


def loudness_lufs(settings: Settings) -> float:
    """The loudness asked for: the settings' own, else the target's."""
    own = settings.loudness_lufs
    return presets().targets[settings.target].loudness_lufs if own is None else own


def ceiling_dbtp(settings: Settings) -> float:
    """The true-peak ceiling asked for: the settings' own, else the target's."""
    own = settings.ceiling_dbtp
    return presets().targets[settings.target].ceiling_dbtp if own is None else own


def tone_plan(
    measured: Measurements,
    power: Power,
    settings: Settings,
    references: Sequence[Measurements] = (),
    *,
    usual_peak_dbtp: float = math.inf,
) -> tuple[Plan, tuple[str, ...]]:
    """The plan of everything before the loudness, and remarks on what could not be done.

    `power` is the source's mean power in each FFT bin, mid and side (2, bins); `usual_peak_dbtp` its true peak but for
    single events.
    """
    style = presets().styles[settings.style]
    board_step, board_remarks = board_plan.board_step(measured, power, settings, style, has_reference=bool(references))
    plan = Plan(
        engine_version=ENGINE_VERSION,
        settings=settings,
        rate_hz=measured.rate_hz,
        loudness_lufs=loudness_lufs(settings),
        ceiling_dbtp=ceiling_dbtp(settings),
        steps=(board_step,),
        seed=_seed(settings),
    )
    tone, tone_remarks = _tone_step(measured, power, settings, references)
    plan = plan.with_steps(tone)
    peak_dbtp = min(measured.true_peak_dbtp, usual_peak_dbtp + _EVENT_DB)
    compressor = _compressor_step(measured, power, settings, style, plan, peak_dbtp)
    return (
        plan.with_steps(compressor, _saturation_step(measured, settings, style)),
        (*board_remarks, *tone_remarks),
    )


def _tone_step(
    measured: Measurements, power: Power, settings: Settings, references: Sequence[Measurements]
) -> tuple[ToneStep | None, tuple[str, ...]]:
    """The filters to the references' spectrum. The board's clean-up is not made up for, and its style comes on top."""
    if not references:
        return None, ()
    rate_hz, amount = measured.rate_hz, settings.amount_percent / 100
    matched = match(power, rate_hz, reference_levels(references, settings.reference_weights, rate_hz), amount)
    if np.abs(matched.gains_db).max() < _AUDIBLE_DB:
        return None, matched.remarks
    reason = (
        f"Matches the spectrum of {len(references)} reference(s) by {settings.amount_percent:.0f} %, "
        f"no band by more than {most_gain_db(amount):.0f} dB."
    )
    parameters = tone_parameters(np.array(band_centres_hz(rate_hz)), matched.gains_db)
    return ToneStep(parameters=parameters, reason=reason), matched.remarks


def _compressor_step(
    measured: Measurements, power: Power, settings: Settings, style: Style, chosen: Plan, peak_dbtp: float
) -> CompressorStep | None:
    amount = settings.amount_percent / 100
    if measured.integrated_lufs is None:
        return None
    gain_db = loudness_lufs(settings) - measured.integrated_lufs
    limiting_db = gain_db - (ceiling_dbtp(settings) - peak_dbtp)
    from_style = style.compression * amount
    from_loudness = min(1.0, max(0.0, limiting_db - _COMFORTABLE_LIMITING_DB) / 8)
    strength = max(from_style, from_loudness)
    if strength < 0.02:
        return None
    ratio = round(1 + 2 * strength, 3)
    compressor = Compressor(
        *thresholds_db(power, chosen, strength),
        *(ratio, ratio, ratio),
        attack_ms=round(10 + 25 * style.punch * amount, 1),
    )
    reason = (
        f"The loudness asked for leaves the limiter {limiting_db:.1f} dB to take; this takes part of it more gently."
        if from_loudness >= from_style
        else f"The {style.title.lower()} style at {settings.amount_percent:.0f} %."
    )
    return CompressorStep(parameters=compressor_parameters(compressor), reason=reason)


def thresholds_db(power: Power, chosen: Plan, strength: float) -> tuple[float, float, float]:
    """Compressor thresholds (dBFS) a little above each band's mean level after board and tone; lower for more
    strength."""
    hz, plain = bin_frequencies_hz(chosen.rate_hz), Compressor(0.0, 0.0, 0.0)
    shaped = (power * shaping_gains(chosen, hz) ** 2).sum(axis=0) / 2
    levels = splits(hz, plain.low_hz, plain.high_hz, chosen.rate_hz) ** 2 @ shaped
    low, middle, high = (round(10 * float(np.log10(max(level, 1e-12))) + 4 - 4 * strength, 2) for level in levels)
    return low, middle, high


def _saturation_step(measured: Measurements, settings: Settings, style: Style) -> SaturationStep | None:
    drive = style.saturation * settings.amount_percent / 100
    if not drive:
        return None
    peak = 10 ** (measured.true_peak_dbtp / 20)
    return SaturationStep(
        parameters=SaturationParameters(drive=round(drive, 3), peak=round(peak, 5)),
        reason=f"The {style.title.lower()} style at {settings.amount_percent:.0f} %.",
    )


def affordable_lufs(plan: Plan, peak_to_loudness_lu: float) -> float:
    """The loudness asked for, or less where reaching it would cost more crest than the settings allow."""
    asked, most = loudness_lufs(plan.settings), plan.settings.max_crest_loss_db
    return asked if most is None else min(asked, ceiling_dbtp(plan.settings) - peak_to_loudness_lu + most)


@dataclass(frozen=True)
class Solution:
    """What the loudness solver found."""

    limiter: Limiter
    gain_db: float
    """Before the limiter."""
    peak_floor: float
    """The lowest peak (linear, before the gain) that was read between the samples."""
    held_by: Literal["", "reduction", "noise"] = ""
    """The bound that keeps the loudness below what was asked for."""
    reduction_db: float = 0.0
    """What the limiter would have taken of the programme for the loudness asked for."""
    offsets: tuple[float, ...] = ()
    """To be taken out after the limiter."""
    quiet_lufs: float = 0.0
    """Loudness of the quiet passages, before the gain."""

    def why(self) -> str:
        """The bound in words."""
        lifted_lufs = self.quiet_lufs + self.gain_db
        noise = f"noise in the quiet passages comes up from {self.quiet_lufs:.1f} to {lifted_lufs:.1f} LUFS"
        if self.held_by == "noise":
            return f"{noise} already, and may no further"
        most_db = BOUNDS.most_reduction_db
        said = f"the limiter would take {self.reduction_db:.1f} dB of the loudest notes, {most_db:.0f} are allowed"
        return f"{said}; {noise}" if self.quiet_lufs < BOUNDS.most_noise_lufs else said


def with_loudness(plan: Plan, found: Solution, *, aim_lufs: float, reached_lufs: float) -> Plan:
    """The plan with the gain that the solver found, and the limiter that it was found for."""
    asked = loudness_lufs(plan.settings)
    short = aim_lufs - reached_lufs > _SHORT_LU
    why = ", as asked for"
    if short and found.held_by:
        why = f" and not {aim_lufs:.1f}: {found.why()}"
    elif short:
        why = f", the most that the ceiling allows of the {asked:.1f} LUFS asked for"
    elif aim_lufs < asked:
        why = f" and not {asked:.1f}: no more than {plan.settings.max_crest_loss_db:.1f} dB of crest may be lost"
    final = reached_lufs if short else aim_lufs
    loudness = LoudnessStep(
        parameters=LoudnessParameters(gain_db=found.gain_db, **asdict(BOUNDS)),
        reason=f"{found.gain_db:+.2f} dB bring the limited song to {final:.1f} LUFS{why}.",
    )
    most_offset = max(map(abs, found.offsets), default=0.0)
    taken = f" An offset of {most_offset:.4f} that it makes is taken out after it." if most_offset else ""
    limiter = LimiterStep(
        parameters=limiter_parameters(found.limiter, peak_floor=found.peak_floor, offsets=found.offsets),
        reason=f"No true peak may pass {plan.ceiling_dbtp:.1f} dBTP. "
        f"The release is the slowest that reaches the loudness without much drive.{taken}",
    )
    return plan.with_steps(loudness, limiter).model_copy(update={"loudness_lufs": final})


def bound_remarks(plan: Plan) -> tuple[str, ...]:
    """What a bound took from the loudness asked for, as a remark for the report."""
    asked, step = loudness_lufs(plan.settings), plan.loudness
    if step is None or asked - plan.loudness_lufs <= _SHORT_LU:
        return ()
    return (f"Stopped short of the loudness asked for: {step.reason}",)


def plan_hash(plan: Plan) -> str:
    """SHA-256 of everything in the plan that the render uses, as hex: equal hashes render alike."""
    used = {"version": plan.engine_version, "rate_hz": plan.rate_hz, "seed": plan.seed}
    steps = [(step.name, sorted(step.parameters.model_dump(mode="json").items())) for step in plan.steps]
    return hashlib.sha256(repr((sorted(used.items()), steps)).encode()).hexdigest()


def _seed(settings: Settings) -> int:
    """From the settings alone: a seed from the audio would be a fingerprint of it."""
    digest = hashlib.sha256(settings.model_dump_json(exclude={"outputs", "keep_tags"}).encode()).digest()
    return int.from_bytes(digest[:4], "big")
