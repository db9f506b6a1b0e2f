"""Songs of every container with the same tags, written by mutagen or by hand, and masters' tags as mutagen reads them.

Names of fields are spelled out here once more: nothing of the engine's own table is used.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import mutagen.id3
import numpy as np
import soundfile
from mutagen.aiff import AIFF
from mutagen.apev2 import APEv2, APEValue
from mutagen.flac import FLAC, Picture
from mutagen.id3 import ID3
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from tests.hostile_audio import encoded

Values = dict[str, list[str]]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(150))
FRONT, BACK = (PNG, 3, "in front"), (JPEG, 4, "behind ÿ☃")
VALUES: Values = {
    "title": ["Nachtstück ☃"],
    "artist": ["First Artist", "Second Artist"],
    "album": ["Album"],
    "albumartist": ["Band"],
    "genre": ["Jazz", "Folk"],
    "date": ["2024-05-06"],
    "tracknumber": ["3"],
    "tracktotal": ["12"],
    "discnumber": ["1"],
    "disctotal": ["2"],
    "comment": ["A comment"],
    "lyrics": ["la la\nla"],
    "bpm": ["97"],
    "isrc": ["XX0000000001"],
    "label": ["Label A", "Label B"],
    "composer": ["Composer A", "Composer B"],
    "copyright": ["2024 Nobody"],
    "titlesort": ["Nachtstueck"],
    "artistsort": ["Artist, First"],
    "albumsort": ["Album, The"],
    "albumartistsort": ["Band, The"],
    "composersort": ["A, Composer"],
    "producer": ["Producer A", "Producer B"],
    "catalognumber": ["CAT 1", "CAT 2"],
    "barcode": ["0123456789012"],
    "musicbrainz_trackid": ["11111111-2222-3333-4444-555555555555"],
    "musicbrainz_albumid": ["22222222-2222-3333-4444-555555555555"],
    "musicbrainz_artistid": ["33333333-2222-3333-4444-555555555555", "44444444-2222-3333-4444-555555555555"],
    "musicbrainz_releasegroupid": ["55555555-2222-3333-4444-555555555555"],
    "compilation": ["1"],
}
STAYS_OUT = {
    "replaygain_track_gain": "-7.77 dB",
    "R128_TRACK_GAIN": "-1777",
    "iTunNORM": " 00000777",
    "iTunSMPB": " 00000000 00000840 00000777",
    "encodersettings": "-V 7.77",
    "encoder": "LAME 7.77",
    "ACOUSTID_FINGERPRINT": "AQADtFP777",
}
"""What holds for the old file's sound alone."""
LEFT_OUT = b"777"

_TEXT_FRAMES = {
    "title": "TIT2", "artist": "TPE1", "album": "TALB", "albumartist": "TPE2", "genre": "TCON", "date": "TDRC",
    "bpm": "TBPM", "isrc": "TSRC", "label": "TPUB", "composer": "TCOM", "copyright": "TCOP", "titlesort": "TSOT",
    "artistsort": "TSOP", "albumsort": "TSOA", "albumartistsort": "TSO2", "composersort": "TSOC", "compilation": "TCMP",
}  # fmt: skip
_DESCRIBED = {
    "catalognumber": "CATALOGNUMBER", "barcode": "BARCODE", "musicbrainz_albumid": "MusicBrainz Album Id",
    "musicbrainz_artistid": "MusicBrainz Artist Id", "musicbrainz_releasegroupid": "MusicBrainz Release Group Id",
}  # fmt: skip
_ATOMS = {
    "title": "\xa9nam", "artist": "\xa9ART", "album": "\xa9alb", "albumartist": "aART", "genre": "\xa9gen",
    "date": "\xa9day", "comment": "\xa9cmt", "lyrics": "\xa9lyr", "composer": "\xa9wrt", "copyright": "cprt",
    "titlesort": "sonm", "artistsort": "soar", "albumsort": "soal", "albumartistsort": "soaa", "composersort": "soco",
}  # fmt: skip
_FREEFORM = _DESCRIBED | {
    "isrc": "ISRC", "label": "LABEL", "producer": "PRODUCER", "musicbrainz_trackid": "MusicBrainz Track Id",
}  # fmt: skip
_APE = {"albumartist": "Album Artist", "date": "Year", "tracknumber": "Track", "discnumber": "Disc"}
_MUSICBRAINZ = "http://musicbrainz.org"
_FRAMES: Any = mutagen.id3


