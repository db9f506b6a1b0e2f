"""Several songs as one album: one tone for all, the loudest at the target, the others as much quieter as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO

import numpy as np

from mastering import engine, plan
from mastering.analyse import Analysis
from mastering.contract import Fault, FaultCode, OutputFormat, Report, Settings, Stage


def master_album(
    tracks: Sequence[BinaryIO],
    settings: Settings,
    *,
    references: Sequence[BinaryIO] = (),
    open_output: Callable[[int, OutputFormat], BinaryIO],
    progress: Callable[[Stage, float], None] = lambda stage, fraction: None,
) -> list[Report]:
    """Master every track into every format; `open_output` gets the track's number. Raises Fault for the first bad one.

    The tracks share the tone that their common spectrum asks for. All must have one sample rate and number of
    channels, unless `settings.rate_hz` makes the rates alike.
    """
    heard = [engine.hear(track, settings) for track in tracks]
    shapes = {(found.measurements.rate_hz, found.measurements.channels) for found in heard}
    if len(shapes) != 1:
        raise Fault(
            FaultCode.BAD_SETTINGS,
            "The album's tracks differ in sample rate or number of channels. Choose one rate, or send them alike.",
        )
    loudest = max(_lufs(found) for found in heard)
    together = _together(heard)
    reports = []
    for number, (track, found) in enumerate(zip(tracks, heard, strict=True)):
        aim = max(-36.0, plan.loudness_lufs(settings) + _lufs(found) - loudest)
        reports.append(
            engine.master(
                track,
                settings.model_copy(update={"loudness_lufs": aim}),
                references=references,
                open_output=partial(open_output, number),
                progress=partial(_passed_on, progress, number, len(tracks)),
                family=together,
            )
        )
    return reports


def _passed_on(progress: Callable[[Stage, float], None], number: int, of: int, stage: Stage, part: float) -> None:
    progress(stage, (number + part) / of)


def _lufs(heard: Analysis) -> float:
    found = heard.measurements.integrated_lufs
    if found is None:
        raise Fault(FaultCode.SILENT, "A track of the album is too quiet to have a loudness.")
    return found


def _together(heard: Sequence[Analysis]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Mean power of all tracks in each bin, by their length."""
    lengths = np.array([found.measurements.frames for found in heard], np.float64)
    return np.tensordot(lengths / lengths.sum(), np.stack([found.power for found in heard]), axes=1)
