"""Read tags and cover art from a song and write them to its masters. The only module that imports mutagen.

A few tags that every container knows under some name, and one front cover. Nothing is invented, and what a container
cannot hold is left out. ID3 in MP3, WAV and AIFF, Vorbis comments in FLAC, Ogg and Opus, atoms in M4A; INFO lists are
read, and the broadcast extension of a WAV is kept in a WAV. Written in place, whatever the master's size.

A stranger's tags are bounded in bytes, frames and pictures before mutagen sees them; nothing in them is inflated.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import mutagen
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, COMM, ID3, TALB, TCOM, TCON, TCOP, TDRC, TIT2, TPE1, TPE2, TPOS, TRCK, TSRC, Frames_2_2
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4Cover
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from mastering.audio import bwf
from mastering.audio.bwf import Broadcast, texts_of
from mastering.audio.container import container_of
from mastering.audio.id3_frames import wanted_frames
from mastering.audio.riff import FileBytes, aiff_chunks, wav_chunks
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
_DATES = ("TYER", "TDAT", "TIME")
"""Of ID3v2.3; mutagen makes a TDRC of them."""
_READ = {frame.__name__ for frame in (*_FRAMES.values(), COMM, APIC)} | set(_DATES)
_ID3_NAMES = _READ | {name for name, frame in Frames_2_2.items() if getattr(frame.__base__, "__name__", "") in _READ}
_ID3V1_BYTES = 128
_COMMENTS = {"flac": (FLAC,), "mp4": (MP4,), "ogg": (OggVorbis, OggOpus, OggFLAC)}
_MAX_READ_BYTES = 24 * 1024 * 1024
"""Of a file whose tags are no ID3: a cover of 16 MiB in base64, and what stands around it."""
_MAX_TEXT_CHARACTERS = 64 * 1024
_MAX_COVER_BYTES = 16 * 1024 * 1024
# Untyped in mutagen.
_PICTURE: Any = Picture
_APIC: Any = APIC
_COMM: Any = COMM
_COVER: Any = MP4Cover
_TAG: Any = ID3
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
    data = FileBytes(source)
    container = container_of(data) or ""
    try:
        found = _from_comments_of(container, source) if container in _COMMENTS else _from_id3_in(container, data)
    except (mutagen.MutagenError, ValueError, KeyError, IndexError, AttributeError, TypeError):
        return Tags({})
    texts = {name: text for name, text in found.texts.items() if len(text) <= _MAX_TEXT_CHARACTERS}
    return Tags(texts, found.cover if found.cover and len(found.cover[0]) <= _MAX_COVER_BYTES else None)


def _from_id3_in(container: str, data: FileBytes) -> Tags:
    chunks = wav_chunks(data) if container == "wav" else aiff_chunks(data) if container == "aiff" else ()
    at = next((at for name, at, _ in chunks if name in (b"id3 ", b"ID3 ")), 0)
    last = data[max(0, len(data) - _ID3V1_BYTES) :] if container == "mp3" else b""
    tag = wanted_frames(data, at, _ID3_NAMES) + (last if last[:3] == b"TAG" else b"")
    return _from_id3(_TAG(io.BytesIO(tag))) if tag else Tags({})


def _from_comments_of(container: str, source: BinaryIO) -> Tags:
    bounded: Any = _BoundedReader(source)
    kinds: Any = _COMMENTS[container]
    file: Any = kinds[0](bounded) if len(kinds) == 1 else mutagen.File(bounded, options=kinds)
    if file is None or file.tags is None:
        return Tags({})
    return _from_atoms(file.tags) if isinstance(file, MP4) else _from_comments(file)


class _BoundedReader:
    """A file that is read from its start, for at most `_MAX_READ_BYTES` in all: more raises MutagenError."""

    def __init__(self, source: BinaryIO) -> None:
        self._source, self._left_bytes = source, _MAX_READ_BYTES
        self.seek, self.tell = source.seek, source.tell
        source.seek(0)

    def read(self, size: int = -1) -> bytes:
        found = self._source.read(self._left_bytes + 1 if size < 0 else min(size, self._left_bytes + 1))
        self._left_bytes -= len(found)
        if self._left_bytes < 0:
            raise mutagen.MutagenError("too much to read")
        return found


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
