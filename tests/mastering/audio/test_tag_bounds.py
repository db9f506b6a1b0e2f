"""Tags that keep a reader busy: each is read within bounds, the sound's own fields as far as they stand in front."""

from __future__ import annotations

import io
import random
import struct
import time
import tracemalloc
from collections.abc import Callable

import pytest

from mastering.audio import tags
from tests.mastering.audio.tagged_songs import JPEG, SOURCES, plain

MIB = 1 << 20
MOST_S = 3.0
"""Of processor time. Where the tag library read them, six of these took 3 to 33 s and up to half a gigabyte."""
MOST_BYTES = 16 * MIB


def _flac(block: bytes) -> bytes:
    whole = plain("flac")
    return whole[:42] + b"\x04" + len(block).to_bytes(3, "big") + block + whole[42:]


def flac_of_empty_comments() -> bytes:
    count = 4_000_000
    title = b"title=Real"
    first = struct.pack("<I", len(title)) + title
    return _flac(bytes(4) + struct.pack("<I", count + 1) + first + bytes(4 * count))


def flac_of_one_name() -> bytes:
    one = struct.pack("<I", 8) + b"artist=a"
    return _flac(bytes(4) + struct.pack("<I", 1_300_000) + one * 1_300_000)


def ogg_of_tiny_pages() -> bytes:
    """A comment packet that goes on over pages of one byte, each 255 short of an end."""
    whole = plain("opus")
    first = whole[: whole.index(b"OggS", 4)]
    page = b"OggS\0\0" + bytes(8) + first[14:18] + bytes(8) + b"\x01\xff" + b"x" * 255
    return first + page * 80_000 + whole[len(first) :]


def ogg_of_pages_of_others() -> bytes:
    whole = plain("ogg")
    first = whole[: whole.index(b"OggS", 4)]
    return first + (b"OggS\0\0" + bytes(8) + b"none" + bytes(8) + b"\0") * 700_000 + whole[len(first) :]


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def _with_items(items: bytes, before: bytes = b"") -> bytes:
    title = _box(b"\xa9nam", _box(b"data", struct.pack(">II", 1, 0) + b"Real"))
    meta = _box(b"meta", bytes(4) + _box(b"ilst", title + items))
    return _box(b"ftyp", b"M4A \0\0\0\0") + before + _box(b"moov", _box(b"udta", meta))


def mp4_of_empty_values() -> bytes:
    return _with_items(_box(b"\xa9ART", _box(b"data", bytes(8)) * 300_000))


def mp4_of_empty_covers() -> bytes:
    return _with_items(_box(b"covr", _box(b"data", bytes(8)) * 300_000))


def mp4_of_boxes() -> bytes:
    return _with_items(b"", before=_box(b"free", b"") * 600_000)


def mp4_of_nested_boxes() -> bytes:
    return _with_items(b"") + b"".join(struct.pack(">I", 8 * (50_000 - at)) + b"moov" for at in range(50_000))


def mp3_with_an_endless_ape_name() -> bytes:
    item = struct.pack("<II", 1, 0) + b"a" * (4 * MIB)
    footer = b"APETAGEX" + struct.pack("<4I", 2000, len(item) + 32, 1, 0) + bytes(8)
    return plain("mp3") + item + footer


def mp3_with_many_ape_items() -> bytes:
    items = b"".join(struct.pack("<II", 1, 0) + b"%06d\0v" % at for at in range(500_000))
    footer = b"APETAGEX" + struct.pack("<4I", 2000, len(items) + 32, 500_000, 0) + bytes(8)
    return plain("mp3") + items + footer


def _frame(name: bytes, content: bytes) -> bytes:
    return name + struct.pack(">IH", len(content), 0) + content


def _mp3(frames: bytes) -> bytes:
    size = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + frames + plain("mp3")


def mp3_of_wanted_frames_before_a_picture() -> bytes:
    """For each of which the tag library copied the picture."""
    picture = _frame(b"APIC", b"\0image/jpeg\0\3\0" + JPEG + bytes(15 * MIB))
    return _mp3(_frame(b"TIT2", b"\0Real") + _frame(b"TPE1", b"\0a") * 4000 + picture)


