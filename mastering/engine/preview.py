"""The loudest half minute of a song in every style, all equally loud: one decoding and one analysis for all of them.

Each style's plan is that of the whole song, so that a preview sounds like that stretch of the master. Beside them lies
the original, which has met nothing but the gain and the limiter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from mastering.audio import encode
from mastering.contract import Fault, FaultCode, Plan, Settings, Stage
from mastering.contract.presets import presets
from mastering.dsp import loudness
from mastering.dsp.stream import Audio, Blocks
from mastering.engine import pipeline, plan, render
from mastering.engine.excerpt import cut, fresh, loudest_s

SECONDS = 30.0
ORIGINAL = "original"
_FADE_S = 0.02


@dataclass(frozen=True)
class Preview:
    """One style's file."""

    style: str
    loudness_lufs: float
    plan: Plan


def write_previews(
    source: BinaryIO,
    settings: Settings,
    *,
    references: Sequence[BinaryIO] = (),
    open_output: Callable[[str], BinaryIO],
    seconds: float = SECONDS,
    progress: Callable[[Stage, float], None] = lambda stage, fraction: None,
) -> list[Preview]:
    """Write a preview in every style, the original first; `open_output` gets the style's name. Raises Fault.

    All are as loud as that stretch of the master would be, or as the one that comes least far.
    """
    likenesses = [pipeline.read_reference(reference) for reference in references]
    audio, heard = pipeline.open_song(source, settings)
    stretch = cut(audio, loudest_s(heard.cells, seconds), seconds)
    aim_lufs = plan.loudness_lufs(settings) + _lufs(stretch) - (heard.measurements.integrated_lufs or 0.0)
    names = (ORIGINAL, *presets().styles)
    shaped = []
    for number, name in enumerate(names):
        progress(Stage.RENDER, number / len(names) / 2)
        style = settings.model_copy(update={"style": "neutral" if name == ORIGINAL else name})
        chosen, _ = plan.tone_plan(heard.measurements, heard.power, style, likenesses)
        chosen = chosen.model_copy(update={"steps": ()}) if name == ORIGINAL else chosen
        shaped.append((name, chosen, render.shape(fresh(stretch), chosen, tick=lambda frames: None)))
    reached = [render.solve_with_release(song, chosen.ceiling_dbtp, aim_lufs)[2] for _, chosen, song in shaped]
    matched_lufs = min(aim_lufs, *reached)
    found = []
    for number, (name, chosen, song) in enumerate(shaped):
        progress(Stage.ENCODE, 0.5 + number / len(names) / 2)
        found.append(Preview(name, _write(song, chosen, matched_lufs, open_output(name)), chosen))
    progress(Stage.ENCODE, 1.0)
    return found


def _lufs(audio: Audio) -> float:
    meter = loudness.BlockEnergyMeter(audio.rate_hz, np.ones(audio.channels))
    for block in audio.read():
        meter.feed(block)
    found = loudness.integrated(meter.cells())
    if found is None:
        raise Fault(FaultCode.SILENT, "The loudest stretch is too quiet to have a loudness.")
    return found


def _write(song: render.ShapedSong, chosen: Plan, lufs: float, target: BinaryIO) -> float:
    """The loudness that it came to."""
    limits, gain_db, reached = render.solve_with_release(song, chosen.ceiling_dbtp, lufs)
    curve = render.guarded_curve(song, limits, gain_db, tick=lambda frames: None)
    kind = chosen.settings.outputs[0]
    encode.encode(_faded(render.limited(song.audio, curve)), kind, target, seed=chosen.seed, tick=lambda frames: None)
    return reached


def _faded(audio: Audio) -> Audio:
    """With short fades at both ends: the song was cut in its midst."""
    width = round(_FADE_S * audio.rate_hz)

    def change(blocks: Blocks) -> Blocks:
        at = 0
        for block in blocks:
            place = np.arange(at, at + block.shape[1])
            edge = np.minimum(place, audio.frames - 1 - place)
            yield block * np.clip(edge / width, 0.0, 1.0).astype(np.float32)
            at += block.shape[1]

    return audio.map(change)
