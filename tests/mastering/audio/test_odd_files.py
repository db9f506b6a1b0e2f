"""Files as pipes, cutting programs and broken transfers leave them: the right length or a refusal, the same by both."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest

from mastering.audio import decode, loading, ogg, wavpack
from mastering.audio.decode import Recording
from mastering.contract import Fault, FaultCode, OutputFormat, Settings
from tests.hostile_audio import encoded, noise, written
from tests.mastering.probe.test_probe import ForkServerProcess
from tests.mastering.sound import master, music, wav
from tests.odd_files import ODD_FILES, OPEN, OddFile


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServerProcess]:
    fork_server = ForkServerProcess()
    yield fork_server
    fork_server.control.close()
    assert fork_server.process.wait(20) == 0


def _by_engine(data: bytes) -> tuple[int | FaultCode, tuple[str, ...]]:
    """Frames or the code of its refusal, and remarks."""
    try:
        song = decode.open_recording(io.BytesIO(data))
        frames = sum(block.shape[1] for block in loading.checked_blocks(song, lambda frames: None))
    except Fault as fault:
        return fault.code, ()
    return frames, song.remarks


def _by_probe(fork_server: ForkServerProcess, data: bytes) -> int | FaultCode:
    """The same of the file as it arrives."""
    said = fork_server.probe(data, size=len(data))
    return FaultCode(said["fault"]["code"]) if "fault" in said else int(said["ok"]["frames"])


def _is_right(file: OddFile, found: int | FaultCode) -> bool:
    return found in file.refused if isinstance(found, FaultCode) else found == file.frames


def test_the_corpus_is_as_large_as_was_asked_for() -> None:
    assert len(ODD_FILES) >= 60
    assert all((file.frames is None) == bool(file.refused) for file in ODD_FILES.values())


@pytest.mark.parametrize("name", ODD_FILES)
def test_an_odd_file_has_its_right_length_or_is_refused_by_both(fork_server: ForkServerProcess, name: str) -> None:
    file = ODD_FILES[name]
    data = file.make()
    (found, remarks), probed = _by_engine(data), _by_probe(fork_server, data)
    assert _is_right(file, found), (found, file.frames, file.refused)
    assert probed == found
    assert file.remark is None or any(file.remark in remark for remark in remarks)
    assert file.remark is not None or not remarks


def test_the_links_of_a_chain_are_decoded_as_they_are_alone() -> None:
    first, second = (written(noise(seconds), kind="OGG", subtype="VORBIS") for seconds in (1.5, 1.2))
    alone = [_samples(first), _samples(second)]
    assert np.array_equal(_samples(first + second), np.concatenate(alone, axis=1))


def _samples(data: bytes) -> np.ndarray:
    return np.concatenate(list(decode.open_recording(io.BytesIO(data)).decode()), axis=1)


def test_a_recording_is_decoded_the_same_each_time_and_by_several_at_once() -> None:
    song = decode.open_recording(io.BytesIO(2 * encoded("ogg", "libopus")))
    first, *others = (
        np.concatenate(list(read()), axis=1) for read in (song.decode, song.decode, song.decode_in_parallel)
    )
    assert all(np.array_equal(first, other) for other in others)


def test_what_could_not_be_known_of_a_song_is_in_its_report() -> None:
    whole = bytearray(wav(music(seconds=2), subtype="PCM_16"))
    whole[4:8] = whole[40:44] = bytes(4)
    report, _ = master(bytes(whole), Settings(outputs=(OutputFormat.WAV16,)))
    assert report.before.frames == 88_200
    assert any(OPEN in flag for flag in report.flags)


def _promising(frames: int, blocks: int) -> Recording:
    """A recording of `blocks` seconds whose header promises `frames`."""

    def decoded() -> Iterator[np.ndarray]:
        for _ in range(blocks):
            yield noise(1.0).T.copy()

    return Recording("mp3", "mp3", 44_100, 2, frames, frames, True, decoded, decoded)


@pytest.mark.parametrize("promised", [0, 1, 44_100, 50_000])
def test_a_header_that_promises_too_few_frames_costs_no_frame(promised: int) -> None:
    audio = loading.load(_promising(promised, 7), keep_samples=10**7, tick=lambda frames: None)
    assert audio.frames == 7 * 44_100
    assert sum(block.shape[1] for block in audio.read()) == 7 * 44_100
    assert audio.samples is not None
    assert np.array_equal(audio.samples[:, -44_100:], noise(1.0).T)


def test_what_proves_longer_than_may_be_kept_is_let_go() -> None:
    audio = loading.load(_promising(44_100, 7), keep_samples=2 * 6 * 44_100, tick=lambda frames: None)
    assert (audio.frames, audio.samples) == (7 * 44_100, None)


def test_a_wavpack_file_of_too_many_blocks_is_not_read_to_its_end() -> None:
    """Each of 32 bytes, whole in itself, and none of a sample."""
    block = b"wvpk" + (24).to_bytes(4, "little") + bytes(16) + (0x1800).to_bytes(8, "big")
    assert not wavpack.read_blocks(block * 100_001).is_plain
    assert wavpack.read_blocks(block * 99_999).is_plain


def test_pages_that_are_no_pages_are_looked_at_once() -> None:
    """Marks alone: no page that they begin is whole."""
    marks = b"OggS\0\2" * 10_000
    first = written(noise(), kind="OGG", subtype="VORBIS")
    found = ogg.links(first + marks)
    assert found is None or found[0][0] == 0
