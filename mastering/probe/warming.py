"""Decode a moment of each kind of sound before the fences go up: what is imported late could not be read any more."""

from __future__ import annotations

import os
from typing import Any

import av
import numpy as np
import soundfile

from mastering.probe.listen import check_header, judge, listen
from mastering.probe.recordings import Block, open_recording


def warm_up() -> None:
    """Decode a moment of sound of each kind, so that nothing is left to import once files are out of reach."""
    for container, codec in (
        ("wav", None),
        ("mp4", "aac"),
        ("ogg", "libopus"),
        ("flac", "flac"),
        ("mp3", "libmp3lame"),
    ):
        source = os.memfd_create("")
        with open(source, "w+b", buffering=0) as spool:  # noqa: PTH123 - a descriptor
            noise = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000, 2)).astype(np.float32)
            if codec is None:
                soundfile.write(spool, noise, 48_000, format="WAV")
            else:
                _encode(spool, container, codec, noise)
            recording = open_recording(container, source)
            check_header(recording, 2.0)
            judge(recording, listen(recording, 3.0), False, 4608)


def _encode(spool: Any, container: str, codec: str, samples: Block) -> None:
    with av.open(spool, "w", format=container) as media:
        stream: Any = media.add_stream(codec, rate=48_000)
        stream.codec_context.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        for resampled in av.AudioResampler(stream.codec_context.format, "stereo", 48_000).resample(frame):
            media.mux(stream.encode(resampled))
        media.mux(stream.encode(None))