def mp3_of_large_frames() -> bytes:
    return _mp3(_frame(b"TIT2", b"\0Real") + b"".join(_frame(b"TPE1", b"\0" + b"x" * 250_000) for _ in range(200)))


def wav_of_info_lists() -> bytes:
    items = b"IART\2\0\0\0a\0" * 100_000
    one = b"LIST" + struct.pack("<I", len(items) + 4) + b"INFO" + items
    whole = plain("wav") + one * 20
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


SONGS: list[Callable[[], bytes]] = [
    flac_of_empty_comments,
    flac_of_one_name,
    ogg_of_tiny_pages,
    ogg_of_pages_of_others,
    mp4_of_empty_values,
    mp4_of_empty_covers,
    mp4_of_boxes,
    mp4_of_nested_boxes,
    mp3_with_an_endless_ape_name,
    mp3_with_many_ape_items,
    mp3_of_wanted_frames_before_a_picture,
    mp3_of_large_frames,
    wav_of_info_lists,
]
UNREAD = (
    "flac_of_one_name", "ogg_of_tiny_pages", "ogg_of_pages_of_others", "mp4_of_boxes", "mp3_with_an_endless_ape_name",
    "mp3_with_many_ape_items", "wav_of_info_lists",
)  # fmt: skip
"""Songs without a title, or with one behind what is given up."""


@pytest.mark.parametrize("song", SONGS, ids=lambda song: song.__name__)
def test_a_tag_that_goes_on_and_on_is_read_within_bounds(song: Callable[[], bytes]) -> None:
    file = io.BytesIO(song())
    began = time.process_time()
    found = tags.read(file)
    assert time.process_time() - began < MOST_S
    assert sum(map(len, found.texts.values())) <= 4096
    assert song.__name__ in UNREAD or found.texts.get("title") == ("Real",)


@pytest.mark.parametrize(
    "song", [flac_of_one_name, mp4_of_empty_covers, mp3_of_large_frames], ids=lambda song: song.__name__
)
def test_no_more_of_it_is_copied_than_is_wanted(song: Callable[[], bytes]) -> None:
    file = io.BytesIO(song())
    tracemalloc.start()
    try:
        tags.read(file)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("song", "texts", "left_out"),
    [
        (flac_of_empty_comments, {"title": ("Real",)}, "what stands behind the first 4096 fields"),
        (mp3_with_many_ape_items, {}, "what stands behind the first 4096 fields"),
        (ogg_of_pages_of_others, {}, "comments that do not end within 24 MiB and 8192 pages"),
        (
            mp4_of_empty_covers,
            {"title": ("Real",)},
            "pictures beyond 32, or 16 MiB in all, what stands behind the first 16384 boxes",
        ),
        (mp4_of_boxes, {}, "what stands behind the first 16384 boxes"),
        (
            mp3_of_large_frames,
            {"title": ("Real",)},
            "texts above 256 KiB, or 1 MiB in all, values above 65536 characters",
        ),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_was_left_out_is_said(song: Callable[[], bytes], texts: dict[str, tuple[str, ...]], left_out: str) -> None:
    found = tags.read(io.BytesIO(song()))
    assert found.texts == texts
    assert found.remarks == (f"Left out of the song's tags: {left_out}.",)


@pytest.mark.parametrize("source", SOURCES)
def test_a_damaged_tag_is_read_as_far_as_it_goes_and_raises_nothing(source: str) -> None:
    whole, chance = SOURCES[source](), random.Random(source)
    near = min(4000, len(whole) - 1)
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 12)):
            damaged[chance.choice((1, -1)) * chance.randrange(near)] = chance.choice((0, 1, 127, 128, 255))
        found = tags.read(io.BytesIO(damaged[: chance.choice((len(whole), chance.randrange(len(whole))))]))
        assert all(isinstance(value, str) and value.strip() for values in found.texts.values() for value in values)
