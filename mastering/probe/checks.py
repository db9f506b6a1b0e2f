"""Decode a recording and check it by four numbers: frames, peak, whether decoding failed, whether its end is missing.

It is decoded to its end, but for one of whole-number samples whose length is certain: there, as soon as one sample is
louder than silence, no other can change the answer.

Bounded memory, whatever the header says: a file of 400 kB can decode to 7 GB, so the frames are counted as they come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mastering.audio import refusals
from mastering.audio.codecs import is_lossless
from mastering.contract import MAX_CHANNELS, MAX_RATE_HZ, MIN_DURATION_S, MIN_RATE_HZ, Facts, Fault, FaultCode
from mastering.contract.limits import BEYOND_SOUND_DBFS, SILENCE_DBFS
from mastering.probe.recording import (
    DecodedBlock,
    Header,
    ProbedRecording,
    full_scale,
)

_PATIENCE_S = 30.0
"""Where a request says nothing else."""
_MIN_SAMPLES_PER_S = 2_000_000
"""A tenth of what a shared core decodes of a dense codec (Opus, 48 kHz stereo)."""


@dataclass(frozen=True)
class DecodeSummary:
    """What decoding a recording found."""

    frames: int
    peak: float
    """Largest absolute sample that was decoded; 1.0 is full scale."""
    has_failed: bool
    """The decoder stopped with an error."""


def check_header(recording: Header, max_duration_s: float) -> None:
    """Refuse by what the header alone says. Raises Fault(too_many_channels, unsupported_rate, too_long)."""
    if recording.channels > MAX_CHANNELS:
        raise Fault(
            FaultCode.TOO_MANY_CHANNELS,
            f"The recording has {recording.channels} channels; mono and stereo are mastered. Mix it down to stereo.",
            channels=recording.channels,
            allowed=MAX_CHANNELS,
        )
    if not MIN_RATE_HZ <= recording.rate_hz <= MAX_RATE_HZ:
        raise Fault(
            FaultCode.UNSUPPORTED_RATE,
            f"The sample rate is {recording.rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are mastered. Resample it.",
            rate_hz=recording.rate_hz,
            least_hz=MIN_RATE_HZ,
            allowed_hz=MAX_RATE_HZ,
        )
    if recording.declared_frames is not None:
        check_length(recording.declared_frames, recording.rate_hz, max_duration_s)


def check_length(frames: int, rate_hz: int, max_duration_s: float) -> None:
    """Raises Fault(too_long) where `frames` last longer than `max_duration_s`."""
    if frames > max_duration_s * rate_hz:
        minutes, allowed = frames / rate_hz / 60, max_duration_s / 60
        raise Fault(
            FaultCode.TOO_LONG,
            f"The recording lasts {minutes:.1f} minutes or more; at most {allowed:.0f} are mastered. Split it.",
            duration_s=round(frames / rate_hz),
            allowed_s=round(max_duration_s),
        )


def decode_summary(
    recording: ProbedRecording,
    max_duration_s: float,
    patience_s: float = _PATIENCE_S,
    waited_s: Callable[[], float] = lambda: 0.0,
    on_first_sound: Callable[[], object] = lambda: None,
) -> DecodeSummary:
    """Decode for as long as it matters. Raises Fault(not_finite, too_long, unsupported_format, resource_limit).

    After `patience_s` seconds it goes on only while honest amounts of sound come out. `waited_s`: seconds that went by
    waiting for bytes since the process began. `on_first_sound` is called when the first samples are there.
    """
    frames, peak, has_failed = 0, 0.0, False
    began = time.monotonic() - waited_s()
    blocks = recording.blocks()
    try:
        for block in blocks:
            if not frames and len(block):
                on_first_sound()
            frames += len(block)
            check_length(frames, recording.rate_hz, max_duration_s)
            _check_pace(frames * recording.channels, time.monotonic() - began - waited_s(), patience_s)
            # A NaN or an infinity anywhere shows in the extremes: numpy's max and min hand NaN on.
            peak = _finite_peak(peak, block)
            if recording.is_settled and recording.declared_frames is not None and not is_silent(peak):
                return DecodeSummary(recording.declared_frames, peak, has_failed=False)
    except Fault as fault:
        if fault.code is not FaultCode.UNDECODABLE:
            raise
        has_failed = True
    return DecodeSummary(frames, peak, has_failed)


def _check_pace(samples: int, spent_s: float, patience_s: float) -> None:
    if spent_s > patience_s and samples < spent_s * _MIN_SAMPLES_PER_S:
        raise refusals.demanding_song()


def _finite_peak(peak: float, block: DecodedBlock) -> float:
    extremes = max(float(block.max()), -float(block.min())) / full_scale(block) if block.size else 0.0
    if not extremes <= 10 ** (BEYOND_SOUND_DBFS / 20):  # NaN, which no comparison holds for, is caught too
        raise Fault(
            FaultCode.NOT_FINITE,
            "The recording holds samples that are no sound (NaN, infinity or beyond +120 dBFS). Export it again.",
        )
    return max(peak, extremes)


def facts_of(recording: Header, summary: DecodeSummary, is_cut_short: bool, allowed_missing_frames: int) -> Facts:
    """The facts of a recording that was decoded. Raises Fault(truncated, undecodable, too_short, silent)."""
    declared, frames = recording.declared_frames, summary.frames
    ends_early = declared is not None and frames < declared - allowed_missing_frames
    if is_cut_short or (ends_early and not summary.has_failed):
        raise _truncated(recording, summary)
    if summary.has_failed and declared is not None and 0 < frames < declared:
        raise _truncated(recording, summary)
    if summary.has_failed or frames == 0:
        raise refusals.undecodable_song()
    if frames < MIN_DURATION_S * recording.rate_hz:
        raise Fault(
            FaultCode.TOO_SHORT,
            f"The recording lasts {frames / recording.rate_hz:.2f} s; at least {MIN_DURATION_S:.0f} s is needed.",
            duration_s=round(frames / recording.rate_hz, 3),
            least_s=MIN_DURATION_S,
        )
    if is_silent(summary.peak):
        raise Fault(
            FaultCode.SILENT,
            f"The recording is silent: nothing in it is louder than {SILENCE_DBFS:.0f} dBFS. Send one with sound.",
        )
    return Facts(
        container=recording.container,
        codec=recording.codec,
        rate_hz=recording.rate_hz,
        channels=recording.channels,
        frames=frames,
        duration_s=frames / recording.rate_hz,
        lossy=not is_lossless(recording.codec),
    )


def is_silent(peak: float) -> bool:
    return peak < 10 ** (SILENCE_DBFS / 20)


def _truncated(recording: Header, summary: DecodeSummary) -> Fault:
    seconds, declared = summary.frames / recording.rate_hz, recording.declared_frames
    whole = f" of {declared / recording.rate_hz:.1f} s" if declared and declared > summary.frames else ""
    return Fault(
        FaultCode.TRUNCATED,
        f"The file is cut short or damaged: only {seconds:.1f} s{whole} could be read. Send the whole file again.",
        decoded_s=round(seconds, 3),
        **({"declared_s": round(declared / recording.rate_hz, 3)} if declared else {}),
    )
