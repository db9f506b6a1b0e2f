"""The codings of sound that are read: one table for the probe and the engine, by the names of the two libraries.

An allow-list: FFmpeg has hundreds of decoders and demuxers, and each is code that meets a stranger's bytes.
"""

from __future__ import annotations

from typing import Any

from mastering.contract.limits import MAX_MISSING_LOSSY_SHARE, MAX_MISSING_PACKET_FRAMES

LIBAV_CODECS = {
    "aac": "aac",
    "ac3": "ac3",
    "alac": "alac",
    "eac3": "eac3",
    "flac": "flac",
    "mp3": "mp3",
    "mp3float": "mp3",
    "mp2": "mp2",
    "mp2float": "mp2",
    "opus": "opus",
    "pcm_alaw": "a_law",
    "pcm_f32be": "float_32",
    "pcm_f32le": "float_32",
    "pcm_f64be": "float_64",
    "pcm_f64le": "float_64",
    "pcm_mulaw": "mu_law",
    "pcm_s16be": "pcm_16",
    "pcm_s16le": "pcm_16",
    "pcm_s24be": "pcm_24",
    "pcm_s24le": "pcm_24",
    "pcm_s32be": "pcm_32",
    "pcm_s32le": "pcm_32",
    "pcm_s8": "pcm_8",
    "pcm_u8": "pcm_8",
    "vorbis": "vorbis",
    "wavpack": "wavpack",
    "wmalossless": "wma_lossless",
    "wmapro": "wma",
    "wmav1": "wma",
    "wmav2": "wma",
}
"""FFmpeg's name of a decoder → ours."""

SNDFILE_CODECS = {
    "PCM_S8": "pcm_8",
    "PCM_U8": "pcm_8",
    "PCM_16": "pcm_16",
    "PCM_24": "pcm_24",
    "PCM_32": "pcm_32",
    "FLOAT": "float_32",
    "DOUBLE": "float_64",
    "ULAW": "mu_law",
    "ALAW": "a_law",
    "IMA_ADPCM": "adpcm",
    "MS_ADPCM": "adpcm",
}
"""libsndfile's name of a subtype → ours."""

READ_BY_SNDFILE = frozenset({"wav", "aiff", "w64", "au"})
"""Containers of PCM, which libsndfile reads; where one holds a coded stream, FFmpeg's libraries do."""

DEMUXERS = {
    "wav": "wav",
    "aiff": "aiff",
    "w64": "w64",
    "au": "au",
    "aac": "aac",
    "ac3": "ac3",
    "eac3": "eac3",
    "mp2": "mp3",
    "wavpack": "wv",
    "mp4": "mov",
    "webm": "matroska",
    "flac": "flac",
    "mp3": "mp3",
    "ogg": "ogg",
    "asf": "asf",
    "caf": "caf",
}
"""Container (`container_of`) → FFmpeg's one demuxer for it: a file gets no other, whatever it looks like to FFmpeg."""

_LOSSLESS = frozenset(
    {"alac", "flac", "wavpack", "wma_lossless", "float_32", "float_64", *(f"pcm_{n}" for n in (8, 16, 24, 32))}
)


def libav_codec(stream: Any) -> str | None:
    """Our name for the codec of a PyAV audio stream; None for one that FFmpeg does not know, or that is not listed."""
    context = stream.codec_context
    return None if context is None else LIBAV_CODECS.get(context.name)


def is_lossless(codec: str) -> bool:
    """Whether a recording in `codec` (our name) holds the samples that were encoded."""
    return codec in _LOSSLESS


def allowed_missing_frames(codec: str, declared_frames: int) -> int:
    """How many audio frames an honest recording may lack against its header."""
    if codec == "alac":
        return MAX_MISSING_PACKET_FRAMES
    return 0 if is_lossless(codec) else MAX_MISSING_PACKET_FRAMES + int(declared_frames * MAX_MISSING_LOSSY_SHARE)
