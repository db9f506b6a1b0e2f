"""Which library decodes a container: libsndfile WAV and AIFF, FFmpeg's libraries all that is coded.

libsndfile refuses a FLAC of unknown length and an Opus with a picture, and guesses the length of an MP3 from its size.
"""

from __future__ import annotations

import os

from mastering.probe.growing_file import GrowingFile
from mastering.probe.libav_decoder import open_with_libav
from mastering.probe.recording import ProbedRecording
from mastering.probe.sndfile_decoder import open_with_sndfile

_READ_BY_SNDFILE = frozenset({"wav", "aiff"})


def open_recording(container: str, source: int, file: GrowingFile) -> ProbedRecording:
    """Open a `container` that arrives as `file` in the memory file `source`. Raises Fault."""
    os.lseek(source, 0, os.SEEK_SET)
    if container in _READ_BY_SNDFILE:
        return open_with_sndfile(container, source, file)
    return open_with_libav(container, file)
