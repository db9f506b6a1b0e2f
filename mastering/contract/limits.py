"""The limits of what is mastered: one table for the probe, the engine, the worker and the router.

Each with its unit in the name and why it has this value. Where two of them must agree, they stand here once.
"""

from __future__ import annotations

MIN_DURATION_S = 1.0
"""Loudness is measured in blocks of 0.4 s (ITU-R BS.1770-5), and nothing shorter than this is a song."""
MAX_DURATION_S = 90 * 60
"""An album or a concert in one file. What decoding, rendering and storing may take is reckoned from it."""
MAX_INPUT_BYTES = 512 * 1024 * 1024
"""Of a song, and of each reference: half an hour of 24-bit stereo at 44.1 kHz as WAV, an hour as FLAC."""
MIN_RATE_HZ = 8_000
"""The lowest that MP3 and AAC know, so that every song can have a master in its own rate."""
MAX_RATE_HZ = 192_000
"""The highest in common use: songs at twice as much take twice the time and memory, and nobody hears more."""
MAX_CHANNELS = 2
"""Mono and stereo: the chain works on mid and side."""

SILENCE_DBFS = -80.0
"""A recording whose highest sample is below this is silent. Nothing of it could pass the −70 LUFS gate of ITU-R
BS.1770-5, so it has no loudness to be mastered to; the dither of 16 bits (some −90 dBFS) alone is silence."""
BEYOND_SOUND_DBFS = 120.0
"""A sample beyond this is no sound, and refused together with NaN and infinity: a float file may hold +20 dBFS by
mistake, not a million times full scale."""

MAX_SIZE_ERROR_BYTES = 8
"""By so many bytes honest writers get the size of a file's audio wrong; more than that is a missing end."""
MAX_MISSING_PACKET_FRAMES = 4608
"""Audio frames that a recording in packets may lack against its header: four of an MP3, or one of ALAC (4096) and a
little, since the first or the last may be incomplete."""
MAX_MISSING_LOSSY_SHARE = 0.001
"""The same for long ones: the length of a lossy stream is told by time stamps, which may have gaps where it was cut."""
