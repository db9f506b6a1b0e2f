"""The loudest half minute of a song in every style, all equally loud: one decoding and one analysis for all of them.

Each style's plan is that of the whole song, so that a preview sounds like that stretch of the master. Beside them lies
the original, which went through the gain and the limiter alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from mastering.audio import encode
from mastering.contract import Fault, FaultCode, Plan, Settings, Stage
from mastering.contract.presets import check, presets
from mastering.dsp import loudness
from mastering.dsp.stream import Audio, Blocks
from mastering.engine import plan, render
from mastering.engine.excerpt import cut, fresh, loudest_s
from mastering.engine.inputs import open_song, read_reference

SECONDS = 30.0
"""Length of a preview."""
ORIGINAL = "original"
_FADE_S = 0.02
"""Long enough that no click is heard, short enough that no fade is."""


@dataclass(frozen=True)
class Preview:
    """One preview that was written: its style, its loudness, and the plan that it was made by."""

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
    check(settings)
    measured_references = [read_reference(reference) for reference in references]
    opened = open_song(source, settings)
    audio, analysis = opened.audio, opened.analysis
    stretch = cut(audio, loudest_s(analysis.block_energies, seconds), seconds)
    aim_lufs = plan.loudness_lufs(settings) + _measured_lufs(stretch) - (analysis.measurements.integrated_lufs or 0.0)
    names = (ORIGINAL, *presets().styles)
    shaped = []
    for number, name in enumerate(names):
        progress(Stage.RENDER, number / len(names) / 2)
        style = settings.model_copy(update={"style": "neutral" if name == ORIGINAL else name})
        chosen, _ = plan.tone_plan(
            analysis.measurements,
            analysis.power,
            style,
            measured_references,
            usual_peak_dbtp=analysis.usual_peak_dbtp,
        )
        chosen = chosen.model_copy(update={"steps": ()}) if name == ORIGINAL else chosen
        shaped.append((name, chosen, render.shape(fresh(stretch), chosen, tick=lambda frames: None)))
    reached = [
        render.solve_with_release(song, chosen.ceiling_dbtp, aim_lufs).reached_lufs for _, chosen, song in shaped
    ]
    matched_lufs = min(aim_lufs, *reached)
    found = []
    for number, (name, chosen, song) in enumerate(shaped):
        progress(Stage.ENCODE, 0.5 + number / len(names) / 2)
        found.append(Preview(name, _write_preview(song, chosen, matched_lufs, open_output(name)), chosen))
    progress(Stage.ENCODE, 1.0)
    return found


def _measured_lufs(audio: Audio) -> float:
    meter = loudness.BlockEnergyMeter(audio.rate_hz, np.ones(audio.channels))
    for block in audio.read():
        meter.feed(block)
    found = loudness.integrated(meter.block_energies())
    if found is None:
        raise Fault(FaultCode.SILENT, "The loudest stretch is too quiet to have a loudness.")
    return found


def _write_preview(song: render.ShapedSong, chosen: Plan, lufs: float, target: BinaryIO) -> float:
    """Write the preview at `lufs`, or as near to it as it comes; the loudness reached."""
    found = render.solve_with_release(song, chosen.ceiling_dbtp, lufs)
    curve = render.guarded_curve(song, found.limiter, found.gain_db, tick=lambda frames: None)
    kind = chosen.settings.outputs[0]
    encode.encode(_faded(render.limited(song.audio, curve)), kind, target, seed=chosen.seed, tick=lambda frames: None)
    return found.reached_lufs


def _faded(audio: Audio) -> Audio:
    """The audio with short fades at both ends: it was cut out of the middle of a song, and would click."""
    width = round(_FADE_S * audio.rate_hz)

    def change(blocks: Blocks) -> Blocks:
        at = 0
        for block in blocks:
            frame = np.arange(at, at + block.shape[1])
            from_edge = np.minimum(frame, audio.frames - 1 - frame)
            yield block * np.clip(from_edge / width, 0.0, 1.0).astype(np.float32)
            at += block.shape[1]

    return audio.map(change)
