"""Read tags and cover art from a song and write them to its masters. The only module that imports mutagen.

A few tags that every container knows under some name, and one front cover. Nothing is invented, and what a container
cannot hold is left out. ID3 in MP3 and WAV, Vorbis comments in FLAC, Ogg and Opus, atoms in M4A; INFO lists are read,
and the broadcast extension of a WAV is kept in a WAV. Written in place, whatever the master's size.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import mutagen
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, COMM, ID3, TALB, TCOM, TCON, TCOP, TDRC, TIT2, TPE1, TPE2, TPOS, TRCK, TSRC
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4Cover
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from mastering.audio import bwf
from mastering.audio.bwf import Broadcast, texts_of
from mastering.contract import Fault, FaultCode, Measurements, OutputFormat

_FRAMES: dict[str, Any] = {
    "title": TIT2,
    "artist": TPE1,
    "album": TALB,
    "albumartist": TPE2,
    "composer": TCOM,
    "genre": TCON,
    "date": TDRC,
    "tracknumber": TRCK,
    "discnumber": TPOS,
    "copyright": TCOP,
    "isrc": TSRC,
}
_ATOMS = {
    "title": "\xa9nam",
    "artist": "\xa9ART",
    "album": "\xa9alb",
    "albumartist": "aART",
    "composer": "\xa9wrt",
    "genre": "\xa9gen",
    "date": "\xa9day",
    "copyright": "cprt",
    "comment": "\xa9cmt",
}
_NUMBERS = {"tracknumber": "trkn", "discnumber": "disk"}
_NAMES = (*_FRAMES, "comment")
_WAV_BITS = {OutputFormat.WAV16: "16", OutputFormat.WAV24: "24", OutputFormat.WAV32F: "32"}
_FRONT_COVER = 3
# Untyped in mutagen.
_PICTURE: Any = Picture
_APIC: Any = APIC
_COMM: Any = COMM
_COVER: Any = MP4Cover
_CONTAINERS: dict[str, Any] = {
    "wav": WAVE,
    "flac": FLAC,
    "m4a": MP4,
    "mp3": MP3,
    "opus": OggOpus,
    "ogg": OggVorbis,
}


@dataclass(frozen=True)
class Tags:
    """Texts by their Vorbis comment's name in lower case, and a picture (bytes, media type)."""

    texts: dict[str, str]
    cover: tuple[bytes, str] | None = None
    broadcast: Broadcast | None = None

    def __bool__(self) -> bool:
        return bool(self.texts) or self.cover is not None or self.broadcast is not None


def read(source: BinaryIO) -> Tags:
    """The song's tags; none where there are none or they cannot be read."""
    found = _read(source)
    texts, broadcast = bwf.read(source)
    own = texts_of(broadcast) if broadcast else {}
    return replace(found, texts=own | texts | found.texts, broadcast=broadcast)


def _read(source: BinaryIO) -> Tags:
    source.seek(0)
    try:
        file = mutagen.File(source)
        if file is None or file.tags is None:
            return Tags({})
        if isinstance(file.tags, ID3):
            return _from_id3(file.tags)
        return _from_atoms(file.tags) if isinstance(file, MP4) else _from_comments(file)
    except (mutagen.MutagenError, ValueError, KeyError, IndexError, AttributeError, TypeError):
        return Tags({})


def _from_id3(tags: Any) -> Tags:
    texts = {name: str(tags[frame.__name__].text[0]) for name, frame in _FRAMES.items() if frame.__name__ in tags}
    comments = tags.getall("COMM")
    texts |= {"comment": str(comments[0])} if comments else {}
    picture = next(iter(tags.getall("APIC")), None)
    return Tags(texts, None if picture is None else (picture.data, picture.mime))


def _from_atoms(tags: Any) -> Tags:
    texts = {name: str(tags[atom][0]) for name, atom in _ATOMS.items() if tags.get(atom)}
    texts |= {name: str(tags[atom][0][0]) for name, atom in _NUMBERS.items() if tags.get(atom)}
    covers = tags.get("covr")
    if not covers:
        return Tags(texts)
    kind = "image/png" if covers[0].imageformat == MP4Cover.FORMAT_PNG else "image/jpeg"
    return Tags(texts, (bytes(covers[0]), kind))


def _from_comments(file: Any) -> Tags:
    texts = {name: str(file.tags[name][0]) for name in _NAMES if file.tags.get(name)}
    pictures = list(getattr(file, "pictures", []))
    pictures += [_PICTURE(base64.b64decode(block)) for block in file.tags.get("metadata_block_picture", [])]
    return Tags(texts, (pictures[0].data, pictures[0].mime) if pictures else None)


def write(target: BinaryIO, kind: OutputFormat, tags: Tags, after: Measurements) -> bool:
    """Add `tags` to a finished master that measures `after`; False if they could not all be written.

    Raises Fault where a write broke off in the middle, which spoils the master.
    """
    size = target.seek(0, io.SEEK_END)
    try:
        whole = kind not in _WAV_BITS or bwf.write(target, tags.texts, tags.broadcast, after, _WAV_BITS[kind])
        size = target.seek(0, io.SEEK_END)
        if tags.texts or tags.cover:
            _add(target, kind, tags)
    except (mutagen.MutagenError, ValueError, TypeError, KeyError):
        # mutagen builds what it will write before it writes: a file of the same size was not touched.
        if target.seek(0, io.SEEK_END) != size:
            raise Fault(FaultCode.BAD_MASTER, "The tags could not be written whole. Try again without them.") from None
        whole = False
    target.seek(0)
    return whole


def _add(whole: BinaryIO, kind: OutputFormat, tags: Tags) -> None:
    whole.seek(0)
    file = _CONTAINERS[kind.extension](whole)
    if file.tags is None:
        file.add_tags()
    if isinstance(file, MP4):
        _to_atoms(file.tags, tags)
    elif isinstance(file.tags, ID3):
        _to_id3(file.tags, tags)
    else:
        _to_comments(file, tags)
    whole.seek(0)
    file.save(whole)


def _to_id3(frames: Any, tags: Tags) -> None:
    for name, text in tags.texts.items():
        frames.add(
            _COMM(encoding=3, lang="XXX", desc="", text=text)
            if name == "comment"
            else _FRAMES[name](encoding=3, text=text)
        )
    if tags.cover is not None:
        data, kind = tags.cover
        frames.add(_APIC(encoding=3, mime=kind, type=_FRONT_COVER, desc="", data=data))


def _to_atoms(atoms: Any, tags: Tags) -> None:
    for name, text in tags.texts.items():
        if name in _ATOMS:
            atoms[_ATOMS[name]] = [text]
    for name, atom in _NUMBERS.items():
        number, _, of = tags.texts.get(name, "").partition("/")
        if number.isdecimal():
            atoms[atom] = [(int(number), int(of) if of.isdecimal() else 0)]
    if tags.cover is not None:
        data, kind = tags.cover
        form = MP4Cover.FORMAT_PNG if kind == "image/png" else MP4Cover.FORMAT_JPEG
        atoms["covr"] = [_COVER(data, imageformat=form)]


def _to_comments(file: Any, tags: Tags) -> None:
    for name, text in tags.texts.items():
        file.tags[name] = [text]
    if tags.cover is None:
        return
    picture = _PICTURE()
    picture.data, picture.mime = tags.cover
    picture.type = _FRONT_COVER
    if hasattr(file, "add_picture"):
        file.add_picture(picture)
    else:
        file.tags["metadata_block_picture"] = [base64.b64encode(picture.write()).decode()]
