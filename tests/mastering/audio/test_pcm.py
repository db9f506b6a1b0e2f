"""WAV samples by numpy, beside what libsndfile makes of the same bytes."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from mastering.audio import decode, encode, pcm
from mastering.contract import OutputFormat
from mastering.dsp.dither import quantise
from mastering.dsp.stream import BLOCK_FRAMES, stored
from tests.mastering.sound import music

RATE_HZ = 44_100


def _numbers(frames: int, channels: int, seed: int = 1) -> NDArray[np.int32]:
    """Whole numbers of 32 bits with the extremes among them."""
    numbers = np.random.default_rng(seed).integers(-(2**31), 2**31, (frames, channels)).astype(np.int32)
    numbers[:3] = np.array([-(2**31), 2**31 - 1, 0])[: min(3, frames), None]
    return numbers


def _decoded(data: bytes) -> NDArray[np.float32]:
    recording = decode.open_recording(io.BytesIO(data))
    return np.concatenate(list(recording.decode()), axis=1)


def _with_chunk(data: bytes, name: bytes, content: bytes) -> bytes:
    """`data` with one more chunk before its samples."""
    at = data.index(b"data")
    chunk = name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    return data[:4] + struct.pack("<I", len(data) - 8 + len(chunk)) + data[8:at] + chunk + data[at:]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [RATE_HZ, BLOCK_FRAMES, BLOCK_FRAMES + 1])
def test_it_decodes_what_libsndfile_decodes(subtype: str, container: str, channels: int, frames: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, _numbers(frames, channels), RATE_HZ, format=container, subtype=subtype)
    file.seek(0)
    expected, _ = soundfile.read(file, dtype="float32", always_2d=True)
    with soundfile.SoundFile(io.BytesIO(file.getvalue())) as opened:
        assert pcm.is_plain(opened)
    found = _decoded(file.getvalue())
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.T)


def test_samples_after_other_chunks_and_before_others_are_found() -> None:
    file = io.BytesIO()
    soundfile.write(file, _numbers(RATE_HZ, 1), RATE_HZ, format="WAV", subtype="PCM_24")
    whole = _with_chunk(file.getvalue(), b"note", b"an odd number of bytes.")
    whole += b"LIST" + struct.pack("<I", 4) + b"INFO"
    expected, _ = soundfile.read(io.BytesIO(whole), dtype="float32", always_2d=True)
    assert np.array_equal(_decoded(whole), expected.T)


def test_big_endian_samples_are_left_to_libsndfile() -> None:
    file = io.BytesIO()
    soundfile.write(file, _numbers(RATE_HZ, 2), RATE_HZ, format="WAV", subtype="PCM_24", endian="BIG")
    with soundfile.SoundFile(io.BytesIO(file.getvalue())) as opened:
        assert not pcm.is_plain(opened)


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [1, BLOCK_FRAMES, BLOCK_FRAMES + 1])
def test_floats_are_read_as_they_are(container: str, channels: int, frames: int) -> None:
    samples = np.random.default_rng(1).standard_normal((frames, channels)).astype(np.float32) * 100
    samples[0, 0] = np.nan
    samples[-1, -1] = np.inf if frames > 1 else np.nan
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format=container, subtype="FLOAT")
    source = io.BytesIO(file.getvalue())
    with soundfile.SoundFile(source) as opened:
        assert pcm.is_plain_float(opened)
        found = np.concatenate([block.copy() for block in pcm.floats(opened, source.readinto)])
    assert found.tobytes() == samples.tobytes()


def test_floats_that_end_early_are_those_that_are_there() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.ones((1000, 2), np.float32), RATE_HZ, format="WAV", subtype="FLOAT")
    source = _Slow(file.getvalue()[:-5])
    with soundfile.SoundFile(source) as opened:
        assert sum(len(block) for block in pcm.floats(opened, source.readinto, 64)) == 999


@pytest.mark.parametrize(
    ("subtype", "how"),
    [("DOUBLE", {}), ("PCM_24", {}), ("FLOAT", {"endian": "BIG"}), ("FLOAT", {"format": "AIFF"})],
)
def test_other_samples_are_no_plain_floats(subtype: str, how: dict[str, str]) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.ones((10, 1)), RATE_HZ, **{"format": "WAV", "subtype": subtype, **how})
    file.seek(0)
    with soundfile.SoundFile(file) as opened:
        assert not pcm.is_plain_float(opened)


class _Slow(io.BytesIO):
    """A file that hands out a few bytes at a time, as a pipe or a socket may."""

    def readinto(self, buffer: object) -> int:
        return super().readinto(memoryview(buffer)[:1000])  # type: ignore[call-overload]


def test_a_file_that_gives_little_at_a_time_is_read_whole() -> None:
    file = io.BytesIO()
    soundfile.write(file, _numbers(RATE_HZ, 2), RATE_HZ, format="WAV", subtype="PCM_24")
    with soundfile.SoundFile(source := _Slow(file.getvalue())) as opened:
        found = np.concatenate(list(pcm.decoded(opened, source)), axis=1)
    assert np.array_equal(found, _decoded(file.getvalue()))


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [BLOCK_FRAMES + 776, BLOCK_FRAMES + 777])
def test_a_wav_has_the_bytes_that_libsndfile_writes(bits: int, channels: int, frames: int) -> None:
    """Of the same numbers, the byte that evens out an odd number of bytes included."""
    song = stored(music(seconds=2.0)[:channels, :frames].astype(np.float32), RATE_HZ)
    ours, theirs = io.BytesIO(), io.BytesIO()
    kind = {16: OutputFormat.WAV16, 24: OutputFormat.WAV24}[bits]
    encode.encode(song, kind, ours, seed=7, tick=lambda frames: None)
    numbers = [quantise(block, bits, seed=7, index=index).T for index, block in enumerate(song.read())]
    soundfile.write(theirs, np.concatenate(numbers), RATE_HZ, format="WAV", subtype=f"PCM_{bits}")
    assert ours.getvalue() == theirs.getvalue()


def test_what_the_blocks_raise_comes_out_and_the_target_stays_usable() -> None:
    def blocks() -> Iterator[NDArray[np.int32]]:
        yield np.zeros((2, 8), np.int32)
        raise KeyboardInterrupt

    target = io.BytesIO()
    with pytest.raises(KeyboardInterrupt):
        pcm.write(target, blocks(), RATE_HZ, 2, 24)
    assert not target.closed
