"""Coded audio by FFmpeg's libraries, for the probe: `audio.coded` on a file that arrives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mastering.audio.coded import CodedAudio
from mastering.probe.growing_file import GrowingFile, GrowingFileReader
from mastering.probe.recording import DecodedBlock, ProbedRecording

_READ_WHOLE = frozenset({"ogg", "wavpack"})
"""Containers whose pages or blocks are looked at before they are opened."""


def open_with_libav(container: str, file: GrowingFile) -> ProbedRecording:
    """Open a `container` that arrives as `file`, whose tags have arrived. Raises Fault."""
    if container in _READ_WHOLE:
        file.wait_for_all()
    audio = CodedAudio(lambda start, end: GrowingFileReader(file, start, end), container, file.data)
    return ProbedRecording(
        container=container,
        codec=audio.codec,
        rate_hz=audio.rate_hz,
        channels=audio.channels,
        declared_frames=audio.declared_frames,
        blocks=lambda: _blocks(audio),
    )


def _blocks(audio: CodedAudio) -> Iterator[DecodedBlock]:
    nothing = np.empty((0, audio.channels), np.float32)
    for frames in audio.packets():
        yield from map(_block, frames)
        if not frames:
            yield nothing  # so that the check of the pace is made


def _block(frame: Any) -> DecodedBlock:
    samples = frame.to_ndarray()
    block: DecodedBlock = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    return block
