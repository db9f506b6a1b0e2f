"""Tags and cover art travel with the music into every format, unless they are not wanted; no sample changes."""

import io

import pytest
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, TIT2, TPE1
from mutagen.wave import WAVE

from mastering import engine, tags
from mastering.contract import OutputFormat, Settings
from tests.mastering.sound import master, music, wav

_COVER = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


def _flac_song() -> bytes:
    file = io.BytesIO(wav(music(seconds=3), subtype="PCM_24", container="FLAC"))
    song = FLAC(file)
    song["title"], song["artist"], song["tracknumber"] = "Nachtstück", "Somebody", "7"
    picture = Picture()
    picture.data, picture.mime, picture.type = _COVER, "image/png", 3
    song.add_picture(picture)
    file.seek(0)
    song.save(file)
    return file.getvalue()


@pytest.mark.parametrize("kind", list(OutputFormat))
def test_tags_and_cover_reach_every_format(kind: OutputFormat) -> None:
    report, files = master(_flac_song(), Settings(outputs=(kind,)))
    found = tags.read(io.BytesIO(files[kind]))
    assert (found.texts["title"], found.texts["artist"], found.texts["tracknumber"]) == ("Nachtstück", "Somebody", "7")
    assert found.cover == (_COVER, "image/png")
    assert not [flag for flag in report.flags if "tags" in flag]


def test_id3_in_a_wav_is_read_too() -> None:
    file = io.BytesIO(wav(music(seconds=2), subtype="PCM_24"))
    song = WAVE(file)
    song.add_tags()
    song.tags.add(TIT2(encoding=3, text="One"))
    song.tags.add(TPE1(encoding=3, text="Two"))
    song.tags.add(APIC(encoding=3, mime="image/png", type=3, desc="", data=_COVER))
    file.seek(0)
    song.save(file)
    _, files = master(file.getvalue(), Settings(outputs=(OutputFormat.FLAC,)))
    found = tags.read(io.BytesIO(files[OutputFormat.FLAC]))
    assert found == tags.Tags({"title": "One", "artist": "Two"}, (_COVER, "image/png"))


def test_tags_are_left_out_when_not_wanted_and_change_no_sample() -> None:
    song = _flac_song()
    _, with_tags = master(song, Settings())
    _, without = master(song, Settings(keep_tags=False))
    assert not tags.read(io.BytesIO(without[OutputFormat.WAV24]))
    assert b"Somebody" not in without[OutputFormat.WAV24]
    pair = io.BytesIO(with_tags[OutputFormat.WAV24]), io.BytesIO(without[OutputFormat.WAV24])
    assert engine.difference_steps(*pair) == 0
