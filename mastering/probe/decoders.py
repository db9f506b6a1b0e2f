"""Which library decodes a container: libsndfile those of PCM, FFmpeg's libraries all that is coded.

libsndfile refuses a FLAC of unknown length and an Opus with a picture, guesses the length of an MP3 from its size, and
stops at the first link of a chained Ogg.
"""

from __future__ import annotations

from mastering.audio.codecs import READ_BY_SNDFILE
from mastering.probe.growing_file import GrowingFile
from mastering.probe.libav_decoder import open_with_libav
from mastering.probe.recording import ProbedRecording
from mastering.probe.sndfile_decoder import open_with_sndfile


def open_recording(container: str, source: int, file: GrowingFile) -> ProbedRecording:
    """Open a `container` that arrives as `file` in the memory file `source`. Raises Fault."""
    recording = open_with_sndfile(container, source, file) if container in READ_BY_SNDFILE else None
    return recording or open_with_libav(container, file)
