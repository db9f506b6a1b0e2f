"""Decode a second of each kind of audio before the sandbox is set up: a library imported later could not be read.

And once more in a child that waits for its request: a new process shares its parent's pages until it first writes to
one, and copying them costs it more than decoding a short song does.
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
from mastering.contract.limits import MAX_MISSING_PACKET_FRAMES
from mastering.probe.checks import check_header, decode_summary, facts_of
from mastering.probe.decoders import open_recording
from mastering.probe.growing_file import GrowingFile
from mastering.probe.recording import DecodedBlock

_RATE_HZ = 48_000


def warm_up() -> None:
    """Decode a second of each kind, so that nothing is left to import once files are out of reach."""
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
            _check(container, source)


def sample_wav_check() -> Callable[[], None]:
    """What a waiting child does: check a WAV of our own, the commonest format, from its container to its facts."""
    wav = _wav()

    def check_sample() -> None:
        source = os.memfd_create("")
        try:
            os.write(source, wav)
            with suppress(Fault):
                _check(container_of(wav) or "", source)
        finally:
            os.close(source)

    return check_sample


def _check(container: str, source: int) -> None:
    recording = open_recording(container, source, GrowingFile(mmap.mmap(source, 0)))
    check_header(recording, 2.0)
    facts_of(recording, decode_summary(recording, 3.0), False, MAX_MISSING_PACKET_FRAMES)


def _noise() -> DecodedBlock:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (_RATE_HZ, 2)).astype(np.float32)


def _wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, _noise(), _RATE_HZ, format="WAV")
    return file.getvalue()


def _encode(spool: Any, container: str, codec: str, samples: DecodedBlock) -> None:
    with av.open(spool, "w", format=container) as media:
        stream: Any = media.add_stream(codec, rate=_RATE_HZ)
        stream.codec_context.layout = "stereo"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate = _RATE_HZ
        for resampled in av.AudioResampler(stream.codec_context.format, "stereo", _RATE_HZ).resample(frame):
            media.mux(stream.encode(resampled))
        media.mux(stream.encode(None))