def _frames(values: Values, encoding: int, pictures: list[tuple[bytes, int, str]]) -> Any:
    tag: Any = ID3()
    plain = {name: values[name] for name in _TEXT_FRAMES if name in values}
    for name, texts in plain.items():
        tag.add(getattr(_FRAMES, _TEXT_FRAMES[name])(encoding=encoding, text=texts))
    for name, description in _DESCRIBED.items():
        tag.add(_FRAMES.TXXX(encoding=encoding, desc=description, text=values[name]))
    tag.add(_FRAMES.TRCK(encoding=0, text=f"{values['tracknumber'][0]}/{values['tracktotal'][0]}"))
    tag.add(_FRAMES.TPOS(encoding=0, text=f"{values['discnumber'][0]}/{values['disctotal'][0]}"))
    tag.add(_FRAMES.COMM(encoding=encoding, lang="eng", desc="", text=values["comment"]))
    tag.add(_FRAMES.USLT(encoding=encoding, lang="eng", desc="", text=values["lyrics"][0]))
    tag.add(_FRAMES.TIPL(encoding=encoding, people=[["producer", name] for name in values["producer"]]))
    tag.add(_FRAMES.UFID(owner=_MUSICBRAINZ, data=values["musicbrainz_trackid"][0].encode()))
    for data, kind, description in pictures:
        mime = "image/png" if data == PNG else "image/jpeg"
        tag.add(_FRAMES.APIC(encoding=encoding, mime=mime, type=kind, desc=description, data=data))
    for name, text in STAYS_OUT.items():
        # Where iTunes and others put them, and behind the frames that are wanted: the first comment is none.
        tag.add(_FRAMES.COMM(encoding=0, lang="eng", desc=name, text=[text]) if name.startswith("iTun") else
                _FRAMES.TXXX(encoding=0, desc=name, text=[text]))  # fmt: skip
    tag.add(_FRAMES.TSSE(encoding=0, text=["LAME 7.77"]))
    tag.add(_FRAMES.TLEN(encoding=0, text=["777"]))
    return tag


def id3v24(values: Values, encoding: int = 3) -> bytes:
    return _saved(_frames(values, encoding, [FRONT, BACK]), 4)


def id3v23(values: Values, encoding: int) -> bytes:
    """With the sort names, which iTunes writes in 2.3 too, and a date in two frames."""
    tag = _frames(values, encoding, [FRONT, (BACK[0], BACK[1], BACK[2] if encoding else "behind")])
    year, month, day = values["date"][0].split("-")
    del tag["TDRC"]
    tag.add(_FRAMES.TYER(encoding=0, text=year))
    tag.add(_FRAMES.TDAT(encoding=0, text=day + month))
    people = tag.pop("TIPL").people
    tag.add(_FRAMES.IPLS(encoding=encoding, people=people))
    return _saved(tag, 3)


def _saved(tag: Any, version: int) -> bytes:
    file = io.BytesIO()
    tag.save(file, v2_version=version, v23_sep=None, padding=lambda _: 9)
    return file.getvalue()


_OF_2_2 = {"TIT2": "TT2", "TPE1": "TP1", "TALB": "TAL", "TPE2": "TP2", "TCON": "TCO", "TBPM": "TBP", "TSRC": "TRC",
           "TPUB": "TPB", "TCOM": "TCM", "TCOP": "TCR", "TSOT": "TST", "TSOP": "TSP", "TSOA": "TSA", "TSO2": "TS2",
           "TSOC": "TSC", "TCMP": "TCP"}  # fmt: skip


