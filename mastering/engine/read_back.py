"""A master as it is read from its own file: decoded, and measured by two sets of meters that share no code."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from blake3 import blake3

from mastering.audio import decode, loading
from mastering.contract import MasterCheck, OutputFormat, Readings, Stage
from mastering.dsp.second_meter import SecondMeter, as_heard
from mastering.dsp.stream import Blocks
from mastering.dsp.true_peak import HighestPeakMeter
from mastering.engine import analyse, verify
from mastering.engine.progress import Lane, Tick

MOST_MASTER_BYTES = 1 << 34
"""90 minutes of 192 kHz stereo: a master may well be larger than the file it came from."""
_FINE = 16


@dataclass(frozen=True)
class ReadBack:
    """What the meters say of a master."""

    analysis: analyse.Analysis
    second: Readings | None
    """None where the second meters were left out."""
    disagreements: list[str]
    """Parts of a sentence; empty where both sets of meters agree."""
    digest: bytes | None
    """Of the decoded samples, where it was asked for."""

    def readings(self) -> Readings:
        """Of our meters."""
        found = self.analysis.measurements
        return Readings(integrated_lufs=found.integrated_lufs, true_peak_dbtp=found.true_peak_dbtp)

    def check(self, kind: OutputFormat) -> MasterCheck:
        return MasterCheck(output=kind.value, ours=self.readings(), second=self.second)


def read_back(
    target: BinaryIO,
    frames: int,
    lane: Lane,
    share: float,
    *,
    finely: bool = False,
    twice: bool = True,
    with_digest: bool = False,
) -> ReadBack:
    """Decode and measure a master of about so many `frames`. Raises Fault where it can't be decoded.

    `twice`: by the second meters too. Our true peak is read at 16 x with them, or with `finely`: a lossless master was
    held at 16 x by the limiter's guard, but what a lossy coder made of one was not measured yet.
    """
    recording = decode.open_recording(target, most_bytes=MOST_MASTER_BYTES)
    rate_hz, channels = recording.rate_hz, recording.channels
    with ExitStack() as stack:
        second = stack.enter_context(SecondMeter(rate_hz, channels)) if twice else None
        hasher = blake3()
        blocks = loading.checked_blocks(recording, lane.begin(Stage.VERIFY, frames, share))
        blocks = _hashed(blocks, hasher) if with_digest else blocks
        found = analyse.analyse(
            blocks if second is None else _fed(blocks, second),
            rate_hz,
            channels,
            frames=recording.promised_frames,
            finely=finely or twice,
        )
        digest = hasher.digest() if with_digest else None
        if second is None:
            return ReadBack(found, None, [], digest)
        loudness, highest = second.readings()
    theirs = Readings(integrated_lufs=loudness, true_peak_dbtp=analyse.decibels(highest))
    read = ReadBack(found, theirs, [], digest)
    ours = read.readings()
    if abs(ours.true_peak_dbtp - theirs.true_peak_dbtp) > verify.AGREEMENT_DB:
        ours = ours.model_copy(
            update={"true_peak_dbtp": _peak_as_heard(recording, found.measurements.sample_peak_dbfs)}
        )
    return replace(read, disagreements=verify.disagreements(ours, theirs))


def samples_digest(target: BinaryIO, tick: Tick) -> bytes:
    """The digest of a master's decoded samples: those of another one, if it is the same."""
    recording = decode.open_recording(target, most_bytes=MOST_MASTER_BYTES)
    hasher = blake3()
    for _ in _hashed(loading.checked_blocks(recording, tick), hasher):
        pass
    return hasher.digest()


def _hashed(blocks: Blocks, hasher: blake3) -> Blocks:
    for block in blocks:
        hasher.update(np.ascontiguousarray(block).data.cast("B"))
        yield block


def _fed(blocks: Blocks, second: SecondMeter) -> Blocks:
    for block in blocks:
        second.feed(block)
        yield block


def _peak_as_heard(recording: decode.Recording, sample_peak_dbfs: float) -> float:
    """Our true peak of what soxr hears of the master, or its highest sample: where the two differ only because of what
    lies above soxr's band, both are right.
    """
    meter = HighestPeakMeter(recording.rate_hz, _FINE)
    blocks = loading.checked_blocks(recording, lambda frames: None)
    for block in as_heard(blocks, recording.rate_hz, recording.channels):
        meter.feed(block)
    return max(analyse.decibels(meter.highest()), sample_peak_dbfs)
