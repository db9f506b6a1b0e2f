"""Which processors the board has, and why: clean-up, corrections of what stands out, the style.

The other rules of the engine's taste stand in `plan`; these have a file of their own because each processor has a
reason of its own. Frequencies in Hz, levels in dB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mastering.contract import BoardParameters, BoardStep, Measurements, Settings
from mastering.contract.board import LEVEL_DEPENDENT, Gain, HighpassFilter, PeakFilter, Processor
from mastering.contract.presets import Style
from mastering.dsp import board
from mastering.dsp.spectrum import band_centres_hz, band_levels_db

Levels = NDArray[np.float64]

_OFFSET_HZ, _OFFSET_FILTERS = 4.0, 2
"""Takes an offset out, and 0.3 dB at 20 Hz."""
_RUMBLE_HZ, _RUMBLE_FILTERS = 12.0, 4
"""24 dB an octave; takes 4 dB at 24 Hz, 1.5 at 40."""
_SUB_HZ = 24.0
"""Below the lowest string of a bass: what is loud there is rumble."""
_BASS_MONO_HZ = 110.0
"""Below it a wide bass is folded to the centre: ears hear no direction there, and vinyl and clubs want one channel."""
_BASS_MONO_FILTERS = 2
_WIDE_DB = -6.0
"""A bass whose side comes this near to its mid is wide."""
_MOST_FOLDED_DB = -3.0
"""A side of more than half the mid's power is no width that could be folded away: the bass lies on one side or is out
of phase. Folding would take up to all of it; so it stays."""
_BOXY_DB = 4.0
"""How far a third-octave band must stand out of its surroundings before a neutral master touches it."""
_BELL_Q = 3.0
"""Of the bell that takes it down: a third of an octave and its edges."""
_LONGEST = 380
"""Characters of a reason, so that a fit may add to it."""
_OCTAVES_HZ = tuple(62.5 * 2**octave for octave in range(9))
_OCTAVE_Q = 1.41
"""Of bells an octave wide, which beside each other add up to a smooth curve."""
_LEAST_BELL_DB = 0.1
"""A bell of less is nothing, and mid and side that differ by less are alike."""
_RIDGE = 0.03
"""Of the least squares: neighbours don't work against each other for a hundredth of a decibel."""
_NOMINAL_LUFS = -18.0
"""What processors that depend on the level get: the 0 VU that desks and tape are lined up for."""


def board_step(
    measured: Measurements, power: NDArray[np.float64], settings: Settings, style: Style, *, has_reference: bool
) -> tuple[BoardStep, tuple[str, ...]]:
    """The board for a song of mean power `power` (2, bins), and remarks on what it leaves alone.

    A reference says itself how the spectrum shall be, and how deep and wide the bass: then nothing is corrected.
    """
    amount, rate_hz = settings.amount_percent / 100, measured.rate_hz
    levels, centres = band_levels_db(power, rate_hz), np.array(band_centres_hz(rate_hz))
    processors = list(clean_up(measured, levels, centres, corrects=not has_reference))
    from_style_hz = style.bass_mono_hz if amount else 0.0
    mono_hz, remarks = _mono_hz(measured, levels, centres, from_style_hz, corrects=not has_reference)
    if mono_hz:
        processors += _bass_fold(mono_hz)
    if amount and not has_reference:
        processors += _corrections(levels[0], centres, rate_hz, amount)
    if amount:
        processors += styled(style, amount, measured.integrated_lufs)
    fitting = tuple(each for each in processors if board.fits(each, rate_hz, measured.channels))
    reasons = dict.fromkeys(each.reason for each in fitting)
    return BoardStep(parameters=BoardParameters(processors=fitting), reason=sentence(list(reasons))), remarks


def sentence(parts: Sequence[str]) -> str:
    """The parts as one sentence; what would make it too long for a reason is left to the processors' own."""
    text = "; ".join(parts)
    text = text if len(text) < _LONGEST else f"{text[:_LONGEST].rsplit('; ', 1)[0]}; and more"
    return text[0].upper() + text[1:] + "."


def clean_up(measured: Measurements, levels: Levels, centres: Levels, *, corrects: bool) -> Iterator[Processor]:
    """High-pass filters for what nobody hears: an offset, and rumble where there is any."""
    lowest = levels[0, centres < _SUB_HZ]
    if corrects and lowest.size and float(lowest.max()) > float(levels[0].max()) - 30:
        reason = f"cuts the rumble below {_SUB_HZ:.0f} Hz"
        yield from _highpass(_RUMBLE_HZ, _RUMBLE_FILTERS, reason)
    else:
        offset = f"an offset of {measured.dc_offset:.4f}" if measured.dc_offset > 0.0005 else "any offset"
        yield from _highpass(_OFFSET_HZ, _OFFSET_FILTERS, f"takes out {offset} and what lies below hearing")


def _highpass(hz: float, count: int, reason: str, **on: Any) -> list[Processor]:
    return [HighpassFilter(cutoff_frequency_hz=hz, reason=reason, **on)] * count


def _bass_fold(mono_hz: float) -> list[Processor]:
    """First-order filters in a row, each with its share of the 3 dB that they take at `mono_hz` together."""
    hz = round(mono_hz * (10 ** (0.3 / _BASS_MONO_FILTERS) - 1) ** 0.5, 1)
    return _highpass(hz, _BASS_MONO_FILTERS, f"folds the bass below {mono_hz:.0f} Hz to the centre", on="side")


