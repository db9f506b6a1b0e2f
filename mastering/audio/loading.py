"""Decode a recording and check every sample; few enough stay in memory, more are decoded whenever they are read.

A file is never trusted about its own length: what is decoded is counted, and decoding stops where a limit is passed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mastering.audio import refusals
from mastering.audio.codecs import allowed_missing_frames
from mastering.audio.decode import Recording
from mastering.contract import MAX_DURATION_S, MIN_DURATION_S
from mastering.contract.limits import BEYOND_SOUND_DBFS, SILENCE_DBFS
from mastering.dsp.stream import Audio, Blocks, Samples, reblock, stored
from mastering.dsp.threads import ahead

_SILENCE = 10 ** (SILENCE_DBFS / 20)
_BEYOND_SOUND = 10 ** (BEYOND_SOUND_DBFS / 20)


def load(recording: Recording, *, keep_samples: int, tick: Callable[[int], None]) -> Audio:
    """Decode the whole recording once, checking every sample. Raises Fault, as `checked_blocks` does.

    Up to `keep_samples` samples (frames x channels) stay in memory as float32; a longer recording is counted, let go
    and decoded anew whenever it is read. `tick` is called with the frames of each decoded block.
    """
    most_frames = keep_samples // recording.channels
    promised = recording.promised_frames
    kept = None if promised is None or promised > most_frames else np.empty((recording.channels, promised), np.float32)
    frames = 0
    for block in checked_blocks(recording, tick):
        if kept is not None:
            kept = _with_room(kept, frames, frames + block.shape[1], most_frames)
        frames += block.shape[1]
        if kept is not None:
            kept[:, frames - block.shape[1] : frames] = block
    if kept is not None:
        return stored(kept[:, :frames], recording.rate_hz)
    return Audio(recording.rate_hz, recording.channels, frames, lambda: reblock(recording.decode_in_parallel()))


def _with_room(kept: Samples, filled: int, wanted: int, most: int) -> Samples | None:
    """`kept`, or the `filled` frames of it with more behind: a header may promise too few. None beyond `most`."""
    if wanted <= kept.shape[1]:
        return kept
    if wanted > most:
        return None
    roomier = np.empty((len(kept), min(most, max(wanted, 2 * kept.shape[1]))), np.float32)
    roomier[:, :filled] = kept[:, :filled]
    return roomier


def checked_blocks(recording: Recording, tick: Callable[[int], None]) -> Blocks:
    """The blocks of a recording, float32 (channels, frames), each one checked as it is decoded.

    Raises Fault: too_long, not_finite, truncated, undecodable, too_short, silent.
    """
    frames, has_sound = 0, False
    for block in ahead(reblock(recording.decode())):
        frames += block.shape[1]
        if frames > MAX_DURATION_S * recording.rate_hz:
            raise refusals.overlong_song(frames / recording.rate_hz)
        with np.errstate(over="ignore"):
            squares = sum(float(channel @ channel) for channel in block)
        # Where the sum of squares is small (and no NaN), no sample can be large.
        if not squares <= _BEYOND_SOUND**2 and not float(np.abs(block).max()) <= _BEYOND_SOUND:
            raise refusals.not_finite_song((frames - block.shape[1]) / recording.rate_hz)
        has_sound = has_sound or squares > block.size * _SILENCE**2 or float(np.abs(block).max()) >= _SILENCE
        tick(block.shape[1])
        yield block
    _check_length(recording, frames)
    if not has_sound:
        raise refusals.silent_song()


def _check_length(recording: Recording, frames: int) -> None:
    declared = recording.declared_frames
    if declared is not None and frames < declared - allowed_missing_frames(recording.codec, declared):
        raise refusals.truncated_song()
    if not frames:
        raise refusals.undecodable_song()
    if frames < MIN_DURATION_S * recording.rate_hz:
        raise refusals.short_song(frames / recording.rate_hz)
