"""The whole trip of one song: decode, analyse, plan, render, encode, verify. One call, used by command and worker.

Nothing but `source`, `references` and what `open_output` returns is read or written; songs of more than ten minutes
are decoded once per pass instead of being kept in memory. The file is long because it tells the trip in one place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import BinaryIO

from pydantic import ValidationError

from mastering.audio import decode, encode, loading, tags
from mastering.contract import (
    ENGINE_VERSION,
    MAX_INPUT_BYTES,
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
from mastering.dsp.contour import ContourMeter, character_of
from mastering.dsp.resample import resampled
from mastering.dsp.stream import Audio, Blocks, collected, reblock, stored
from mastering.engine import analyse, plan, refine, render, traces
from mastering.engine.delivery import MOST_MASTER_BYTES, curve_of, deliver, read_back, with_loudness
from mastering.engine.demo import demo_song
from mastering.engine.progress import Meter, Progress, silent

KEEP_SAMPLES = 2 * 48_000 * 60 * 11
_MOST_REFERENCES = 16
_MOST_JSON_BYTES = 1 << 20
_HEEDED_DB = 1.3
"""Peaks so far under the ceiling concern neither the limiter nor its guard."""
_UNSURE_DB = 2.0
"""How far the gain may turn out higher than it looks before the loudness is solved."""


def master(
    source: BinaryIO,
    settings: Settings,
    *,
    references: Sequence[BinaryIO] = (),
    open_output: Callable[[OutputFormat], BinaryIO],
    progress: Progress = silent,
    family: plan.Power | None = None,
    with_costs: bool = False,
) -> Report:
    """Master `source` into every format of `settings.outputs`. Raises Fault; whatever `progress` raises ends it too.

    `open_output` returns an empty binary file that can be written, read and sought (a memory file will do); it is
    called once per format, and the file is left open, at its start. `family` is the mean power of the album that the
    song belongs to (2, bins): the tone is then the album's. `with_costs` adds to the report what other
    loudnesses would have cost.
    """
    _check(settings, references)
    meter = Meter(progress, settings.effort)
    likenesses = [read_reference(reference, with_character=settings.effort is Effort.FIT) for reference in references]
    audio, before, flags = _listen(source, settings, meter)
    song, chosen, remarks = _decide(audio, before, settings, likenesses, meter, family)
    carried = tags.read(source) if settings.keep_tags else tags.Tags({})
    delivered = deliver(song, chosen, open_output, meter, carried)
    meter.end()
    first = delivered[0]
    lost = [f"The tags could not be written to the {each.kind.label}." for each in delivered if each.lost_tags]
    return Report(
        engine_version=ENGINE_VERSION,
        before=before.measurements,
        after=first.after.measurements,
        plan=first.plan,
        flags=(*flags, *remarks, *lost),
        traces=traces.traces(song, first.plan, before.cells, first.after.cells, with_costs=with_costs),
        references=tuple(likeness.spectrum for likeness in likenesses),
    )


def _check(settings: Settings, references: Sequence[BinaryIO]) -> None:
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


def read_reference(source: BinaryIO, *, with_character: bool = False) -> Measurements:
    """A reference's measurements: from its audio, or from the JSON that `analyse` wrote of it."""
    source.seek(0)
    if source.read(1) != b"{":
        return measure(source, with_character=with_character)
    source.seek(0)
    try:
        return Measurements.model_validate_json(source.read(_MOST_JSON_BYTES))
    except ValidationError:
        raise Fault(
            FaultCode.UNSUPPORTED_FORMAT,
            "The reference is JSON, but not the measurements that 'mastering analyse --json' writes.",
        ) from None


