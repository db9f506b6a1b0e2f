"""Coded audio by FFmpeg's libraries, for the probe and the engine: what is opened, which stream, how it is decoded.

One demuxer, by the container; no protocol, so that a file that names other files gets none of them; one thread; no tag
in front, in which the libraries take time by the square of its fields. A packet of a lossy stream that cannot be
decoded is stepped over, as players do; too many of them are a broken file.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import av
from av.codec.context import Flags2
from av.stream import Disposition

from mastering.audio import ogg, refusals, wavpack
from mastering.audio.codecs import DEMUXERS, READ_BY_SNDFILE, is_lossless, libav_codec
from mastering.audio.container import audio_start
from mastering.audio.raw_frames import xing_frames
from mastering.audio.riff import RandomAccessBytes
from mastering.audio.truncation import is_broadcast
from mastering.contract import Fault

_MOST_DAMAGED = 0.01
"""Share of a lossy file's packets that may fail: some junk at its end makes it no broken file."""
_GIVE_UP_DAMAGED = 64
"""So many damaged packets, if they are most of those seen, are no recording: a file may hold millions of them."""
_GUESSED_LENGTHS = frozenset({"mp3", "mp2", "aac", "ac3", "eac3", *READ_BY_SNDFILE})
"""Containers whose length FFmpeg's libraries guess from the file's size, where a coded stream is inside."""

OpenReader = Callable[[int, int], Any]
"""A file object that shows the bytes from one place to another."""


Link = tuple[int, int]
"""First byte, and first byte behind, of what is decoded as a file of its own."""


@dataclass(frozen=True)
class _Header:
    """What one link says of itself."""

    codec: str
    rate_hz: int
    channels: int
    declared_frames: int | None
    guessed_frames: int | None
    streams: int
    stream: int


class CodedAudio:
    """A recording of one link, or of a chain of them that have rate and channels in common.

    Raises Fault: unsupported_format, undecodable, resource_limit.
    """

    def __init__(self, open_reader: OpenReader, container: str, data: RandomAccessBytes) -> None:
        """Reads the headers of a `container`, all of whose bytes are in `data` or will be when they are asked for."""
        self._open_reader, self._container, self._data = open_reader, container, data
        self._links = _links(container, data)
        first = self._open(self._links[0])
        self._unused = [first]
        headers = [self._header(first, self._links[0]), *map(self._header_of, self._links[1:])]
        head = headers[0]
        if any((one.rate_hz, one.channels) != (head.rate_hz, head.channels) for one in headers):
            raise refusals.changing_song()
        self.codec, self.rate_hz, self.channels = head.codec, head.rate_hz, head.channels
        self.declared_frames = _sum([one.declared_frames for one in headers])
        self.guessed_frames = _sum([one.guessed_frames for one in headers])
        """The same, or a guess by the file's size."""
        self.streams, self.stream = head.streams, head.stream
        """Of audio: how many the file has, and which of them this is, from 0."""

    def packets(self) -> Iterator[list[Any]]:
        """The decoded frames of each packet; none for a packet that only filled the decoder."""
        for number, link in enumerate(self._links):
            is_open = number == 0 and self._unused
            with self._unused.pop() if is_open else self._open(link) as media:
                yield from self._packets_of(media)

    def _packets_of(self, media: Any) -> Iterator[list[Any]]:
        stream = _chosen(media)
        if self._container == "caf" and self.codec == "alac":
            # What the last packet lacks the decoder has left out already; the demuxer asks for it once more.
            stream.codec_context.flags2 |= Flags2.skip_manual
        count = damaged = 0
        for packet in _demuxed(media, stream):
            count += 1
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                damaged += 1
                if damaged >= _GIVE_UP_DAMAGED and 2 * damaged > count:
                    raise refusals.undecodable_song() from None
                continue
            except (av.FFmpegError, ValueError) as error:
                raise _fault(error) from None
            for frame in frames:
                if (frame.sample_rate, frame.layout.nb_channels) != (self.rate_hz, self.channels):
                    raise refusals.changing_song()
            yield frames
        if damaged > (0 if is_lossless(self.codec) else max(2, count * _MOST_DAMAGED)):
            raise refusals.undecodable_song()

    def _open(self, link: Link) -> Any:
        try:
            return av.open(
                self._open_reader(*link),
                format=DEMUXERS[self._container],
                container_options={"protocol_whitelist": "none"},
                metadata_errors="ignore",
            )
        except (av.FFmpegError, ValueError, EOFError) as error:
            raise _fault(error) from None

    def _header_of(self, link: Link) -> _Header:
        with self._open(link) as media:
            return self._header(media, link)

    def _header(self, media: Any, link: Link) -> _Header:
        stream = _chosen(media)
        codec = libav_codec(stream)
        if codec is None:
            raise refusals.unread_coding_song()
        rate_hz, channels = stream.codec_context.sample_rate or 0, stream.codec_context.channels
        guess = round(stream.duration * stream.time_base * rate_hz) if stream.duration and stream.time_base else None
        declared = guess
        if self._container in _GUESSED_LENGTHS or is_broadcast(self._container, self._data):
            declared = xing_frames(self._data, link[0]) if self._container == "mp3" else None
        if self._container == "wavpack":
            blocks = wavpack.read_blocks(self._data, link[0])
            declared = guess = blocks.declared_frames
            codec = "wavpack_hybrid" if blocks.is_hybrid else codec
        streams = media.streams.audio
        return _Header(codec, rate_hz, channels, declared, declared or guess, len(streams), streams.index(stream))


def _links(container: str, data: RandomAccessBytes) -> tuple[Link, ...]:
    start = audio_start(data)
    if container == "wavpack":
        blocks = wavpack.read_blocks(data, start)
        if not blocks.is_plain:
            raise refusals.unsupported_song(
                "This WavPack file has more than two channels, or is in too many pieces. Export it as WAV or FLAC."
            )
        return ((start, blocks.end),)
    if container != "ogg":
        return ((start, len(data)),)
    chain = ogg.links(data, start)
    if chain is None:
        raise refusals.unsupported_song(
            f"This Ogg file is a chain of more than {ogg.MAX_LINKS} recordings. Export it as one WAV or FLAC."
        )
    return tuple(chain)


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _chosen(media: Any) -> Any:
    """The audio stream that the file marks as its default one, or the first. Raises Fault(unsupported_format)."""
    streams = media.streams.audio
    if not streams:
        raise refusals.soundless_song()
    stream = next((one for one in streams if one.disposition & Disposition.default), streams[0])
    if stream.codec_context is not None:
        stream.codec_context.thread_count = 1
    return stream


def _demuxed(media: Any, stream: Any) -> Iterator[Any]:
    try:
        yield from media.demux(stream)
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise _fault(error) from None


def _fault(error: Exception) -> Fault:
    is_memory = getattr(error, "errno", None) == errno.ENOMEM
    return refusals.demanding_song() if is_memory else refusals.undecodable_song()
