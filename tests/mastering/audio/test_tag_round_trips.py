"""Every value of every field goes from each container into each other, by mutagen's word; what does not is said."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import soundfile
from mutagen.flac import FLAC, Picture
from mutagen.id3 import COMM, ID3, TIT2, USLT
from mutagen.mp4 import MP4
from mutagen.wave import WAVE

from mastering.audio import tags
from mastering.audio.tag_fields import FIELDS
from mastering.contract import Measurements, OutputFormat
from mastering.engine import inputs
from tests.hostile_audio import encoded
from tests.mastering.audio.tagged_songs import (
    BACK,
    FRONT,
    JPEG,
    LEFT_OUT,
    PNG,
    SOURCES,
    VALUES,
    Values,
    plain,
    read_by_mutagen,
    with_info,
)
from tests.mastering.sound import ffmpeg

KINDS = [
    OutputFormat.WAV24,
    OutputFormat.FLAC,
    OutputFormat.ALAC,
    OutputFormat.MP3,
    OutputFormat.OPUS,
    OutputFormat.VORBIS,
]
"""One of each container."""
IN_M4A = "The Apple Lossless cannot hold all of the song's tags: types of pictures, descriptions of pictures."


@pytest.fixture(scope="module")
def after() -> Measurements:
    return inputs.measure(io.BytesIO(plain("flac")))


def carried(song: bytes, kind: OutputFormat, after: Measurements) -> tuple[bytes, str]:
    """The tags of `song` in a master, and what is said of those that it does not hold."""
    found = tags.read(io.BytesIO(song))
    assert not found.remarks
    master = io.BytesIO(plain(kind.extension))
    said = tags.write(master, kind, found, after)
    return master.getvalue(), said


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_all_values_reach_every_container(source: str, kind: OutputFormat, after: Measurements) -> None:
    master, said = carried(SOURCES[source](), kind, after)
    values, pictures = read_by_mutagen(kind.extension, master)
    assert values == expected_of(source)
    has_types, has_descriptions = source != "M4A", source not in ("M4A", "APE")
    if kind is OutputFormat.ALAC:
        assert pictures == [(PNG, 3, ""), (JPEG, 3, "")]
        assert said == (
            IN_M4A if has_descriptions else IN_M4A.replace(", descriptions of pictures", "") if has_types else ""
        )
    else:
        behind = "behind" if source == "ID3v2.3 in Latin-1" else BACK[2]
        descriptions = (FRONT[2], behind) if has_descriptions else ("", "")
        in_order = pictures[::-1] if source == "APE" else pictures  # which has its items in the order of their size
        assert in_order == [(PNG, 3, descriptions[0]), (JPEG, 4 if has_types else 3, descriptions[1])]
        assert not said
    assert LEFT_OUT not in master.replace(plain(kind.extension)[100:], b""), "what held for the old file's sound"


def expected_of(source: str) -> Values:
    other: dict[str, Values] = {"ID3v2.3 in Latin-1": {"title": ["Nachtstück"]}, "ID3v2.2": {"date": ["2024"]}}
    return VALUES | other.get(source, {})


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_field_of_the_table_comes_back(kind: OutputFormat, after: Measurements) -> None:
    one_of_each = {field.name: (f"{field.words} 1", f"{field.words} 2") for field in FIELDS}
    numbers = (
        "tracknumber",
        "tracktotal",
        "discnumber",
        "disctotal",
        "movement",
        "movementtotal",
        "bpm",
        "compilation",
    )
    one_of_each |= dict.fromkeys(numbers, ("1",)) | {"date": ("2024-05-06",), "originaldate": ("1999",)}
    one_of_each |= {"performer": ("Somebody (drums)", "Nobody"), "musicbrainz_trackid": ("1-2-3",)}
    master = io.BytesIO(plain(kind.extension))
    assert not tags.write(master, kind, tags.Tags(one_of_each), after)
    assert tags.read(master).texts == one_of_each


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_info_list_reaches_every_container(kind: OutputFormat, after: Measurements) -> None:
    info = {b"INAM": "Title ☃", b"IART": "Artist", b"ICMT": "A comment", b"IPRT": "3/12", b"ISFT": "Lavf777"}
    master, said = carried(with_info(info), kind, after)
    found = tags.read(io.BytesIO(master)).texts
    assert not said
    assert found == {
        "title": ("Title ☃",), "artist": ("Artist",), "comment": ("A comment",), "tracknumber": ("3",),
        "tracktotal": ("12",),
    }  # fmt: skip
    assert b"Lavf777" not in master


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_text_chunks_of_an_aiff_reach_every_container(kind: OutputFormat, after: Measurements) -> None:
    about = {"title": "Title ☃", "author": "Artist", "copyright": "2024 Nobody", "comment": "A comment"}
    said = [part for name, text in about.items() for part in ("-metadata", f"{name}={text}")]
    song = ffmpeg("-f", "wav", "-i", "-", *said, "-f", "aiff", "-", stdin=plain("wav")).stdout
    master, lost = carried(song, kind, after)
    assert not lost
    assert tags.read(io.BytesIO(master)).texts == {
        "title": ("Title ☃",), "artist": ("Artist",), "copyright": ("2024 Nobody",), "comment": ("A comment",)
    }  # fmt: skip


def test_a_wav_has_an_info_list_too(after: Measurements) -> None:
    master, _ = carried(SOURCES["FLAC"](), OutputFormat.WAV24, after)
    assert b"IART\x1c\0\0\0First Artist; Second Artist\0" in master
    assert (struct.unpack_from("<I", master, 4)[0], len(master) % 2) == (len(master) - 8, 0)


def _flac(texts: Values, *pictures: tuple[bytes, str, int]) -> bytes:
    file = io.BytesIO(plain("flac"))
    song: Any = FLAC(file)
    song.update(texts)
    for data, mime, kind in pictures:
        block: Any = Picture()
        block.data, block.mime, block.type = data, mime, kind
        song.add_picture(block)
    file.seek(0)
    song.save(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("texts", "kind", "said"),
    [
        ({"tracknumber": ["A1"], "bpm": ["97"]}, OutputFormat.ALAC, "track number"),
        ({"tracknumber": ["3"], "tracktotal": ["many"]}, OutputFormat.AAC, "total of tracks"),
        ({"discnumber": ["70000"], "bpm": ["97.5"]}, OutputFormat.ALAC, "disc number, BPM"),
        ({"date": ["Spring 2024"]}, OutputFormat.MP3, "date"),
        ({"originaldate": ["06.05.2024"], "date": ["2024"]}, OutputFormat.WAV16, "original date"),
        ({"musicbrainz_trackid": ["1", "2"]}, OutputFormat.MP3V0, "more than one MusicBrainz recording"),
    ],
)
def test_a_value_that_the_container_cannot_hold_is_named(
    texts: Values, kind: OutputFormat, said: str, after: Measurements
) -> None:
    title = {"title": ["Still there"]}
    master, sentence = carried(_flac(texts | title), kind, after)
    assert sentence == f"The {kind.label} cannot hold all of the song's tags: {said}."
    assert tags.read(io.BytesIO(master)).texts["title"] == ("Still there",)
    assert carried(_flac(texts | title), OutputFormat.VORBIS, after)[1] == ""


def test_pictures_of_other_kinds_are_named_where_they_cannot_go(after: Measurements) -> None:
    song = _flac({}, (b"RIFF\0\0\0\0WEBP", "image/webp", 4), (PNG, "image/png", 3))
    master, said = carried(song, OutputFormat.ALAC, after)
    assert said == "The Apple Lossless cannot hold all of the song's tags: pictures other than JPEG and PNG."
    song_in_mp4: Any = MP4(io.BytesIO(master))
    assert [bytes(one) for one in song_in_mp4["covr"]] == [PNG]
    assert carried(song, OutputFormat.MP3, after)[1] == ""


def test_the_front_cover_comes_first_where_pictures_have_no_types(after: Measurements) -> None:
    master, _ = carried(_flac({}, (JPEG, "image/jpeg", 4), (PNG, "image/png", 3)), OutputFormat.ALAC, after)
    song: Any = MP4(io.BytesIO(master))
    assert [bytes(one) for one in song["covr"]] == [PNG, JPEG]


def test_the_largest_pictures_are_kept_and_one_that_a_flac_cannot_hold_is_said(after: Measurements) -> None:
    def of(size: int) -> tags.Tags:
        return tags.Tags({"title": ("One",)}, (tags.TagPicture(JPEG + bytes(size - len(JPEG)), "image/jpeg"),))

    for kind in (OutputFormat.WAV24, OutputFormat.FLAC):
        master = io.BytesIO(plain(kind.extension))
        assert not tags.write(master, kind, of((16 << 20) - 1000), after)
        assert tags.read(master) == of((16 << 20) - 1000)
    master = io.BytesIO(plain("flac"))
    said = tags.write(master, OutputFormat.FLAC, of(16 << 20), after)
    assert said == "The FLAC cannot hold all of the song's tags: a picture of 16 MiB."
    assert tags.read(master) == tags.Tags({"title": ("One",)})


def test_several_comments_and_lyrics_of_an_id3_tag_are_all_kept(after: Measurements) -> None:
    tag: Any = ID3()
    for language, text in (("eng", "Hello"), ("deu", "Guten Tag")):
        tag.add(COMM(encoding=3, lang=language, desc="", text=text))
        tag.add(USLT(encoding=3, lang=language, desc="", text=f"{text}, la la"))
    tag.add(COMM(encoding=3, lang="eng", desc="Some program", text="of its own"))
    file = io.BytesIO()
    tag.save(file)
    for kind in (OutputFormat.MP3, OutputFormat.FLAC, OutputFormat.ALAC):
        master, said = carried(file.getvalue() + plain("mp3"), kind, after)
        found = tags.read(io.BytesIO(master)).texts
        assert found == {"comment": ("Hello", "Guten Tag"), "lyrics": ("Hello, la la", "Guten Tag, la la")}
        assert not said


def test_a_comment_that_itunes_writes_for_itself_is_none_though_it_stands_first() -> None:
    frames = [b"COMM" + struct.pack(">IH", len(one), 0) + one for one in (b"\0engiTunNORM\0 777", b"\0eng\0Plain")]
    whole = b"ID3\3\0\0\0\0\0" + bytes([sum(map(len, frames))]) + b"".join(frames) + plain("mp3")
    assert tags.read(io.BytesIO(whole)).texts == {"comment": ("Plain",)}


def test_tags_that_are_not_read_are_said_to_be_left_out() -> None:
    found = tags.read(io.BytesIO(encoded("webm", "libopus")))
    assert not found
    assert found.remarks == ("Left out of the song's tags: those of a WMA, CAF or WebM file.",)


def test_an_old_tag_of_ape_and_id3v1_is_read_where_the_front_says_nothing() -> None:
    whole = SOURCES["APE"]()
    assert tags.read(io.BytesIO(whole)).texts["title"] == tuple(VALUES["title"])
    tag: Any = ID3()
    tag.add(TIT2(encoding=3, text="Front"))
    file = io.BytesIO()
    tag.save(file)
    both = tags.read(io.BytesIO(file.getvalue() + whole))
    assert both.texts["title"] == ("Front",)
    assert both.texts["label"] == tuple(VALUES["label"])


def test_names_that_other_programs_use_are_understood() -> None:
    song = _flac(
        {
            "ALBUM ARTIST": ["Band"],
            "YEAR": ["1999"],
            "TRACKNUMBER": ["3/12"],
            "PUBLISHER": ["Label"],
            "TOTALDISCS": ["2"],
        }
    )
    assert tags.read(io.BytesIO(song)).texts == {
        "albumartist": ("Band",), "date": ("1999",), "tracknumber": ("3",), "tracktotal": ("12",), "label": ("Label",),
        "disctotal": ("2",),
    }  # fmt: skip


def test_what_the_broadcast_extension_alone_says_is_named_for_other_containers(after: Measurements) -> None:
    history = b"A=PCM,F=44100,W=24,M=stereo,T=Deck\r\n"
    bext = struct.pack("<256s32s32s10s8sQH", b"Scene 7", b"Sound Dept", b"", b"2024-05-06", b"07:08:09", 441_000, 2)
    chunk = bext.ljust(602, b"\0") + history
    whole = plain("wav")
    song = whole[:12] + b"bext" + struct.pack("<I", len(chunk)) + chunk + whole[12:]
    _, said = carried(song, OutputFormat.FLAC, after)
    assert said == "The FLAC cannot hold all of the song's tags: originator, time reference, coding history."
    master, nothing = carried(song, OutputFormat.WAV24, after)
    assert not nothing
    assert b"Sound Dept" in master
    assert WAVE(io.BytesIO(master)).tags["COMM::XXX"].text == ["Scene 7"]


def test_a_time_with_a_zone_is_a_date_in_id3(after: Measurements) -> None:
    master, said = carried(_flac({"date": ["2012-08-28T07:00:00Z"]}), OutputFormat.MP3, after)
    assert not said
    assert tags.read(io.BytesIO(master)).texts == {"date": ("2012-08-28 07:00:00",)}


def test_a_wav_of_the_long_form_gets_no_tags_and_that_is_said(after: Measurements) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((100, 2)), 44_100, format="RF64")
    whole = file.getvalue()
    said = tags.write(file, OutputFormat.WAV24, tags.Tags({"title": ("One",)}), after)
    assert said == "The tags could not be written to the WAV, 24 bit."
    assert file.getvalue() == whole


def test_an_old_genre_number_and_boxes_of_the_long_form_are_read() -> None:
    def box(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content) + 8) + name + content

    items = box(b"gnre", box(b"data", struct.pack(">IIH", 0, 0, 9)))
    items += box(b"\xa9nam", box(b"data", struct.pack(">II", 2, 0) + "Title ☃".encode("utf-16-be")))
    udta = box(b"udta", box(b"meta", bytes(4) + box(b"ilst", items)))
    moov = struct.pack(">I4sQ", 1, b"moov", len(udta) + 16) + udta
    assert tags.read(io.BytesIO(box(b"ftyp", b"M4A ") + moov)).texts == {"title": ("Title ☃",), "genre": ("Jazz",)}


def test_a_tag_that_cannot_be_read_is_said() -> None:
    genre = b"\0(" + b"1" * 5000 + b")"
    frame = b"TCON" + struct.pack(">IH", len(genre), 0) + genre
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    found = tags.read(io.BytesIO(b"ID3\3\0\0" + size + frame + plain("mp3")))
    assert not found
    assert found.remarks == ("Left out of the song's tags: what stands in a tag that cannot be read.",)
