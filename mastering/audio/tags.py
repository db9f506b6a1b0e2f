"""Read a song's tags and pictures, and write them to its masters.

Nothing is invented. The fields and their names in each container stand in `tag_fields`; what a master's container
cannot hold is said by `write`. Read are ID3 in MP3, WAV and AIFF, Vorbis comments in FLAC and Ogg, items in MP4, APE
tags at a file's end, INFO lists and the broadcast extension of a WAV, text chunks of an AIFF.

A stranger's tags are bounded in bytes, fields and pictures before they are read; nothing in them is inflated.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import mutagen
from mutagen.id3 import ID3, Frames_2_2

from mastering.audio import ape_items, bwf, comment_blocks, mp4_items
from mastering.audio.container import container_of, id3_end
from mastering.audio.id3_frames import Wanted, wanted_frames
from mastering.audio.riff import FileBytes, aiff_chunks, wav_chunks
from mastering.audio.tag_allowance import Allowance
from mastering.audio.tag_fields import FIELDS, FREE_NAMES, NUMBERS, Texts, by_free_names
from mastering.audio.tag_record import TagPicture, Tags, picture
from mastering.audio.tag_writing import write

__all__ = ["TagPicture", "Tags", "read", "write"]

_Found = tuple[Texts, list[TagPicture]]
_DATES_OF_2_3 = {"TYER", "TDAT", "TIME", "TORY", "IPLS"}
"""Frames of ID3v2.3 of which mutagen makes those of version 2.4."""
_READ = {name for field in FIELDS for name in field.id3.split(":")[0].split()} | _DATES_OF_2_3 | {"APIC", "TXXX"}
_OF_2_2 = {name for name, frame in Frames_2_2.items() if getattr(frame.__base__, "__name__", "") in _READ}
_WANTED = Wanted(_READ | _OF_2_2, tuple(FREE_NAMES))
_AIFF_TEXTS = {b"NAME": "title", b"AUTH": "artist", b"(c) ": "copyright", b"ANNO": "comment"}
_UNREAD = ("asf", "caf", "webm")
_ID3V1_BYTES = 128
_MAX_CHARACTERS = 64 * 1024
_ITUNES_COMMENT = "itun"
"""How a comment begins that iTunes writes for itself: loudness (iTunNORM), gaps (iTunSMPB), a disc's identity."""
_TAG: Any = ID3  # Untyped in mutagen.


def read(source: BinaryIO) -> Tags:
    """The song's tags; none where there are none or they cannot be read."""
    allowance = Allowance()
    try:
        texts, pictures = _read(FileBytes(source), allowance)
    except (mutagen.MutagenError, ValueError, KeyError, IndexError, AttributeError, TypeError, struct.error):
        texts, pictures = {}, []
        allowance.left_out.add("what stands in a tag that cannot be read")
    info, broadcast = bwf.read(source)
    own = bwf.texts_of(broadcast) if broadcast else {}
    tidied = _tidied(own | info | texts, allowance)
    left_out = ", ".join(sorted(allowance.left_out))
    remarks = (f"Left out of the song's tags: {left_out}.",) if left_out else ()
    return Tags(tidied, tuple(pictures), broadcast, remarks)


def _read(data: FileBytes, allowance: Allowance) -> _Found:
    container = container_of(data) or ""
    if container in ("wav", "aiff"):
        chunks = list(wav_chunks(data) if container == "wav" else aiff_chunks(data))
        at = next((at for name, at, _ in chunks if name in (b"id3 ", b"ID3 ")), 0)
        texts, pictures = _from_id3(wanted_frames(data, at, _WANTED, allowance))
        return (_from_chunks(data, chunks, allowance) if container == "aiff" else {}) | texts, pictures
    if container == "mp4":
        return mp4_items.read(data, allowance)
    if container in _COMMENTS:
        return _COMMENTS[container](data, id3_end(data), allowance)
    if container in _UNREAD:
        allowance.left_out.add("those of a WMA, CAF or WebM file")
        return {}, []
    return _from_both_ends(data, allowance)


_COMMENTS: dict[str, Callable[[FileBytes, int, Allowance], _Found]] = {
    "flac": comment_blocks.flac,
    "ogg": comment_blocks.ogg,
}


def _from_chunks(data: FileBytes, chunks: list[tuple[bytes, int, int]], allowance: Allowance) -> Texts:
    """Of an AIFF's own texts."""
    texts: dict[str, list[str]] = {}
    for name, at, size in chunks:
        if name in _AIFF_TEXTS and allowance.takes_text(size):
            texts.setdefault(_AIFF_TEXTS[name], []).append(bwf.text_of(data[at : at + size]))
    return by_free_names(texts)


