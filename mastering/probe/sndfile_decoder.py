"""Containers of PCM by libsndfile, for the probe; `audio.pcm` reads most samples of WAV, in a quarter of the time.

A WAV in which nothing stands behind its audio is opened as soon as its head has arrived; any other when all has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from mastering.audio import pcm, refusals
from mastering.audio.codecs import SNDFILE_CODECS
from mastering.audio.header_patches import header_patches
from mastering.audio.riff import last_wav_audio
from mastering.contract import Fault
from mastering.probe.growing_file import GrowingFile
from mastering.probe.recording import DecodedBlock, ProbedRecording

_BLOCK_FRAMES = 65_536
"""A second and a half: what is decoded between two checks of the time that it takes."""
_PLAIN_BLOCK_FRAMES = 16_384
"""Small enough to stay in a processor's cache; and of whole numbers the first sound settles what the file is."""
_UNKNOWN_FRAMES = 1 << 48
"""libsndfile's count for a stream that does not say its length is larger than this."""
_OUT_OF_MEMORY = 17
"""SFE_MALLOC_FAILED."""
_NATIVE = {"pcm_8": np.int16, "pcm_16": np.int16, "pcm_24": np.int32, "pcm_32": np.int32}
"""What libsndfile hands out without converting it; all else as float32."""
_SAMPLE_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1}
"""Of a sample in a WAV, by subtype; not of ADPCM, where it is no whole number."""
_WIDEST_SAMPLE_BYTES = 8
_READ_AHEAD_BYTES = 64 * 1024
"""What libsndfile may take beyond the samples it was asked for: a block of ADPCM, say."""


def open_with_sndfile(container: str, source: int, file: GrowingFile) -> ProbedRecording | None:
    """Open a `container` that arrives as `file` in the memory file `source`; None in a coding that libsndfile does not
    read. Raises Fault."""
    audio = last_wav_audio(file.data)
    if audio is None:
        file.wait_for_all()
    sound = _opened(container, source, file)
    is_last_audio = sound is not None and audio is not None and _has_audio_at(sound, source, *audio)
    if not is_last_audio and not file.is_whole:
        file.wait_for_all()
        sound = _opened(container, source, file)
    if sound is None or sound.subtype not in SNDFILE_CODECS:
        return None
    return ProbedRecording(
        container=container,
        codec=SNDFILE_CODECS[sound.subtype],
        rate_hz=sound.samplerate,
        channels=sound.channels,
        declared_frames=sound.frames if 0 < sound.frames < _UNKNOWN_FRAMES else None,
        blocks=lambda: _sndfile_blocks(sound, source, file),
        is_settled=is_last_audio and pcm.is_plain(sound),
    )


def _opened(container: str, source: int, file: GrowingFile) -> Any:
    """None where libsndfile does not know the coding, or the file. Raises Fault(resource_limit)."""
    if file.is_whole:
        for at, content in header_patches(container, file.data):
            file.data[at : at + len(content)] = content
    os.lseek(source, 0, os.SEEK_SET)
    try:
        return soundfile.SoundFile(source, closefd=False)
    except soundfile.LibsndfileError as error:
        if error.code == _OUT_OF_MEMORY:
            raise refusals.demanding_song() from None
        return None


def _has_audio_at(sound: Any, source: int, at: int, size: int) -> bool:
    """Whether libsndfile too finds the audio in `size` bytes from `at` on: what still comes cannot change it then."""
    frame_bytes = sound.channels * _SAMPLE_BYTES.get(sound.subtype, 0)
    if not frame_bytes:
        return False
    sound.seek(0)  # which leaves its descriptor at the first sample
    return (os.lseek(source, 0, os.SEEK_CUR), int(sound.frames)) == (at, size // frame_bytes)


def _sndfile_blocks(sound: Any, source: int, file: GrowingFile) -> Iterator[DecodedBlock]:
    if pcm.is_plain(sound) or pcm.is_plain_float(sound):
        yield from _plain_blocks(sound, source, file)
        return
    buffer = np.empty((_BLOCK_FRAMES, sound.channels), _NATIVE.get(SNDFILE_CODECS[sound.subtype], np.float32))
    most_bytes = _BLOCK_FRAMES * sound.channels * _WIDEST_SAMPLE_BYTES + _READ_AHEAD_BYTES
    while True:
        file.wait_for(os.lseek(source, 0, os.SEEK_CUR) + most_bytes)
        file.take_arrived()
        try:
            block = sound.read(out=buffer)
        except soundfile.LibsndfileError as error:
            raise _sndfile_fault(error) from None
        if not len(block):
            return
        yield block


def _plain_blocks(sound: Any, source: int, file: GrowingFile) -> Iterator[DecodedBlock]:
    """Samples are read once, as they arrive: none of them is asked for again."""
    sound.seek(0)  # which leaves its descriptor at the first sample
    at = os.lseek(source, 0, os.SEEK_CUR)

    def read_into(target: memoryview) -> int:
        nonlocal at
        count = file.read_unkept(at, target)
        at += count
        return count

    read = pcm.floats if pcm.is_plain_float(sound) else pcm.whole_numbers
    yield from read(sound, read_into, _PLAIN_BLOCK_FRAMES)


def _sndfile_fault(error: Any) -> Fault:
    return refusals.demanding_song() if error.code == _OUT_OF_MEMORY else refusals.undecodable_song()