def id3v22(values: Values) -> bytes:
    """By hand: in UTF-16, with a year alone."""
    parts = [(_OF_2_2[frame], _in_utf16(values[name])) for name, frame in _TEXT_FRAMES.items() if frame in _OF_2_2]
    parts += [("TXX", _in_utf16([description, *values[name]])) for name, description in _DESCRIBED.items()]
    parts += [
        ("TYE", b"\0" + values["date"][0][:4].encode()),
        ("TRK", f"\0{values['tracknumber'][0]}/{values['tracktotal'][0]}".encode()),
        ("TPA", f"\0{values['discnumber'][0]}/{values['disctotal'][0]}".encode()),
        ("COM", b"\0eng\0" + values["comment"][0].encode("latin-1")),
        ("ULT", b"\0eng\0" + values["lyrics"][0].encode("latin-1")),
        ("IPL", _in_utf16([part for name in values["producer"] for part in ("producer", name)])),
        ("UFI", f"{_MUSICBRAINZ}\0{values['musicbrainz_trackid'][0]}".encode()),
        ("COM", b"\0engiTunNORM\0" + STAYS_OUT["iTunNORM"].encode()),
        ("TSS", b"\0LAME 7.77"),
        ("PIC", b"\0PNG\x03in front\0" + PNG),
        ("PIC", b"\1JPG\x04" + BACK[2].encode("utf-16") + b"\0\0" + JPEG),
    ]
    frames = b"".join(name.encode() + len(content).to_bytes(3, "big") + content for name, content in parts)
    return b"ID3\2\0\0" + bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0)) + frames


def _in_utf16(texts: list[str]) -> bytes:
    return b"\1" + b"\0\0".join(text.encode("utf-16") for text in texts)


@cache
def plain(container: str) -> bytes:
    """A second of noise without tags."""
    if container == "m4a":
        return encoded("mp4", "aac")
    if container == "opus":
        return encoded("ogg", "libopus")
    file = io.BytesIO()
    noise = np.random.default_rng(5).uniform(-0.3, 0.3, (44_100, 2)).astype(np.float32)
    soundfile.write(file, noise, 44_100, format={"ogg": "OGG"}.get(container, container.upper()))
    return file.getvalue()


def _with_chunk(container: str, tag: bytes) -> bytes:
    file = io.BytesIO(plain(container))
    song: Any = {"wav": WAVE, "aiff": AIFF}[container](file)
    song.add_tags()
    song.tags.update(ID3(io.BytesIO(tag)))
    file.seek(0)
    song.save(file)
    return file.getvalue()


def ape(values: Values) -> bytes:
    """Behind the sound, and an ID3v1 tag behind it, which cuts its title short."""
    tag: Any = APEv2()
    for name, texts in values.items():
        if name not in ("tracktotal", "disctotal"):
            tag[_APE.get(name, name.title())] = texts
    for name in ("track", "disc"):
        tag[name.title()] = f"{values[name + 'number'][0]}/{values[name + 'total'][0]}"
    tag["Cover Art (Front)"] = APEValue(b"in front.png\0" + PNG, 1)
    tag["Cover Art (Back)"] = APEValue(b"behind.jpg\0" + JPEG, 1)
    for name, text in STAYS_OUT.items():
        tag[name] = text
    file = io.BytesIO()
    tag.save(file)
    return plain("mp3") + file.getvalue() + b"TAG" + b"Nachtst".ljust(30, b"\0") + bytes(95)


def comments(container: str, values: Values) -> bytes:
    file = io.BytesIO(plain(container))
    song: Any = {"flac": FLAC, "ogg": OggVorbis, "opus": OggOpus}[container](file)
    for name, texts in (values | {name: [text] for name, text in STAYS_OUT.items()}).items():
        song[name] = texts
    for data, kind, description in (FRONT, BACK):
        picture: Any = Picture()
        picture.data, picture.type, picture.desc = data, kind, description
        picture.mime = "image/png" if data == PNG else "image/jpeg"
        if container == "flac":
            song.add_picture(picture)
        else:
            song.tags.append(("metadata_block_picture", base64.b64encode(picture.write()).decode()))
    file.seek(0)
    song.save(file)
    return file.getvalue()


def m4a(values: Values) -> bytes:
    file = io.BytesIO(plain("m4a"))
    song: Any = MP4(file)
    for name, atom in _ATOMS.items():
        song[atom] = values[name]
    for name, item in _FREEFORM.items():
        song[f"----:com.apple.iTunes:{item}"] = [text.encode() for text in values[name]]
    song["trkn"] = [(int(values["tracknumber"][0]), int(values["tracktotal"][0]))]
    song["disk"] = [(int(values["discnumber"][0]), int(values["disctotal"][0]))]
    song["tmpo"] = [int(values["bpm"][0])]
    song["cpil"] = True
    song["covr"] = [MP4Cover(PNG, MP4Cover.FORMAT_PNG), MP4Cover(JPEG, MP4Cover.FORMAT_JPEG)]
    song["\xa9too"] = "LAME 7.77"
    for name, text in STAYS_OUT.items():
        song[f"----:com.apple.iTunes:{name}"] = [text.encode()]
    file.seek(0)
    song.save(file)
    return file.getvalue()