def render_plan(
    source: BinaryIO,
    chosen: Plan,
    *,
    open_output: Callable[[OutputFormat], BinaryIO],
    progress: Progress = silent,
) -> Measurements:
    """Render `source` by a finished plan, deciding nothing anew: the same PCM as when the plan was made.

    Lossless formats only: the ceiling of a lossy one is found by trial.
    """
    if chosen.engine_version != ENGINE_VERSION:
        raise Fault(
            FaultCode.BAD_SETTINGS,
            f"The plan was made by engine {chosen.engine_version}; this is {ENGINE_VERSION}. Make it anew.",
        )
    meter = Meter(progress)
    recording = decode.open_recording(source)
    audio = loading.load(recording, keep_samples=KEEP_SAMPLES, tick=meter.begin(Stage.DECODE, 0))
    if chosen.rate_hz != audio.rate_hz:
        audio = _kept(resampled(audio, chosen.rate_hz), meter.begin(Stage.DECODE, audio.frames, 0.0))
    above = plan.number(plan.required(chosen, "limiter"), "heeded_from")
    song = render.shape(audio, chosen, tick=meter.begin(Stage.RENDER, audio.frames, 0.7), above=above)
    curve = curve_of(song, chosen, meter.begin(Stage.RENDER, 2 * audio.frames, 0.3))
    after = None
    for kind in chosen.settings.outputs:
        if kind.is_lossy:
            continue
        target = open_output(kind)
        encoding = meter.begin(Stage.ENCODE, audio.frames)
        encode.encode(render.limited(song.audio, curve), kind, target, seed=chosen.seed, tick=encoding)
        after = read_back(target, audio.frames, meter, 1.0).measurements
        target.seek(0)
    if after is None:
        raise Fault(FaultCode.BAD_SETTINGS, "The plan names lossy outputs only. Render it to WAV or FLAC.")
    meter.end()
    return after


def read_plan(source: BinaryIO) -> Plan:
    """A plan, or the plan inside a report, from JSON."""
    try:
        data = json.loads(source.read(_MOST_JSON_BYTES))
        return Plan.model_validate(data.get("plan", data))
    except (ValueError, AttributeError):
        raise Fault(
            FaultCode.BAD_SETTINGS, "This is no plan: give what 'mastering plan --json' or 'master --json' wrote."
        ) from None


def difference_steps(one: BinaryIO, other: BinaryIO) -> int:
    """The null test: the largest difference between two recordings, in steps of 24 bits; −1 if their shapes differ."""
    pair = [decode.open_recording(source, most_bytes=MOST_MASTER_BYTES) for source in (one, other)]
    if len({(recording.rate_hz, recording.channels) for recording in pair}) > 1:
        return -1
    worst = 0
    for first, second in zip_longest(*(reblock(recording.decode()) for recording in pair)):
        if first is None or second is None or first.shape != second.shape:
            return -1
        worst = max(worst, round(float(abs(first - second).max()) * 2**23))
    return worst


def make_plan(
    source: BinaryIO, settings: Settings, *, references: Sequence[BinaryIO] = (), progress: Progress = silent
) -> Plan:
    """What `master` would do with `source`, without doing it."""
    _check(settings, references)
    meter = Meter(progress, settings.effort)
    likenesses = [read_reference(reference, with_character=settings.effort is Effort.FIT) for reference in references]
    audio, before, _ = _listen(source, settings, meter)
    return _decide(audio, before, settings, likenesses, meter)[1]


def hear(source: BinaryIO, settings: Settings) -> analyse.Analysis:
    """The analysis of `source` at the sample rate that `settings` ask for."""
    return _listen(source, settings, Meter(silent))[1]


def open_song(source: BinaryIO, settings: Settings) -> tuple[Audio, analyse.Analysis]:
    """`source` decoded, and its analysis."""
    presets.check(settings)
    audio, heard, _ = _listen(source, settings, Meter(silent))
    return audio, heard


def measure(source: BinaryIO, *, with_character: bool = False) -> Measurements:
    """The measurements of `source` alone; its character costs a second meter."""
    contour: list[ContourMeter] = []
    measured = _read(source, lambda frames: None, contour=contour if with_character else None).measurements
    if not contour or measured.integrated_lufs is None:
        return measured
    character = character_of(contour[0].contour(), measured.integrated_lufs)
    return measured.model_copy(update={"character": character})


