"""The goal of a fit: the features (`mastering.dsp.features`) that a song's master shall have.

The song's own features, moved by the amount towards the weighted references', with the style on top: its filters and
width on the spectrum, its compression as a static curve on the levels (a static curve takes quantiles to quantiles).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mastering.contract import Measurements, Plan
from mastering.contract.presets import Style, presets
from mastering.dsp.dynamics import Compressor, reduction_db
from mastering.dsp.features import QUANTILES, Layout, Vector, reference_features
from mastering.dsp.spectrum import band_levels_db, bin_frequencies_hz
from mastering.engine import plan
from mastering.engine.board_plan import style_gains
from mastering.engine.match import reference_levels
from mastering.engine.steps import shaping_gains

_NOTHING = 1e-15


def goal_features(chosen: Plan, power: plan.Power, source: Vector, references: Sequence[Measurements]) -> Vector:
    """The goal for a song of mean power `power` (2, bins) with the features `source`; NaN where nothing is known."""
    layout, style, settings = Layout(chosen.rate_hz), presets().styles[chosen.settings.style], chosen.settings
    amount = settings.amount_percent / 100
    goal = source.copy()
    if references:
        goal += amount * (_reference_features(layout, references, settings.reference_weights) - source)
        before = np.nan_to_num(goal[: 2 * layout.centres_hz.size].reshape(2, -1), nan=-200.0)
        after = before + 20 * np.log10(style_gains(style, amount, chosen.rate_hz, layout.centres_hz))
    else:
        gains = shaping_gains(chosen, bin_frequencies_hz(chosen.rate_hz))
        before, after = (band_levels_db(part, chosen.rate_hz) for part in (power, power * gains**2))
    _set_spectrum(goal, layout, before, after)
    if style.compression and amount:
        _compress_levels(goal, layout, style, amount)
    goal[layout.parts["loudness"]] = 0.0
    return goal


def _reference_features(layout: Layout, references: Sequence[Measurements], shares: Sequence[float]) -> Vector:
    shares = shares or [1.0] * len(references)
    levels = reference_levels(references, shares, layout.rate_hz)
    pairs = zip(shares, references, strict=True)
    return reference_features(layout, levels, [(share, each.character) for share, each in pairs if each.character])


def _set_spectrum(goal: Vector, layout: Layout, before: Vector, after: Vector) -> None:
    """Write the spectrum `after` (2, bands) into the goal, and what the change from `before` does to the rest."""
    unknown = np.isnan(goal[: after.size])
    goal[: after.size] = np.where(unknown, np.nan, layout.normalised(after).reshape(-1))
    then, now = (10 ** (levels / 10) @ layout.rows().T for levels in (before, after))
    louder = _power_db(now.sum(axis=0) / then.sum(axis=0))
    goal[layout.parts["levels"]] += np.repeat(louder - louder[3], len(QUANTILES))
    mid, side = _power_db(now[:, :3] / np.maximum(then[:, :3], _NOTHING))
    goal[layout.parts["width"]] += side - mid


def _compress_levels(goal: Vector, layout: Layout, style: Style, amount: float) -> None:
    """The style's compression on the levels: thresholds near the middle of each row, its power as before."""
    levels = goal[layout.parts["levels"]].reshape(4, -1)
    strength = style.compression * amount
    thresholds = np.median(levels, axis=1) + 4 - 4 * strength
    power_db = _power_db((10 ** (levels / 10)).mean(axis=1))
    reduced_db = np.array(
        [
            reduction_db(np.append(row, at)[None], Compressor(*[threshold] * 3, *[1 + 2 * strength] * 3))[0]
            for row, at, threshold in zip(levels, power_db, thresholds, strict=True)
        ]
    )
    goal[layout.parts["levels"]] = (levels - reduced_db[:, :-1] + reduced_db[:, -1:]).reshape(-1)
    # A slow attack lets through what makes the crest.
    goal[layout.parts["crest"]] -= (1 - style.punch) * (reduced_db[3, -2] - reduced_db[3, -1])


def _power_db(ratio: Vector) -> Vector:
    return 10 * np.log10(np.maximum(ratio, _NOTHING))