SOURCES: dict[str, Callable[[], bytes]] = {
    "ID3v2.4": lambda: id3v24(VALUES) + plain("mp3"),
    "ID3v2.4 in UTF-16": lambda: id3v24(VALUES, 1) + plain("mp3"),
    "ID3v2.3 in UTF-16": lambda: id3v23(VALUES, 1) + plain("mp3"),
    "ID3v2.3 in Latin-1": lambda: id3v23(VALUES | {"title": ["Nachtstück"]}, 0) + plain("mp3"),
    "ID3v2.2": lambda: id3v22(VALUES) + plain("mp3"),
    "WAV": lambda: _with_chunk("wav", id3v24(VALUES)),
    "AIFF": lambda: _with_chunk("aiff", id3v24(VALUES)),
    "APE": lambda: ape(VALUES),
    "FLAC": partial(comments, "flac", VALUES),
    "Ogg Vorbis": partial(comments, "ogg", VALUES),
    "Opus": partial(comments, "opus", VALUES),
    "M4A": lambda: m4a(VALUES),
}


def read_by_mutagen(extension: str, master: bytes) -> tuple[Values, list[tuple[bytes, int, str]]]:
    """A master's values and its pictures with types and descriptions (front cover and none in an M4A)."""
    file = io.BytesIO(master)
    if extension == "m4a":
        return _of_items(MP4(file))
    if extension in ("mp3", "wav"):
        song: Any = {"mp3": MP3, "wav": WAVE}[extension](file)
        return _of_frames(song.tags)
    other: Any = {"flac": FLAC, "ogg": OggVorbis, "opus": OggOpus}[extension](file)
    values = {name: list(other[name]) for name in VALUES if name in other}
    embedded = [Picture(base64.b64decode(one)) for one in other.get("metadata_block_picture", [])]
    pictures: Any = other.pictures if extension == "flac" else embedded
    return values, [(one.data, one.type, one.desc) for one in pictures]


def _of_frames(tag: Any) -> tuple[Values, list[tuple[bytes, int, str]]]:
    values = {name: [str(text) for text in tag[frame].text] for name, frame in _TEXT_FRAMES.items() if frame in tag}
    values |= {name: list(tag[f"TXXX:{text}"].text) for name, text in _DESCRIBED.items() if f"TXXX:{text}" in tag}
    for frame, name in (("TRCK", "track"), ("TPOS", "disc")):
        number, _, total = tag[frame].text[0].partition("/")
        values |= {f"{name}number": [number], f"{name}total": [total]}
    values["comment"] = [text for one in tag.getall("COMM") for text in one.text]
    values["lyrics"] = [one.text for one in tag.getall("USLT")]
    values["producer"] = [name for role, name in tag["TIPL"].people if role == "producer"]
    values["musicbrainz_trackid"] = [tag[f"UFID:{_MUSICBRAINZ}"].data.decode()]
    return values, [(one.data, int(one.type), one.desc) for one in tag.getall("APIC")]


def _of_items(song: Any) -> tuple[Values, list[tuple[bytes, int, str]]]:
    values = {name: list(song[atom]) for name, atom in _ATOMS.items()}
    for name, item in _FREEFORM.items():
        kept: list[MP4FreeForm] = song[f"----:com.apple.iTunes:{item}"]
        values[name] = [one.decode() for one in kept]
    for atom, name in (("trkn", "track"), ("disk", "disc")):
        number, total = song[atom][0]
        values |= {f"{name}number": [str(number)], f"{name}total": [str(total)]}
    values |= {"bpm": [str(one) for one in song["tmpo"]], "compilation": ["1" if song["cpil"] else "0"]}
    return values, [(bytes(one), 3, "") for one in song["covr"]]


def with_info(container_values: dict[bytes, str]) -> bytes:
    """A WAV with an INFO list."""
    items = b"".join(
        name + struct.pack("<I", len(text.encode()) + 1) + text.encode() + b"\0" * (1 + (len(text.encode()) + 1) % 2)
        for name, text in container_values.items()
    )
    whole = plain("wav") + b"LIST" + struct.pack("<I", len(items) + 4) + b"INFO" + items
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]
