"""Analysis + Settings (+ references) → Plan: every parameter of the render, each with its reason. No audio in here.

Every rule of the engine's taste stands in this file and nowhere else, which makes it long. The order of the steps is
that of `contract.CHAIN`; one that has nothing to do is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
from mastering.dsp.spectrum import band_centres_hz, band_levels_db, bin_frequencies_hz
from mastering.dsp.tone import ToneCurve
from mastering.engine.match import match, reference_levels
from mastering.engine.steps import compressor_parameters, limiter_parameters, tone_curve, tone_parameters

Power = NDArray[np.float64]

_SUB_HZ = 24.0
"""Where rumble or an offset is cut: below the lowest string of a bass."""
_INFRASONIC_HZ = 21.0
"""The cut where a reference says how deep the bass shall be: just above where hearing begins."""
_BASS_MONO_HZ = 110.0
"""Below it a wide bass is folded to the centre: ears hear no direction there, and vinyl and clubs want one channel."""
_BOXY_DB = 4.0
"""How far a third-octave band must stand out of its surroundings before a neutral master touches it."""
_COMFORTABLE_LIMITING_DB = 9.0
"""What the limiter may take at the highest peaks before a compressor shares the work."""


def loudness_lufs(settings: Settings) -> float:
    """The loudness asked for: the settings' own, else the target's."""
    own = settings.loudness_lufs
    return presets().targets[settings.target].loudness_lufs if own is None else own


def ceiling_dbtp(settings: Settings) -> float:
    """The true-peak ceiling asked for: the settings' own, else the target's."""
    own = settings.ceiling_dbtp
    return presets().targets[settings.target].ceiling_dbtp if own is None else own


def tone_plan(
    measured: Measurements, power: Power, settings: Settings, references: Sequence[Measurements] = ()
) -> tuple[Plan, tuple[str, ...]]:
    """The plan of everything before the loudness, and remarks on what could not be done.

    `power` is the source's mean power in each FFT bin, mid and side (2, bins).
    """
    style = presets().styles[settings.style]
    tone, remarks = _tone_step(measured, power, settings, style, references)
    compressor = _compressor_step(measured, power, settings, style, tone_curve(tone))
    plan = Plan(
        engine_version=ENGINE_VERSION,
        settings=settings,
        rate_hz=measured.rate_hz,
        loudness_lufs=loudness_lufs(settings),
        ceiling_dbtp=ceiling_dbtp(settings),
        steps=(),
        seed=_seed(settings),
    )
    return plan.with_steps(tone, compressor, _saturation_step(measured, settings, style)), remarks


def _tone_step(
    measured: Measurements, power: Power, settings: Settings, style: Style, references: Sequence[Measurements]
) -> tuple[ToneStep | None, tuple[str, ...]]:
    rate_hz = measured.rate_hz
    amount = settings.amount_percent / 100
    reasons: list[str] = []
    remarks: tuple[str, ...] = ()
    centres = np.array(band_centres_hz(rate_hz))
    levels = band_levels_db(power, rate_hz)
    if references:
        matched = match(power, rate_hz, reference_levels(references, settings.reference_weights, rate_hz), amount)
        gains, remarks = matched.gains_db, matched.remarks
        reasons.append(f"matches the spectrum of {len(references)} reference(s) by {settings.amount_percent:.0f} %")
    else:
        gains = np.tile(_resonance_cuts_db(levels[0], centres) * amount, (2, 1))
        if gains.any():
            hz = centres[int(np.argmin(gains[0]))]
            reasons.append(f"takes {-gains[0].min():.1f} dB of what stands out near {hz:.0f} Hz")
    gains, style_reasons = with_style(gains, centres, style, amount)
    reasons += style_reasons
    # A reference says itself how deep and how wide the bass shall be, down to where hearing ends.
    cut_hz, mono_hz = (
        (_INFRASONIC_HZ, style.bass_mono_hz) if references else _bass_limits_hz(measured, levels, centres, style)
    )
    reasons += [f"cuts what lies below {cut_hz:.0f} Hz: rumble or offset"] if cut_hz else []
    reasons += [f"folds the bass below {mono_hz:.0f} Hz to the centre"] if mono_hz else []
    if not reasons:
        return None, remarks
    parameters = tone_parameters(centres, gains, cut_hz=cut_hz, mono_hz=mono_hz)
    return ToneStep(parameters=parameters, reason=_sentence(reasons)), remarks


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def _resonance_cuts_db(mid_db: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cuts (dB, ≤ 0) for bands that tower over the mean of their neighbours within an octave and a half."""
    audible = mid_db > mid_db.max() - 50
    gains = np.zeros_like(mid_db)
    for band in np.flatnonzero(audible & (centres > 80) & (centres < 12_000)):
        around = [n for n in range(band - 4, band + 5) if abs(n - band) > 1 and 0 <= n < mid_db.size and audible[n]]
        if len(around) >= 4:
            gains[band] = -np.clip(mid_db[band] - mid_db[around].mean() - _BOXY_DB, 0.0, 4.0)
    return np.where(gains > -0.3, 0.0, gains)


