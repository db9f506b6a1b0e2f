"""Tags and cover art travel with the music into every format, unless they are not wanted; no sample changes."""

import io
import json
import struct
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, TIT2, TPE1
from mutagen.wave import WAVE

from mastering.audio import tags
from mastering.contract import ENGINE_VERSION, OutputFormat, Settings
from mastering.engine import inputs, replay
from tests.mastering.sound import ffmpeg, master, music, wav

_COVER = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


def _flac_song() -> bytes:
    file = io.BytesIO(wav(music(seconds=3), subtype="PCM_24", container="FLAC"))
    song = FLAC(file)
    song["title"], song["artist"], song["tracknumber"] = "Nachtstück", ["Somebody", "Someone else"], "7"
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
    assert found.texts == {"title": ("Nachtstück",), "artist": ("Somebody", "Someone else"), "tracknumber": ("7",)}
    assert found.pictures == (tags.TagPicture(_COVER, "image/png"),)
    assert not [flag for flag in report.flags if "tags" in flag]


def test_what_a_format_cannot_hold_is_said_in_the_report() -> None:
    file = io.BytesIO(_flac_song())
    song = FLAC(file)
    song["tracknumber"], song["lyrics"] = "A1", "x" * (1 << 18)
    file.seek(0)
    song.save(file)
    report, files = master(file.getvalue(), Settings(outputs=(OutputFormat.AAC, OutputFormat.FLAC)))
    assert [flag for flag in report.flags if "tags" in flag] == [
        "Left out of the song's tags: values above 65536 characters.",
        "The AAC, 256 kbit/s cannot hold all of the song's tags: track number.",
    ]
    assert tags.read(io.BytesIO(files[OutputFormat.FLAC])).texts["tracknumber"] == ("A1",)


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
    assert found == tags.Tags({"title": ("One",), "artist": ("Two",)}, (tags.TagPicture(_COVER, "image/png"),))


def _broadcast_wave(song: bytes, folder: Path) -> bytes:
    """A broadcast wave with an INFO list, as ffmpeg writes it."""
    (folder / "in.wav").write_bytes(song)
    about = {
        "description": "Scene 7, take 2", "originator": "Sound Dept", "origination_date": "2024-05-06",
        "origination_time": "07:08:09", "time_reference": "441000",
        "coding_history": "A=PCM,F=44100,W=24,M=stereo,T=Deck",
        "title": "Seven", "artist": "Nobody",
    }  # fmt: skip
    said = [part for name, text in about.items() for part in ("-metadata", f"{name}={text}")]
    ffmpeg("-i", folder / "in.wav", "-c:a", "pcm_s24le", "-write_bext", "1", *said, folder / "bwf.wav")
    return (folder / "bwf.wav").read_bytes()


def _probed_tags(path: Path) -> dict[str, str]:
    asked = ["ffprobe", "-v", "error", "-show_entries", "format_tags", "-of", "json", str(path)]
    return dict(json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)["format"]["tags"])


@pytest.mark.parametrize("kind", [OutputFormat.WAV16, OutputFormat.WAV24, OutputFormat.WAV32F])
def test_a_broadcast_waves_own_chunk_reaches_a_wav_by_the_word_of_ffmpeg(kind: OutputFormat, tmp_path: Path) -> None:
    song = _broadcast_wave(wav(music(seconds=3)), tmp_path)
    report, files = master(song, Settings(outputs=(kind,), rate_hz=48_000))
    (tmp_path / "out.wav").write_bytes(files[kind])
    found = _probed_tags(tmp_path / "out.wav")
    assert found["comment"] == "Scene 7, take 2"
    assert found["encoded_by"] == "Sound Dept"
    assert (found["date"], found["creation_time"]) == ("2024-05-06", "07:08:09")
    assert int(found["time_reference"]) == 480_000, "ten seconds after midnight, at the master's own rate"
    lines = found["coding_history"].split("\r\n")
    bits = {OutputFormat.WAV16: 16, OutputFormat.WAV24: 24, OutputFormat.WAV32F: 32}[kind]
    assert lines[:2] == [
        "A=PCM,F=44100,W=24,M=stereo,T=Deck",
        f"A=PCM,F=48000,W={bits},M=stereo,T=mastering {ENGINE_VERSION}",
    ]
    assert found["title"] == "Seven"
    assert soundfile.info(tmp_path / "out.wav").frames == report.after.frames


def test_a_broadcast_masters_loudness_fields_are_its_own(tmp_path: Path) -> None:
    _, files = master(_broadcast_wave(wav(music(seconds=3)), tmp_path), Settings())
    data = files[OutputFormat.WAV24]
    at = data.index(b"bext") + 8
    version, loudness = struct.unpack_from("<H", data, at + 346)[0], struct.unpack_from("<h", data, at + 412)[0]
    assert version == 2
    assert loudness / 100 == pytest.approx(-14.0, abs=0.1)


def test_a_broadcast_waves_words_reach_other_formats_as_tags(tmp_path: Path) -> None:
    song = _broadcast_wave(wav(music(seconds=3)), tmp_path)
    _, files = master(song, Settings(outputs=(OutputFormat.FLAC, OutputFormat.MP3, OutputFormat.AAC)))
    for kind, data in files.items():
        texts = tags.read(io.BytesIO(data)).texts
        assert (texts["title"], texts["artist"], texts["date"]) == (("Seven",), ("Nobody",), ("2024-05-06",)), kind
        assert texts["comment"] == ("Scene 7, take 2",), kind


def test_stripped_means_no_word_of_a_broadcast_wave_either(tmp_path: Path) -> None:
    _, files = master(_broadcast_wave(wav(music(seconds=3)), tmp_path), Settings(keep_tags=False))
    assert not [word for word in (b"bext", b"Scene", b"Sound Dept", b"Nobody") if word in files[OutputFormat.WAV24]]


def test_a_large_master_gets_its_tags_in_place(tmp_path: Path) -> None:
    """A file of 300 MiB that takes no disk: what tagging reads into memory would show."""
    samples = 300 << 20
    with (tmp_path / "large.wav").open("w+b") as file:
        head = wav(np.zeros((2, 100), np.float32), subtype="PCM_24")[:44]
        file.write(head[:4] + struct.pack("<I", samples + 36) + head[8:40] + struct.pack("<I", samples))
        file.truncate(44 + samples)
        kept = tags.Tags({"title": ("Long",)}, (tags.TagPicture(_COVER, "image/png"),))
        tracemalloc.start()
        assert not tags.write(file, OutputFormat.WAV24, kept, inputs.measure(io.BytesIO(wav(music(seconds=2)))))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
        tracemalloc.stop()
        assert tags.read(file) == kept
        assert soundfile.info(tmp_path / "large.wav").frames == samples // 6


def test_tags_are_left_out_when_not_wanted_and_change_no_sample() -> None:
    song = _flac_song()
    _, with_tags = master(song, Settings())
    _, without = master(song, Settings(keep_tags=False))
    assert not tags.read(io.BytesIO(without[OutputFormat.WAV24]))
    assert b"Somebody" not in without[OutputFormat.WAV24]
    pair = io.BytesIO(with_tags[OutputFormat.WAV24]), io.BytesIO(without[OutputFormat.WAV24])
    assert replay.difference_steps(*pair) == 0
