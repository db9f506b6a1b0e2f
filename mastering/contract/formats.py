"""Formats of a master: their names, extensions and media types, and what their coders know."""

from __future__ import annotations

from enum import StrEnum

CODER_PADDING_FRAMES = 8192
"""Audio frames by which a lossy master, once decoded, may be longer or shorter than the song: coders pad the first and
the last of their packets (AAC by 2112 and up to 1024, MP3 by 1105 and up to 1152), and decoders differ in what they
take off again."""


class OutputFormat(StrEnum):
    """What a master can be delivered as."""

    WAV24 = "wav24"
    WAV16 = "wav16"
    WAV32F = "wav32f"
    FLAC = "flac"
    ALAC = "alac"
    MP3 = "mp3"
    MP3V0 = "mp3v0"
    AAC = "aac"
    OPUS = "opus"
    VORBIS = "vorbis"

    @property
    def extension(self) -> str:
        return _FORMATS[self.value][0]

    @property
    def label(self) -> str:
        return _FORMATS[self.value][1]

    @property
    def media_type(self) -> str:
        return _MEDIA_TYPES[self.extension]

    @property
    def is_lossy(self) -> bool:
        """Its decoded length may differ from the song's by CODER_PADDING_FRAMES, and its peaks are the coder's."""
        return self.value in ("mp3", "mp3v0", "aac", "opus", "vorbis")

    @property
    def added_work(self) -> float:
        """Processor time that this format adds to a master; 1 is a whole master as 24-bit WAV."""
        return _ADDED_WORK[self.value]

    def rate_hz(self, song_rate_hz: int) -> int:
        """The sample rate that this format has for a song of `song_rate_hz`: coders know only some."""
        known = _CODER_RATES_HZ.get(self.value)
        return song_rate_hz if known is None or song_rate_hz in known else 48_000


_FORMATS = {
    "wav24": ("wav", "WAV, 24 bit"),
    "wav16": ("wav", "WAV, 16 bit"),
    "wav32f": ("wav", "WAV, 32 bit float"),
    "flac": ("flac", "FLAC"),
    "alac": ("m4a", "Apple Lossless"),
    "mp3": ("mp3", "MP3, 320 kbit/s"),
    "mp3v0": ("mp3", "MP3, variable (V0)"),
    "aac": ("m4a", "AAC, 256 kbit/s"),
    "opus": ("opus", "Opus, 192 kbit/s"),
    "vorbis": ("ogg", "Ogg Vorbis"),
}
_MEDIA_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "ogg": "audio/ogg",
}
_ADDED_WORK = {
    "wav24": 0.65,
    "wav16": 0.65,
    "wav32f": 0.65,
    "flac": 0.3,
    "alac": 0.7,
    "mp3": 1.9,
    "mp3v0": 1.8,
    "aac": 3.5,
    "opus": 3.0,
    "vorbis": 1.7,
}
"""Encoding, reading back and what a lossy coder's ceiling is tried for (`make bench`)."""
_MPEG_RATES_HZ = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})
_CODER_RATES_HZ = {
    "mp3": _MPEG_RATES_HZ,
    "mp3v0": _MPEG_RATES_HZ,
    "aac": _MPEG_RATES_HZ | {64000, 88200, 96000},
    "opus": frozenset({48000}),
}