def _mono_hz(
    measured: Measurements, levels: Levels, centres: Levels, from_style_hz: float, *, corrects: bool
) -> tuple[float, tuple[str, ...]]:
    """(frequency below which the bass is made mono or 0, remarks)."""
    if measured.channels == 1:
        return 0.0, ()
    if not from_style_hz and not (corrects and _is_bass_over(levels, centres, _BASS_MONO_HZ, _WIDE_DB)):
        return 0.0, ()
    mono_hz = from_style_hz or _BASS_MONO_HZ
    own = np.array([(band.mid_db, band.side_db) for band in measured.spectrum]).T
    if any(_is_bass_over(each, centres, mono_hz, _MOST_FOLDED_DB) for each in (levels, own)):
        return 0.0, (
            f"The bass below {mono_hz:.0f} Hz stays as it is: it lies on one side or is out of phase, "
            "and made mono it would lose more than 1.8 dB.",
        )
    return mono_hz, ()


def _is_bass_over(levels: Levels, centres: Levels, below_hz: float, side_db: float) -> bool:
    """Whether the side of any bass band that is heard comes nearer to its mid than `side_db`."""
    bass = (centres > 22) & (centres < below_hz)
    heard = levels.max(axis=0) > levels.max() - 40
    return bool((levels[1, bass & heard] > levels[0, bass & heard] + side_db).any())


def _corrections(mid_db: Levels, centres: Levels, rate_hz: int, amount: float) -> list[Processor]:
    """Bells that take down what stands out; of neighbours, which overlap, each by what is left to take."""
    cuts_db = _resonance_cuts_db(mid_db, centres) * amount
    bands = np.flatnonzero(cuts_db)
    bells = [
        PeakFilter(
            cutoff_frequency_hz=round(float(centres[band]), 1),
            gain_db=1.0,
            q=_BELL_Q,
            reason=f"takes {-cuts_db[band]:.1f} dB of what stands out near {centres[band]:.0f} Hz",
        )
        for band in bands
    ]
    if not bells:
        return []
    each_db = np.array([20 * np.log10(board.gains([bell], rate_hz, centres[bands])[0]) for bell in bells])
    gains_db = np.linalg.solve(each_db.T, cuts_db[bands])
    return [
        bell.model_copy(update={"gain_db": round(float(np.clip(gain_db, -6.0, 0.0)), 2)})
        for bell, gain_db in zip(bells, gains_db, strict=True)
    ]


def _resonance_cuts_db(mid_db: Levels, centres: Levels) -> Levels:
    """Cuts (dB, ≤ 0) for bands that tower over the mean of their neighbours within an octave and a half."""
    audible = mid_db > mid_db.max() - 50
    gains = np.zeros_like(mid_db)
    for band in np.flatnonzero(audible & (centres > 80) & (centres < 12_000)):
        around = [n for n in range(band - 4, band + 5) if abs(n - band) > 1 and 0 <= n < mid_db.size and audible[n]]
        if len(around) >= 4:
            gains[band] = -np.clip(mid_db[band] - mid_db[around].mean() - _BOXY_DB, 0.0, 4.0)
    return np.where(gains > -0.3, 0.0, gains)


def styled(style: Style, amount: float, integrated_lufs: float | None) -> list[Processor]:
    """The style's processors by `amount` (0 … 1); those that depend on the level between two gains."""
    why = f"{style.title.lower()} style at {100 * amount:.0f} %"
    scaled = [each.scaled(amount).model_copy(update={"reason": each.reason or why}) for each in style.board]
    at = [index for index, each in enumerate(scaled) if isinstance(each, LEVEL_DEPENDENT)]
    if not at or integrated_lufs is None:
        return scaled
    to_nominal_db = round(float(np.clip(_NOMINAL_LUFS - integrated_lufs, -60, 60)), 2)
    first, last = at[0], at[-1] + 1
    before = Gain(gain_db=to_nominal_db, reason=f"brings the song to {_NOMINAL_LUFS:.0f} LUFS for what follows")
    after = Gain(gain_db=-to_nominal_db, reason="and back to its own level")
    return [*scaled[:first], before, *scaled[first:last], after, *scaled[last:]]


def style_gains(style: Style, amount: float, rate_hz: int, hz: Levels) -> Levels:
    """What the style's filters and gains give to the mid and the side: linear (2, frequencies)."""
    processors = [each for each in styled(style, amount, None) if board.fits(each, rate_hz, 2)]
    return board.gains(processors, rate_hz, hz)


def octave_bells(gains_db: Levels, rate_hz: int, reason: str) -> tuple[Processor, ...]:
    """Bells an octave apart that come nearest to the gains (2, bands) of the mid and the side, in least squares."""
    centres = np.array(band_centres_hz(rate_hz))
    bells = [PeakFilter(cutoff_frequency_hz=hz, gain_db=1, q=_OCTAVE_Q, reason=reason) for hz in _OCTAVES_HZ]
    bells = [bell for bell in bells if board.fits(bell, rate_hz, 2)]
    each_db = np.array([20 * np.log10(board.gains([bell], rate_hz, centres)[0]) for bell in bells])
    squares = each_db @ each_db.T + _RIDGE * np.eye(len(bells))
    found = []
    for bell, (mid_db, side_db) in zip(bells, np.linalg.solve(squares, each_db @ gains_db.T), strict=True):
        alike = abs(mid_db - side_db) < _LEAST_BELL_DB
        for on, gain_db in (("both", mid_db),) if alike else (("mid", mid_db), ("side", side_db)):
            if abs(gain_db) >= _LEAST_BELL_DB:
                found.append(bell.model_copy(update={"on": on, "gain_db": round(float(np.clip(gain_db, -12, 12)), 2)}))
    return tuple(found)
