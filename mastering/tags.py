"""Tags and cover art: taken from the song, written to the master. The only door to mutagen.

A few tags that every container knows under some name, and one front cover. Nothing is made up, and what a container
cannot hold is left out. ID3 in MP3 and WAV, Vorbis comments in FLAC, Ogg and Opus, atoms in M4A.
"""

from __future__ import annotations

import base64
import io
import shutil
from dataclasses import dataclass
from typing import Any, BinaryIO

import mutagen
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, ID3, TALB, TCOM, TCON, TDRC, TIT2, TPE1, TPE2, TRCK, TSRC
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4Cover
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from mastering.contract import OutputFormat

_FRAMES: dict[str, Any] = {
    "title": TIT2,
    "artist": TPE1,
    "album": TALB,
    "albumartist": TPE2,
    "composer": TCOM,
    "genre": TCON,
    "date": TDRC,
    "tracknumber": TRCK,
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
}
_FRONT_COVER = 3
# Untyped in mutagen.
_PICTURE: Any = Picture
_APIC: Any = APIC
_COVER: Any = MP4Cover
_MOST_COPIED_BYTES = 1 << 28
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

    def __bool__(self) -> bool:
        return bool(self.texts) or self.cover is not None


def read(source: BinaryIO) -> Tags:
    """The song's tags; none where there are none or they cannot be read."""
    source.seek(0)
    try:
        file = mutagen.File(source)
    except (mutagen.MutagenError, ValueError, KeyError):
        return Tags({})
    if file is None or file.tags is None:
        return Tags({})
    if isinstance(file.tags, ID3):
        return _from_id3(file.tags)
    if isinstance(file, MP4):
        return _from_atoms(file.tags)
    return _from_comments(file)


def _from_id3(tags: Any) -> Tags:
    texts = {name: str(tags[frame.__name__].text[0]) for name, frame in _FRAMES.items() if frame.__name__ in tags}
    picture = next(iter(tags.getall("APIC")), None)
    return Tags(texts, None if picture is None else (picture.data, picture.mime))


def _from_atoms(tags: Any) -> Tags:
    texts = {name: str(tags[atom][0]) for name, atom in _ATOMS.items() if tags.get(atom)}
    if tags.get("trkn"):
        texts["tracknumber"] = str(tags["trkn"][0][0])
    covers = tags.get("covr")
    if not covers:
        return Tags(texts)
    kind = "image/png" if covers[0].imageformat == MP4Cover.FORMAT_PNG else "image/jpeg"
    return Tags(texts, (bytes(covers[0]), kind))


def _from_comments(file: Any) -> Tags:
    texts = {name: str(file.tags[name][0]) for name in _FRAMES if file.tags.get(name)}
    pictures = list(getattr(file, "pictures", []))
    pictures += [_PICTURE(base64.b64decode(block)) for block in file.tags.get("metadata_block_picture", [])]
    return Tags(texts, (pictures[0].data, pictures[0].mime) if pictures else None)


def write(target: BinaryIO, kind: OutputFormat, tags: Tags) -> bool:
    """Add `tags` to a finished master; False if they could not be written, and the master is as it was.

    A master too large for a second copy in memory goes without: half-written tags would spoil it.
    """
    if target.seek(0, io.SEEK_END) > _MOST_COPIED_BYTES:
        target.seek(0)
        return False
    whole = io.BytesIO()
    target.seek(0)
    shutil.copyfileobj(target, whole)
    try:
        _add(whole, kind, tags)
    except (mutagen.MutagenError, ValueError, TypeError, KeyError):
        target.seek(0)
        return False
    target.seek(0)
    target.truncate(0)
    target.write(whole.getbuffer())
    target.seek(0)
    return True


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
        frames.add(_FRAMES[name](encoding=3, text=text))
    if tags.cover is not None:
        data, kind = tags.cover
        frames.add(_APIC(encoding=3, mime=kind, type=_FRONT_COVER, desc="", data=data))


def _to_atoms(atoms: Any, tags: Tags) -> None:
    for name, text in tags.texts.items():
        if name in _ATOMS:
            atoms[_ATOMS[name]] = [text]
    number = tags.texts.get("tracknumber", "").split("/")[0]
    if number.isdigit():
        atoms["trkn"] = [(int(number), 0)]
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
