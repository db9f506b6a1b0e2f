"""A stranger's ID3 tag: what honest ones say is read as before, and hostile ones cost neither memory nor time."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib

import mutagen.id3
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from mutagen.id3 import APIC, COMM, ID3, TALB, TIT2, TPE1, TXXX

from mastering.audio import decode, tags
from mastering.audio.id3_frames import Wanted, wanted_frames
from mastering.audio.riff import FileBytes
from mastering.audio.tag_allowance import Allowance

MIB = 1 << 20
SOUND = np.random.default_rng(0).uniform(-0.3, 0.3, (44_100, 2)).astype(np.float32)


def _file(container: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SOUND, 44_100, format=container)
    return file.getvalue()


MP3, WAV, AIFF = _file("MP3"), _file("WAV"), _file("AIFF")


def _syncsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def _tag(frames: bytes, version: int = 3, flags: int = 0) -> bytes:
    return b"ID3" + bytes((version, 0, flags)) + _syncsafe(len(frames)) + frames


def _frame(name: bytes, content: bytes, version: int = 3, flags: int = 0) -> bytes:
    size = _syncsafe(len(content)) if version == 4 else struct.pack(">I", len(content))
    return name + size + struct.pack(">H", flags) + content


def _in_wav(tag: bytes) -> bytes:
    whole = WAV + b"id3 " + struct.pack("<I", len(tag)) + tag
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


def _in_aiff(tag: bytes) -> bytes:
    whole = AIFF + b"ID3 " + struct.pack(">I", len(tag)) + tag
    return whole[:4] + struct.pack(">I", len(whole) - 8) + whole[8:]


BOMB = zlib.compress(bytes(512 * MIB), 9)
"""Half a megabyte."""
TITLE = _frame(b"TIT2", b"\x00Real")


@pytest.mark.parametrize(
    "song",
    [
        _tag(_frame(b"TPE1", struct.pack(">I", 512 * MIB) + BOMB, flags=0x80) + TITLE) + MP3,
        _tag(_frame(b"TPE1", _syncsafe(99) + BOMB, 4, 0x09) + _frame(b"TIT2", b"\x00Real", 4), 4) + MP3,
        _tag(_frame(b"TPE1", _syncsafe(99) + BOMB, 4, 0x08) + _frame(b"TIT2", b"\x00Real", 4), 4) + MP3,
        _in_wav(_tag(TITLE + _frame(b"APIC", struct.pack(">I", 512 * MIB) + BOMB, flags=0x80))),
        _in_aiff(_tag(TITLE + _frame(b"COMM", struct.pack(">I", 512 * MIB) + BOMB, flags=0x80))),
    ],
    ids=["mp3, 2.3", "mp3, 2.4", "mp3, 2.4 without a length", "wav", "aiff"],
)
def test_a_compressed_frame_is_never_inflated(song: bytes) -> None:
    tracemalloc.start()
    try:
        found = tags.read(io.BytesIO(song))
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert found.texts == {"title": ("Real",)}


@pytest.mark.parametrize(
    "frames",
    [
        TITLE + b"".join(_frame(b"TXXX", b"\x00%x\x00" % at) for at in range(400_000)),
        TITLE + _frame(b"TXXX", b"") * 700_000,
        TITLE + b"\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00" * 700_000,
    ],
    ids=["tiny frames", "empty frames", "frames without a name"],
)
def test_a_tag_of_many_frames_takes_time_neither_to_read_nor_to_decode_behind(frames: bytes) -> None:
    """Megabytes of them took mutagen a minute, and FFmpeg's libraries another."""
    song = io.BytesIO(_tag(frames) + MP3)
    began = time.process_time()
    assert tags.read(song).texts == {"title": ("Real",)}
    recording = decode.open_recording(song)
    assert sum(block.shape[1] for block in recording.decode()) >= len(SOUND)
    assert time.process_time() - began < 5


def test_what_stands_behind_too_many_frames_is_not_looked_for() -> None:
    song = _tag(_frame(b"TXXX", b"\x00a\x00") * 5000 + TITLE) + MP3
    assert tags.read(io.BytesIO(song)).texts == {}


def test_pictures_are_kept_up_to_their_bounds_and_the_rest_is_said() -> None:
    tag = ID3()
    for at, size in enumerate((3, 1000)):
        tag.add(APIC(encoding=3, mime="image/png", type=3 + at, desc=str(at), data=b"x" * size))
    file = io.BytesIO()
    tag.save(file, padding=lambda _: 0)
    found = tags.read(io.BytesIO(file.getvalue() + MP3))
    assert [(one.data, one.type) for one in found.pictures] == [(b"xxx", 3), (b"x" * 1000, 4)]
    huge = _frame(b"APIC", b"\x00image/png\x00\x03\x00" + bytes(17 * MIB))
    many = b"".join(_frame(b"APIC", b"\x00image/png\x00\x03%d\x00x" % at) for at in range(40))
    for frames, kept in ((huge + TITLE, 0), (many + TITLE, 32)):
        found = tags.read(io.BytesIO(_tag(frames) + MP3))
        assert (found.texts, len(found.pictures)) == ({"title": ("Real",)}, kept)
        assert found.remarks == ("Left out of the song's tags: pictures beyond 32, or 16 MiB in all.",)


