"""The codings of sound that are read, by the names of FFmpeg's decoders: the engine and the probe know the same ones.

An allow-list: FFmpeg has some two hundred decoders, and every one is a door.
"""

from __future__ import annotations

CODECS = {
    "aac": "aac",
    "ac3": "ac3",
    "alac": "alac",
    "eac3": "eac3",
    "flac": "flac",
    "mp3": "mp3",
    "mp3float": "mp3",
    "opus": "opus",
    "pcm_f32be": "float_32",
    "pcm_f32le": "float_32",
    "pcm_s16be": "pcm_16",
    "pcm_s16le": "pcm_16",
    "pcm_s24be": "pcm_24",
    "pcm_s24le": "pcm_24",
    "pcm_s32be": "pcm_32",
    "pcm_s32le": "pcm_32",
    "vorbis": "vorbis",
    "wmalossless": "wma_lossless",
    "wmapro": "wma",
    "wmav1": "wma",
    "wmav2": "wma",
}
"""FFmpeg's name → ours."""

LOSSLESS = frozenset({"alac", "flac", "wma_lossless", "float_32", "float_64", *(f"pcm_{n}" for n in (8, 16, 24, 32))})