def _read(
    source: BinaryIO,
    tick: Callable[[int], None],
    most_bytes: int = MAX_INPUT_BYTES,
    *,
    contour: list[ContourMeter] | None = None,
) -> analyse.Analysis:
    """Decode and measure in one pass; nothing is kept."""
    recording = decode.open_recording(source, most_bytes=most_bytes)
    blocks = loading.checked_blocks(recording, tick)
    if contour is not None:
        contour.append(ContourMeter(recording.rate_hz))
        blocks = contour[0].passing(blocks)
    return analyse.analyse(blocks, recording.rate_hz, recording.channels, frames=recording.promised_frames)


def write_demo_song(target: BinaryIO) -> None:
    """Write half a minute of synthesised music as 24-bit WAV."""
    song = stored(demo_song(44_100), 44_100)
    encode.encode(song, OutputFormat.WAV24, target, seed=0, tick=lambda frames: None)


def _listen(source: BinaryIO, settings: Settings, meter: Meter) -> tuple[Audio, analyse.Analysis, list[str]]:
    recording = decode.open_recording(source)
    decoding = meter.begin(Stage.DECODE, recording.promised_frames or 0)
    audio = loading.load(recording, keep_samples=KEEP_SAMPLES, tick=decoding)
    if settings.rate_hz not in (None, audio.rate_hz):
        audio = _kept(resampled(audio, settings.rate_hz or audio.rate_hz), decoding)
    tick = meter.begin(Stage.ANALYSE, audio.frames)
    before = analyse.analyse(audio.read(), audio.rate_hz, audio.channels, frames=audio.frames, tick=tick)
    if before.measurements.integrated_lufs is None:
        raise Fault(FaultCode.SILENT, "The audio is too quiet to have a loudness: nothing in it passes −70 LUFS.")
    return audio, before, analyse.remarks(before.measurements, lossy=recording.lossy)


def _kept(audio: Audio, tick: Callable[[int], None]) -> Audio:
    """The recording in memory if it is short enough: converting its rate for every pass would cost more."""
    if audio.frames * audio.channels > KEEP_SAMPLES:
        return audio
    return stored(collected(_ticking(audio.read(), tick), audio.channels, audio.frames), audio.rate_hz)


def _ticking(blocks: Blocks, tick: Callable[[int], None]) -> Blocks:
    for block in blocks:
        tick(block.shape[1])
        yield block


def _decide(
    audio: Audio,
    before: analyse.Analysis,
    settings: Settings,
    references: Sequence[Measurements],
    meter: Meter,
    family: plan.Power | None = None,
) -> tuple[render.ShapedSong, Plan, tuple[str, ...]]:
    meter.begin(Stage.PLAN, 0)
    chosen, remarks = plan.tone_plan(
        before.measurements, before.power if family is None else family, settings, references
    )
    if settings.effort is Effort.FIT:
        chosen, said = _refined(chosen, audio, before, references, meter, of_album=family is not None)
        remarks = (*remarks, said)
    likely_db = chosen.loudness_lufs - (before.measurements.integrated_lufs or 0.0)
    rendering = meter.begin(Stage.RENDER, audio.frames, 0.7)
    heeded = _heeded(chosen, likely_db + _HEEDED_DB + _UNSURE_DB)
    song = render.shape(audio, chosen, tick=rendering, cells=before.cells, above=heeded)
    finished = with_loudness(song, chosen, chosen.ceiling_dbtp, 0.0)
    gain_db = plan.number(plan.required(finished, "loudness"), "gain_db")
    if _heeded(chosen, gain_db + _HEEDED_DB) < song.above:
        song = render.with_finer_peaks(song, _heeded(chosen, gain_db + _HEEDED_DB + _UNSURE_DB), rendering)
        finished = with_loudness(song, chosen, chosen.ceiling_dbtp, 0.0)
    return song, finished, remarks


def _refined(
    chosen: Plan,
    audio: Audio,
    before: analyse.Analysis,
    references: Sequence[Measurements],
    meter: Meter,
    *,
    of_album: bool,
) -> tuple[Plan, str]:
    if of_album:
        return chosen, "Not refined: the tracks of an album share one tone, which is the closed form's."
    return refine.refined(chosen, audio, before, references, tick=meter.fitted)


def _heeded(chosen: Plan, gain_db: float) -> float:
    """The lowest peak that a limiter after `gain_db` has to know of."""
    return float(10 ** ((chosen.ceiling_dbtp - gain_db) / 20))
