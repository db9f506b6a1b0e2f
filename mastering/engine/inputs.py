"""Songs and references as they come in: decoded, at the sample rate asked for, and measured.

Songs of more than ten minutes are decoded once per pass instead of being kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from pydantic import ValidationError

from mastering.audio import decode, loading
from mastering.contract import MAX_INPUT_BYTES, Fault, FaultCode, Measurements, Settings, Stage
from mastering.dsp.contour import ContourMeter
from mastering.dsp.features import character_of
from mastering.dsp.resample import resampled
from mastering.dsp.stream import Audio, Blocks, collected, stored
from mastering.engine import analyse
from mastering.engine.progress import Meter, silent

KEEP_SAMPLES = 2 * 48_000 * 60 * 11
"""Of a song that is kept in memory: eleven minutes of stereo at 48 kHz, 250 MB."""
MOST_JSON_BYTES = 1 << 20
"""Of measurements or a plan as JSON; the engine's own are a hundredth of it."""


@dataclass(frozen=True)
class OpenedSong:
    """A song that was opened: its audio, what the meters say of it, and remarks on its flaws."""

    audio: Audio
    analysis: analyse.Analysis
    remarks: tuple[str, ...]


def open_song(source: BinaryIO, settings: Settings, meter: Meter | None = None) -> OpenedSong:
    """Decode `source` at the rate that `settings` ask for, and analyse it. Raises Fault, also for silence."""
    meter = meter or Meter(silent)
    recording = decode.open_recording(source)
    decoding = meter.begin(Stage.DECODE, recording.promised_frames or 0)
    audio = loading.load(recording, keep_samples=KEEP_SAMPLES, tick=decoding)
    if settings.rate_hz is not None:
        audio = at_rate(audio, settings.rate_hz, decoding)
    tick = meter.begin(Stage.ANALYSE, audio.frames)
    found = analyse.analyse(audio.read(), audio.rate_hz, audio.channels, frames=audio.frames, tick=tick)
    if found.measurements.integrated_lufs is None:
        raise Fault(FaultCode.SILENT, "The audio is too quiet to have a loudness: nothing in it passes −70 LUFS.")
    flaws = analyse.remarks(found.measurements, lossy=recording.lossy)
    return OpenedSong(audio, found, (*recording.remarks, *flaws))


def at_rate(audio: Audio, rate_hz: int, tick: Callable[[int], None]) -> Audio:
    """The recording at `rate_hz`, in memory if it is short enough: to convert it for every pass would cost more."""
    if rate_hz == audio.rate_hz:
        return audio
    converted = resampled(audio, rate_hz)
    if converted.frames * converted.channels > KEEP_SAMPLES:
        return converted
    samples = collected(_ticking(converted.read(), tick), converted.channels, converted.frames)
    return stored(samples, converted.rate_hz)


def _ticking(blocks: Blocks, tick: Callable[[int], None]) -> Blocks:
    for block in blocks:
        tick(block.shape[1])
        yield block


def channels_of(source: BinaryIO) -> int:
    """Channels of the song by its header. Raises Fault."""
    return decode.open_recording(source).channels


def measure(source: BinaryIO, *, with_character: bool = False) -> Measurements:
    """The measurements of `source`, decoded once and not kept; its character costs a second meter. Raises Fault."""
    recording = decode.open_recording(source, most_bytes=MAX_INPUT_BYTES)
    blocks = loading.checked_blocks(recording, lambda frames: None)
    contour = ContourMeter(recording.rate_hz) if with_character else None
    if contour is not None:
        blocks = contour.passing(blocks)
    found = analyse.analyse(blocks, recording.rate_hz, recording.channels, frames=recording.promised_frames)
    measured = found.measurements
    if contour is None or measured.integrated_lufs is None:
        return measured
    character = character_of(contour.contour(), measured.integrated_lufs)
    return measured.model_copy(update={"character": character})


def read_reference(source: BinaryIO, *, with_character: bool = False) -> Measurements:
    """A reference's measurements: from its audio, or from the JSON that `analyse` wrote of it. Raises Fault."""
    source.seek(0)
    if source.read(1) != b"{":
        return measure(source, with_character=with_character)
    source.seek(0)
    try:
        return Measurements.model_validate_json(source.read(MOST_JSON_BYTES))
    except ValidationError:
        raise Fault(
            FaultCode.UNSUPPORTED_FORMAT,
            "The reference is JSON, but not the measurements that 'mastering analyse --json' writes.",
        ) from None