def with_style(
    gains: NDArray[np.float64], centres: NDArray[np.float64], style: Style, amount: float
) -> tuple[NDArray[np.float64], list[str]]:
    """The gains with the style's curve and width added, and that in words."""
    reasons = []
    if style.curve and amount:
        hz, in_db = zip(*style.curve, strict=True)
        gains = gains + amount * np.interp(np.log2(centres), np.log2(hz), in_db)
        reasons.append(f"adds the {style.title.lower()} curve")
    if style.width_db and amount:
        gains = gains + np.array([[0.0], [style.width_db * amount]])
        reasons.append(f"sets the sides {style.width_db * amount:+.1f} dB")
    return gains, reasons


def _bass_limits_hz(
    measured: Measurements, levels: NDArray[np.float64], centres: NDArray[np.float64], style: Style
) -> tuple[float, float]:
    """(frequency below which all is cut, frequency below which the bass is mono), in Hz; 0 for neither."""
    lowest = levels[0, centres < _SUB_HZ]
    rumbles = bool(lowest.size) and float(lowest.max()) > float(levels[0].max()) - 30
    cut_hz = _SUB_HZ if rumbles or measured.dc_offset > 0.0005 else 0.0
    bass = (centres > 30) & (centres < _BASS_MONO_HZ)
    loud = levels[0] > levels[0].max() - 40
    wide = measured.channels == 2 and bool((levels[1, bass & loud] > levels[0, bass & loud] - 6).any())
    return cut_hz, style.bass_mono_hz or (_BASS_MONO_HZ if wide else 0.0)


def _compressor_step(
    measured: Measurements, power: Power, settings: Settings, style: Style, curve: ToneCurve | None
) -> CompressorStep | None:
    amount = settings.amount_percent / 100
    if measured.integrated_lufs is None:
        return None
    gain_db = loudness_lufs(settings) - measured.integrated_lufs
    limiting_db = gain_db - (ceiling_dbtp(settings) - measured.true_peak_dbtp)
    from_style = style.compression * amount
    from_loudness = min(1.0, max(0.0, limiting_db - _COMFORTABLE_LIMITING_DB) / 8)
    strength = max(from_style, from_loudness)
    if strength < 0.02:
        return None
    ratio = round(1 + 2 * strength, 3)
    compressor = Compressor(
        *thresholds_db(power, measured.rate_hz, curve, strength),
        *(ratio, ratio, ratio),
        attack_ms=round(10 + 25 * style.punch * amount, 1),
    )
    reason = (
        f"The loudness asked for leaves the limiter {limiting_db:.1f} dB to take; this takes part of it more gently."
        if from_loudness >= from_style
        else f"The {style.title.lower()} style at {settings.amount_percent:.0f} %."
    )
    return CompressorStep(parameters=compressor_parameters(compressor), reason=reason)


def thresholds_db(power: Power, rate_hz: int, curve: ToneCurve | None, strength: float) -> tuple[float, float, float]:
    """Compressor thresholds (dBFS) a little above each band's mean level after the tone; lower for more strength."""
    hz = bin_frequencies_hz(rate_hz)
    shaped = (power if curve is None else power * curve.gains(hz) ** 2).sum(axis=0) / 2
    edges = (0.0, 160.0, 2800.0, rate_hz)
    levels = [shaped[(hz >= low) & (hz < high)].sum() for low, high in pairwise(edges)]
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


def with_loudness(plan: Plan, found: Solution, *, aim_lufs: float, reached_lufs: float) -> Plan:
    """The plan with the gain that the solver found, and the limiter that it was found for."""
    asked = loudness_lufs(plan.settings)
    short = aim_lufs - reached_lufs > 0.05
    why = ", as asked for"
    if short:
        why = f", the most that the ceiling allows of the {asked:.1f} LUFS asked for"
    elif aim_lufs < asked:
        why = f" and not {asked:.1f}: no more than {plan.settings.max_crest_loss_db:.1f} dB of crest may be lost"
    final = reached_lufs if short else aim_lufs
    loudness = LoudnessStep(
        parameters=LoudnessParameters(gain_db=found.gain_db),
        reason=f"{found.gain_db:+.2f} dB bring the limited song to {final:.1f} LUFS{why}.",
    )
    limiter = LimiterStep(
        parameters=limiter_parameters(found.limiter, peak_floor=found.peak_floor),
        reason=f"No true peak may pass {found.limiter.ceiling_dbtp:.1f} dBTP. "
        "The release is the slowest that reaches the loudness without much drive.",
    )
    return plan.with_steps(loudness, limiter).model_copy(update={"loudness_lufs": final})


def plan_hash(plan: Plan) -> str:
    """SHA-256 of everything in the plan that the render uses, as hex: equal hashes render alike."""
    used = {"version": plan.engine_version, "rate_hz": plan.rate_hz, "seed": plan.seed}
    steps = [(step.name, sorted(step.parameters.model_dump(mode="json").items())) for step in plan.steps]
    return hashlib.sha256(repr((sorted(used.items()), steps)).encode()).hexdigest()


def _seed(settings: Settings) -> int:
    """From the settings alone: a seed from the audio would be a fingerprint of it."""
    digest = hashlib.sha256(settings.model_dump_json(exclude={"outputs", "keep_tags"}).encode()).digest()
    return int.from_bytes(digest[:4], "big")