def _from_both_ends(data: FileBytes, allowance: Allowance) -> _Found:
    """ID3v2 in front counts most, then an APE tag behind, then ID3v1, which cuts what it says short."""
    front, pictures = _from_id3(wanted_frames(data, 0, _WANTED, allowance))
    behind, others = ape_items.read(data, allowance)
    last = data[max(0, len(data) - _ID3V1_BYTES) :]
    short = _from_id3(last)[0] if last[:3] == b"TAG" and not front else {}
    return short | behind | front, pictures or others


def _from_id3(tag: bytes) -> _Found:
    if not tag:
        return {}, []
    frames = _TAG(io.BytesIO(tag))
    free: dict[str, list[str]] = {}
    for frame in frames.getall("TXXX"):
        free.setdefault(frame.desc.lower(), []).extend(frame.text)
    own = {field.name: tuple(_of_frames(frames, field.id3, field.name)) for field in FIELDS}
    pictures = [picture(one.data, one.mime, int(one.type), one.desc) for one in frames.getall("APIC")]
    held = {name: values for name, values in own.items() if values}
    return by_free_names(free) | held, [one for one in pictures if one.media_type != "-->"]


def _of_frames(frames: Any, names: str, field: str) -> list[str]:
    """The values of the first of these frames that has some."""
    kind, _, description = names.partition(":")
    if kind in _SPECIAL_FRAMES:
        return _SPECIAL_FRAMES[kind](frames, description)
    if field in NUMBERS.values():
        return []
    return next((values for name in kind.split() if (values := _plain(frames, name))), [])


def _plain(frames: Any, name: str) -> list[str]:
    frame = frames.get(name)
    return [] if frame is None else [str(text) for text in frame.text]


def _comments(frames: Any, _: str) -> list[str]:
    """Those without a description or with one that only counts them; else those of whatever program but iTunes."""
    all_of_them = [one for one in frames.getall("COMM") if not one.desc.lower().startswith(_ITUNES_COMMENT)]
    plain = [one for one in all_of_them if not one.desc or one.desc.isdecimal()]
    return [text for one in plain or all_of_them for text in one.text]


def _lyrics(frames: Any, _: str) -> list[str]:
    return [one.text for one in frames.getall("USLT")]


def _identifiers(frames: Any, owner: str) -> list[str]:
    return [one.data.decode("ascii", "replace") for one in frames.getall("UFID") if one.owner == owner]


def _people(frames: Any, role: str) -> list[str]:
    pairs = [pair for one in frames.getall("TIPL") for pair in one.people]
    return [pair[1] for pair in pairs if len(pair) == 2 and pair[0].lower() == role.lower()]


def _performers(frames: Any, _: str) -> list[str]:
    """As Vorbis comments have them: the name, and the instrument in brackets."""
    pairs = [pair for one in frames.getall("TMCL") for pair in one.people if len(pair) == 2]
    return [f"{name} ({instrument})" if instrument else name for instrument, name in pairs]


_SPECIAL_FRAMES: dict[str, Callable[[Any, str], list[str]]] = {
    "COMM": _comments,
    "USLT": _lyrics,
    "UFID": _identifiers,
    "TIPL": _people,
    "TMCL": _performers,
    "TXXX": lambda frames, description: [],
}
"""Frames that are not a list of texts; TXXX is read by its free names."""


def _tidied(texts: Texts, allowance: Allowance) -> Texts:
    """Each value once, none that is empty or too long, numbers and totals apart."""
    tidied: Texts = {}
    for name, values in _with_totals(texts).items():
        clean = dict.fromkeys(value.replace("\0", "") for value in values)
        kept = tuple(value for value in clean if value.strip() and len(value) <= _MAX_CHARACTERS)
        tidied |= {name: kept} if kept else {}
        if any(len(value) > _MAX_CHARACTERS for value in clean):
            allowance.left_out.add(f"values above {_MAX_CHARACTERS} characters")
    return tidied


def _with_totals(texts: Texts) -> Texts:
    """Of a number that stands as 3/12, the total in a field of its own."""
    apart = dict(texts)
    for number, total in NUMBERS.items():
        pairs = [_number_and_total(value) for value in texts.get(number, ())]
        apart[number] = tuple(first for first, _ in pairs)
        apart[total] = texts.get(total) or tuple(second for _, second in pairs)
    return apart


def _number_and_total(value: str) -> tuple[str, str]:
    number, _, total = (part.strip() for part in value.partition("/"))
    if not total.isdecimal():
        return value, ""
    return ("" if number == "0" else number), ("" if int(total) == 0 else total)
