"""Several songs as one album: one tone for all, the loudest at the target, the others as much quieter as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mastering.contract import Fault, FaultCode, OutputFormat, Report, Settings, Stage
from mastering.dsp.spectrum import bin_frequencies_hz
from mastering.engine import pipeline, plan
from mastering.engine.analyse import Analysis
from mastering.engine.inputs import open_song
from mastering.engine.plan import Power

_LOWEST_LUFS = -36.0
"""The quietest that a master can be asked to be."""
_SHORT_LU = 0.05
"""Less than this missing of its loudness moves no other track."""


def master_album(
    tracks: Sequence[BinaryIO],
    settings: Settings,
    *,
    references: Sequence[BinaryIO] = (),
    open_output: Callable[[int, OutputFormat], BinaryIO],
    progress: Callable[[Stage, float], None] = lambda stage, fraction: None,
) -> list[Report]:
    """Master every track into every format; `open_output` gets the track's number. Raises Fault for the first bad one.

    The tracks share the tone that their common spectrum asks for, each at its own sample rate and number of channels
    unless `settings.rate_hz` asks for one rate.
    """
    analyses = [open_song(track, settings).analysis for track in tracks]
    loudest = max(_track_lufs(found) for found in analyses)
    aims = [plan.loudness_lufs(settings) + _track_lufs(found) - loudest for found in analyses]

    def made(number: int, lowered_lu: float) -> Report:
        return pipeline.master(
            tracks[number],
            settings.model_copy(update={"loudness_lufs": max(_LOWEST_LUFS, aims[number] - lowered_lu)}),
            references=references,
            open_output=partial(open_output, number),
            progress=partial(_track_progress, progress, number, len(tracks)),
            album_power=_mean_power(analyses, analyses[number].measurements.rate_hz),
        )

    reports = [made(number, 0.0) for number in range(len(tracks))]
    short_lu = [max(_LOWEST_LUFS, aim) - report.plan.loudness_lufs for aim, report in zip(aims, reports, strict=True)]
    if max(short_lu) < _SHORT_LU:
        return reports
    # One track may go no louder, so that all are made quieter by what it lacks.
    return [
        _with_remark(made(number, max(short_lu)), max(short_lu), short_lu.index(max(short_lu)))
        for number in range(len(tracks))
    ]


def _with_remark(report: Report, lowered_lu: float, by: int) -> Report:
    remark = (
        f"The album is {lowered_lu:.1f} LU quieter than asked for, because its track {by + 1} may go no louder, "
        "and all keep their distances."
    )
    return report.model_copy(update={"flags": (*report.flags, remark)})


def _track_progress(progress: Callable[[Stage, float], None], number: int, of: int, stage: Stage, part: float) -> None:
    progress(stage, (number + part) / of)


def _track_lufs(analysis: Analysis) -> float:
    found = analysis.measurements.integrated_lufs
    if found is None:
        raise Fault(FaultCode.SILENT, "A track of the album is too quiet to have a loudness.")
    return found


def _mean_power(analyses: Sequence[Analysis], rate_hz: int) -> Power:
    """Mean power of all tracks by their length, on the FFT bins of `rate_hz`.

    Bins above half the rate of a track are the mean of the others.
    """
    hz = bin_frequencies_hz(rate_hz)
    total, seconds = np.zeros((2, hz.size)), np.zeros(hz.size)
    for found in analyses:
        own_hz = bin_frequencies_hz(found.measurements.rate_hz)
        power = found.power if found.measurements.rate_hz == rate_hz else _on_other_bins(found.power, own_hz, hz)
        known = np.where(hz <= own_hz[-1], found.measurements.duration_s, 0.0)
        total += power * known
        seconds += known
    return total / np.maximum(seconds, 1e-9)


def _on_other_bins(power: Power, own_hz: NDArray[np.float64], hz: NDArray[np.float64]) -> Power:
    """The same power per Hz on other bins."""
    per_bin = (hz[1] - hz[0]) / (own_hz[1] - own_hz[0])
    return np.stack([np.interp(hz, own_hz, side) * per_bin for side in power])
