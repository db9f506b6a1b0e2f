"""Decode a moment of each kind of sound before the fences go up: what is imported late could not be read any more.

And once more in a child that waits for its request: a young process shares its parent's pages until it first writes to
one, and copying them costs it more than a short song does.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import av
import numpy as np
import soundfile

from mastering.audio.container import container_of
from mastering.contract import Fault
from mastering.probe.checks import check_header, judge, listen
from mastering.probe.decoders import Block, open_recording
from mastering.probe.growing_file import Arriving

_RATE_HZ = 48_000


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
            if codec is None:
                spool.write(_wav())
            else:
                _encode(spool, container, codec, _noise())
            _hear(container, source)


def rehearsal() -> Callable[[], None]:
    """What a waiting child does: a WAV, the commonest of songs, from its container to its facts."""
    wav = _wav()

    def rehearse() -> None:
        source = os.memfd_create("")
        try:
            os.write(source, wav)
            with suppress(Fault):
                _hear(container_of(wav) or "", source)
        finally:
            os.close(source)

    return rehearse


def _hear(container: str, source: int) -> None:
    recording = open_recording(container, source, Arriving(mmap.mmap(source, 0)))
    check_header(recording, 2.0)
    judge(recording, listen(recording, 3.0), False, 4608)


def _noise() -> Block:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (_RATE_HZ, 2)).astype(np.float32)


def _wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, _noise(), _RATE_HZ, format="WAV")
    return file.getvalue()


def _encode(spool: Any, container: str, codec: str, samples: Block) -> None:
    with av.open(spool, "w", format=container) as media:
        stream: Any = media.add_stream(codec, rate=_RATE_HZ)
        stream.codec_context.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate = _RATE_HZ
        for resampled in av.AudioResampler(stream.codec_context.format, "stereo", _RATE_HZ).resample(frame):
            media.mux(stream.encode(resampled))
        media.mux(stream.encode(None))
