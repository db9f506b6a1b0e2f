"""Coded audio by FFmpeg's libraries, for the probe: one demuxer by the container, no protocol, one thread."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from mastering.audio.codecs import DEMUXERS, is_lossless, libav_codec
from mastering.audio.container import id3_end
from mastering.contract import Fault, FaultCode
from mastering.probe.growing_file import GrowingFile, GrowingFileReader
from mastering.probe.recording import (
    DecodedBlock,
    ProbedRecording,
    resource_fault,
    undecodable_fault,
    unknown_codec_fault,
)

_MOST_DAMAGED = 0.01
"""Share of a lossy file's packets that may fail: some junk at its end makes it no broken file."""
_GIVE_UP_DAMAGED = 64
"""So many damaged packets, if they are most of those seen, are no recording: a file may hold millions of them."""
_GUESSED_LENGTHS = frozenset({"mp3"})
"""Containers that need not say how long they are: their demuxer guesses from the file's size."""


def open_with_libav(container: str, file: GrowingFile) -> ProbedRecording:
    """Open a `container` that arrives as `file`, whose ID3 tag has arrived. Raises Fault.

    Only what stands behind the tag is shown: libav takes time by the square of its frames, and nothing of it is asked.
    """
    try:
        # No protocol and no second demuxer: a file that names other files gets none of them.
        media = av.open(
            GrowingFileReader(file, id3_end(file.data)),
            format=DEMUXERS[container],
            container_options={"protocol_whitelist": "none"},
            metadata_errors="ignore",
        )
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise _libav_fault(error) from None
    stream = next(iter(media.streams.audio), None)
    if stream is None:
        raise Fault(FaultCode.UNSUPPORTED_FORMAT, "There is no sound in this file. Send one that has an audio track.")
    codec = libav_codec(stream)
    if codec is None:
        raise unknown_codec_fault()
    stream.codec_context.thread_count = 1
    return ProbedRecording(
        container=container,
        codec=codec,
        rate_hz=stream.rate or 0,
        channels=stream.channels,
        declared_frames=_declared_frames(container, stream),
        blocks=lambda: _libav_blocks(media, stream, codec),
    )


def _declared_frames(container: str, stream: Any) -> int | None:
    if container in _GUESSED_LENGTHS or not stream.duration or not stream.time_base:
        return None
    return round(stream.duration * stream.time_base * stream.rate) if stream.rate else None


def _libav_blocks(media: Any, stream: Any, codec: str) -> Iterator[DecodedBlock]:
    """A packet that cannot be decoded is skipped, as players do; too many of them are a broken file. Raises Fault."""
    packets = damaged = 0
    try:
        for packet in media.demux(stream):
            packets += 1
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                damaged += 1
                if damaged >= _GIVE_UP_DAMAGED and 2 * damaged > packets:
                    raise undecodable_fault() from None
                continue
            yield from (_block(frame, stream) for frame in frames)
            if not frames:
                yield _empty_block(stream)  # so that the check of the pace is made
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise _libav_fault(error) from None
    allowed = 0 if is_lossless(codec) else max(2, packets * _MOST_DAMAGED)
    if damaged > allowed:
        raise undecodable_fault()


def _empty_block(stream: Any) -> DecodedBlock:
    return np.empty((0, stream.channels), np.float32)


def _libav_fault(error: Exception) -> Fault:
    return resource_fault() if getattr(error, "errno", None) == errno.ENOMEM else undecodable_fault()


def _block(frame: Any, stream: Any) -> DecodedBlock:
    if (frame.sample_rate, frame.layout.nb_channels) != (stream.rate, stream.channels):
        raise Fault(
            FaultCode.UNSUPPORTED_FORMAT,
            "The recording changes its sample rate or its channels midway. Export it as one WAV or FLAC.",
        )
    samples = frame.to_ndarray()
    block: DecodedBlock = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    return block
