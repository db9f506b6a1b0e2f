"""A song from file to masters: decode, analyse, plan, render, encode, verify. One call, used by command and worker.

Nothing but `source`, `references` and what `open_output` returns is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO

from mastering.audio import tags
from mastering.contract import (
    ENGINE_VERSION,
    Effort,
    Fault,
    FaultCode,
    Measurements,
    OutputFormat,
    Plan,
    Report,
    Settings,
    Stage,
    presets,
)
from mastering.engine import plan, refine, render, steps, traces
from mastering.engine.delivery import deliver, solve_loudness
from mastering.engine.inputs import OpenedSong, open_song, read_reference
from mastering.engine.progress import Meter, ProgressCallback, silent

_MOST_REFERENCES = 16
_PEAK_MARGIN_DB = 1.3
"""Peaks so far under the ceiling concern neither the limiter nor its guard."""
_UNSURE_DB = 2.0
"""How far the gain may turn out higher than it looks before the loudness is solved."""


def master(
    source: BinaryIO,
    settings: Settings,
    *,
    references: Sequence[BinaryIO] = (),
    open_output: Callable[[OutputFormat], BinaryIO],
    progress: ProgressCallback = silent,
    album_power: plan.Power | None = None,
    with_costs: bool = False,
    twice: bool = True,
) -> Report:
    """Master `source` into every format of `settings.outputs`. Raises Fault; whatever `progress` raises ends it too.

    `open_output` returns an empty binary file that can be written, read and sought (a memory file will do); it is
    called once per format, and the file is left open, at its start. `album_power` is the mean power of the album that
    the song belongs to (2, bins): the tone is then the album's. `with_costs` adds to the report what other loudnesses
    would have cost. `twice`: the second meters read each master too; without them it was measured once only, which is
    for benchmarks.
    """
    meter = Meter(progress, settings.effort)
    measured_references = _read_references(settings, references)
    song = open_song(source, settings, meter)
    shaped, chosen, remarks = _decide(song, settings, measured_references, meter, album_power)
    carried_tags = tags.read(source) if settings.keep_tags else tags.Tags({})
    delivered = deliver(shaped, chosen, open_output, meter, carried_tags, twice=twice)
    meter.end()
    first = delivered[0]
    lost = (*carried_tags.remarks, *(each.lost_tags for each in delivered if each.lost_tags))
    before, after = song.analysis, first.read.analysis
    return Report(
        engine_version=ENGINE_VERSION,
        before=before.measurements,
        after=after.measurements,
        plan=first.plan,
        flags=(*song.remarks, *remarks, *plan.bound_remarks(first.plan), *lost),
        traces=traces.traces(shaped, first.plan, before.block_energies, after.block_energies, with_costs=with_costs),
        references=tuple(reference.spectrum for reference in measured_references),
        checks=tuple(each.check() for each in delivered),
    )


def make_plan(
    source: BinaryIO, settings: Settings, *, references: Sequence[BinaryIO] = (), progress: ProgressCallback = silent
) -> Plan:
    """What `master` would do with `source`, without doing it. Raises Fault."""
    meter = Meter(progress, settings.effort)
    measured_references = _read_references(settings, references)
    return _decide(open_song(source, settings, meter), settings, measured_references, meter)[1]


def _read_references(settings: Settings, references: Sequence[BinaryIO]) -> list[Measurements]:
    """The references measured, once the settings are known to be good. Raises Fault."""
    presets.check(settings)
    weights = len(settings.reference_weights)
    if weights not in (0, len(references)):
        raise Fault(
            FaultCode.BAD_SETTINGS,
            f"There are {len(references)} references and {weights} weights; give one weight for each, or none.",
        )
    if len(references) > _MOST_REFERENCES:
        raise Fault(
            FaultCode.BAD_SETTINGS, f"{len(references)} references were given; at most {_MOST_REFERENCES} are allowed."
        )
    return [read_reference(reference, with_character=settings.effort is Effort.FIT) for reference in references]


def _decide(
    song: OpenedSong,
    settings: Settings,
    references: Sequence[Measurements],
    meter: Meter,
    album_power: plan.Power | None = None,
) -> tuple[render.ShapedSong, Plan, tuple[str, ...]]:
    """The song shaped, its whole plan, and remarks on what the plan could not do."""
    audio, before = song.audio, song.analysis
    meter.begin(Stage.PLAN, 0)
    power = before.power if album_power is None else album_power
    chosen, remarks = plan.tone_plan(
        before.measurements, power, settings, references, usual_peak_dbtp=before.usual_peak_dbtp
    )
    if settings.effort is Effort.FIT:
        chosen, remark = _refined(chosen, song, references, meter, of_album=album_power is not None)
        remarks = (*remarks, remark)
    likely_gain_db = chosen.loudness_lufs - (before.measurements.integrated_lufs or 0.0)
    rendering = meter.begin(Stage.RENDER, audio.frames, 0.7)
    peak_floor = _peak_floor(chosen, likely_gain_db + _PEAK_MARGIN_DB + _UNSURE_DB)
    shaped = render.shape(audio, chosen, tick=rendering, block_energies=before.block_energies, peak_floor=peak_floor)
    shaped = replace(shaped, source_peak_to_loudness_lu=before.measurements.peak_to_loudness_lu or -200.0)
    finished = solve_loudness(shaped, chosen, chosen.ceiling_dbtp, 0.0)
    gain_db = steps.gain_db(finished)
    if _peak_floor(chosen, gain_db + _PEAK_MARGIN_DB) < shaped.peak_floor:
        peak_floor = _peak_floor(chosen, gain_db + _PEAK_MARGIN_DB + _UNSURE_DB)
        shaped = render.with_finer_peaks(shaped, peak_floor, rendering)
        finished = solve_loudness(shaped, chosen, chosen.ceiling_dbtp, 0.0)
    return shaped, finished, remarks


def _refined(
    chosen: Plan, song: OpenedSong, references: Sequence[Measurements], meter: Meter, *, of_album: bool
) -> tuple[Plan, str]:
    if of_album:
        return chosen, "Not refined: the tracks of an album share one tone, which is the closed form's."
    return refine.refined(chosen, song.audio, song.analysis, references, tick=meter.fitted)


def _peak_floor(chosen: Plan, gain_db: float) -> float:
    """The lowest peak (linear, before the gain) that a limiter after `gain_db` has to know of.

    Rounded, since a loudness has digits that change with the number of threads of a matrix product.
    """
    return round(float(10 ** ((chosen.ceiling_dbtp - gain_db) / 20)), 6)
