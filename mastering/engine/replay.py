"""Rendering again by a finished plan, and the null test that proves a master to be the plan's.

The same plan, decoded samples and engine version give the same PCM; nothing is decided anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import zip_longest
from typing import BinaryIO

from mastering.audio import decode, encode, loading
from mastering.contract import ENGINE_VERSION, Fault, FaultCode, Measurements, OutputFormat, Plan, Stage
from mastering.dsp.stream import reblock
from mastering.engine import inputs, render, steps, verify
from mastering.engine.delivery import limiter_curve
from mastering.engine.progress import Meter, ProgressCallback, silent
from mastering.engine.read_back import MOST_MASTER_BYTES, read_back


def render_plan(
    song_file: BinaryIO,
    chosen: Plan,
    *,
    open_output: Callable[[OutputFormat], BinaryIO],
    progress: ProgressCallback = silent,
) -> Measurements:
    """Render the song by a finished plan: the same PCM as when the plan was made. Raises Fault.

    Lossless formats only: the ceiling of a lossy one is found by trial.
    """
    if chosen.engine_version != ENGINE_VERSION:
        raise Fault(
            FaultCode.BAD_SETTINGS,
            f"The plan was made by engine {chosen.engine_version}; this is {ENGINE_VERSION}. Make it anew.",
        )
    meter = Meter(progress)
    recording = decode.open_recording(song_file)
    audio = loading.load(recording, keep_samples=inputs.KEEP_SAMPLES, tick=meter.begin(Stage.DECODE, 0))
    audio = inputs.at_rate(audio, chosen.rate_hz, meter.begin(Stage.DECODE, audio.frames, 0.0))
    peak_floor = steps.limiter_step(chosen).parameters.peak_floor
    song = render.shape(audio, chosen, tick=meter.begin(Stage.RENDER, audio.frames, 0.7), peak_floor=peak_floor)
    curve = limiter_curve(song, chosen, meter.begin(Stage.RENDER, 2 * audio.frames, 0.3))
    offsets = steps.limiter_step(chosen).parameters.offsets
    after = None
    for kind in chosen.settings.outputs:
        if kind.is_lossy:
            continue
        target = open_output(kind)
        encoding = meter.begin(Stage.ENCODE, audio.frames)
        encode.encode(render.limited(song.audio, curve, offsets), kind, target, seed=chosen.seed, tick=encoding)
        read = read_back(target, audio.frames, meter, 1.0)
        if read.disagreements:
            raise verify.bad_master(read.disagreements)
        after = read.analysis.measurements
        target.seek(0)
    if after is None:
        raise Fault(FaultCode.BAD_SETTINGS, "The plan names lossy outputs only. Render it to WAV or FLAC.")
    meter.end()
    return after


def read_plan(file: BinaryIO) -> Plan:
    """A plan, or the plan inside a report, from JSON. Raises Fault(bad_settings)."""
    try:
        data = json.loads(file.read(inputs.MOST_JSON_BYTES))
        return Plan.model_validate(data.get("plan", data))
    except (ValueError, AttributeError, RecursionError):
        raise Fault(
            FaultCode.BAD_SETTINGS, "This is no plan: give what 'mastering plan --json' or 'master --json' wrote."
        ) from None


def difference_steps(one: BinaryIO, other: BinaryIO) -> int:
    """The null test: the largest difference between two recordings, in steps of 24 bits; −1 if their shapes differ."""
    pair = [decode.open_recording(file, most_bytes=MOST_MASTER_BYTES) for file in (one, other)]
    if len({(recording.rate_hz, recording.channels) for recording in pair}) > 1:
        return -1
    worst = 0
    for first, second in zip_longest(*(reblock(recording.decode()) for recording in pair)):
        if first is None or second is None or first.shape != second.shape:
            return -1
        worst = max(worst, round(float(abs(first - second).max()) * 2**23))
    return worst