@given(
    texts=st.dictionaries(st.sampled_from([TIT2, TPE1, TALB]), st.text("aé☃ÿ", min_size=1, max_size=200), max_size=3),
    others=st.lists(st.binary(max_size=300), max_size=5),
    cover=st.none() | st.binary(min_size=1, max_size=400),
    version=st.sampled_from([3, 4]),
    encoding=st.sampled_from([1, 3]),
    is_unsynchronised=st.booleans(),
)
def test_honest_tags_are_read_as_mutagen_reads_them(
    texts: dict[type[mutagen.id3.TextFrame], str],
    others: list[bytes],
    cover: bytes | None,
    version: int,
    encoding: int,
    is_unsynchronised: bool,
) -> None:
    tag = ID3()
    for frame, text in texts.items():
        tag.add(frame(encoding=encoding, text=text))
    for at, other in enumerate(others):
        tag.add(TXXX(encoding=1, desc=str(at), text=other.hex()))
    tag.add(COMM(encoding=encoding, lang="eng", desc="", text="so ÿ"))
    if cover is not None:
        tag.add(APIC(encoding=0, mime="image/jpeg", type=3, desc="", data=cover))
    if version == 3:
        tag.update_to_v23()
    file = io.BytesIO()
    tag.save(file, v2_version=version, padding=lambda _: 5)
    whole = file.getvalue()
    if is_unsynchronised and version == 3:
        body = whole[10:].replace(b"\xff", b"\xff\x00")
        whole = whole[:5] + b"\x80" + _syncsafe(len(body)) + body
    names = {*(frame.__name__ for frame in texts), "COMM", "APIC"}
    sieved = ID3(io.BytesIO(wanted_frames(FileBytes(io.BytesIO(whole + MP3)), 0, Wanted(names), Allowance())))
    expected = ID3(io.BytesIO(whole))
    for frame in (*texts, COMM):
        ours, theirs = sieved.getall(frame.__name__), expected.getall(frame.__name__)
        assert [str(one) for one in ours] == [str(one) for one in theirs]
        assert ours
    pictures = [[picture.data for picture in tag.getall("APIC")] for tag in (sieved, expected)]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == (cover is not None)
    assert not sieved.getall("TXXX")


def test_a_tag_before_another_programs_is_read_and_the_sound_behind_both_is_found() -> None:
    song = io.BytesIO(_tag(TITLE + bytes(70_000)) + _tag(_frame(b"TPE1", b"\x00Other") + bytes(70_000)) + MP3)
    assert tags.read(song).texts == {"title": ("Real",)}
    recording = decode.open_recording(song)
    assert (recording.container, sum(block.shape[1] for block in recording.decode())) == ("mp3", len(SOUND))


def test_a_size_that_itunes_wrote_with_eight_bits_a_byte_is_understood() -> None:
    long = b"\x00" + b"x" * 335  # 0x150: read in seven bits it is 208
    name = b"TIT2" + struct.pack(">IH", len(long), 0)
    song = _tag(name + long + _frame(b"TPE1", b"\x00Who", 4), 4) + MP3
    assert tags.read(io.BytesIO(song)).texts == {"title": ("x" * 335,), "artist": ("Who",)}


def test_names_of_version_2_2_are_read() -> None:
    frames = b"TT2" + (5).to_bytes(3, "big") + b"\x00Real" + b"TXX" + (4).to_bytes(3, "big") + b"\x00a\x00b"
    assert tags.read(io.BytesIO(_tag(frames, 2) + MP3)).texts == {"title": ("Real",)}


def test_a_tag_of_version_1_is_read() -> None:
    last = b"TAG" + b"Old".ljust(30, b"\0") + b"Who".ljust(30, b"\0") + bytes(65)
    assert tags.read(io.BytesIO(MP3 + last)).texts["title"] == ("Old",)


def test_a_file_of_comments_is_read_up_to_a_bound_alone() -> None:
    song = io.BytesIO(_file("FLAC"))
    flac = mutagen.File(song)
    flac["title"] = "Real"
    song.seek(0)
    flac.save(song)
    assert tags.read(song).texts == {"title": ("Real",)}
    song.seek(0)
    flac["title"] = "x" * (65 * 1024)
    flac["artist"] = "Who"
    flac.save(song)
    assert tags.read(song).texts == {"artist": ("Who",)}
