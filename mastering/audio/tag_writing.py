"""Write tags to a finished master: ID3v2.4 and INFO in WAV, ID3v2.4 in MP3, comments in FLAC and Ogg, items in M4A.

In place, whatever the master's size. What its container cannot hold is said in a sentence.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, BinaryIO

import mutagen
import mutagen.id3
from mutagen.flac import FLAC, Picture
from mutagen.id3 import ID3
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from mastering.audio import bwf
from mastering.audio.tag_fields import FIELDS, NUMBERS, WORDS, Field, Texts
from mastering.audio.tag_record import FRONT_COVER, TagPicture, Tags
from mastering.contract import Fault, FaultCode, Measurements, OutputFormat

_WAV_BITS = {OutputFormat.WAV16: "16", OutputFormat.WAV24: "24", OutputFormat.WAV32F: "32"}
_DATE = re.compile(r"(\d{4}(-\d\d?(-\d\d?([T ]\d\d?(:\d\d?(:\d\d?)?)?)?)?)?)(\.\d+)?Z?")
"""What an ID3 time stamp can say, which is in UTC."""
_DATES = ("date", "originaldate")
_UTF8 = 3
"""An ID3 frame's encoding."""
_FLAC_PICTURE_BYTES = (1 << 24) - 1
"""Of a FLAC metadata block, whose length has three bytes."""
_COVER_KINDS = {"image/jpeg": MP4Cover.FORMAT_JPEG, "image/png": MP4Cover.FORMAT_PNG}
_PAIRS = ("trkn", "disk")
_MOST_OF_PAIR = (1 << 16) - 1
_MOST_OF_WHOLE = {"tmpo": (1 << 15) - 1, "\xa9mvi": (1 << 15) - 1, "\xa9mvc": (1 << 15) - 1, "cpil": 1}
"""The largest number of each atom that holds a whole one; of `cpil`, yes."""
# Untyped in mutagen.
_PICTURE: Any = Picture
_COVER: Any = MP4Cover
_FREE: Any = MP4FreeForm
_FRAMES: Any = mutagen.id3
_CONTAINERS: dict[str, Any] = {
    "wav": WAVE,
    "flac": FLAC,
    "m4a": MP4,
    "mp3": MP3,
    "opus": OggOpus,
    "ogg": OggVorbis,
}


def write(target: BinaryIO, kind: OutputFormat, tags: Tags, after: Measurements) -> str:
    """Add `tags` to a finished master that measures `after`; a sentence on what it does not hold, or nothing.

    Raises Fault where a write broke off in the middle, which spoils the master.
    """
    size = target.seek(0, io.SEEK_END)
    try:
        whole = kind not in _WAV_BITS or bwf.write(target, tags.texts, tags.broadcast, after, _WAV_BITS[kind])
        size = target.seek(0, io.SEEK_END)
        lost = _add(target, kind, tags) if tags.texts or tags.pictures else []
    except (mutagen.MutagenError, ValueError, TypeError, KeyError):
        # mutagen builds what it will write before it writes: a file of the same size was not touched.
        if target.seek(0, io.SEEK_END) != size:
            raise Fault(FaultCode.BAD_MASTER, "The tags could not be written whole. Try again without them.") from None
        whole, lost = False, []
    target.seek(0)
    if not whole:
        return f"The tags could not be written to the {kind.label}."
    if tags.broadcast is not None and kind not in _WAV_BITS:
        lost += bwf.only_in_wav(tags.broadcast)
    return f"The {kind.label} cannot hold all of the song's tags: {', '.join(lost)}." if lost else ""


def _add(whole: BinaryIO, kind: OutputFormat, tags: Tags) -> list[str]:
    """In words, what the container cannot hold."""
    whole.seek(0)
    file = _CONTAINERS[kind.extension](whole)
    if file.tags is None:
        file.add_tags()
    if isinstance(file, MP4):
        lost = _to_items(file.tags, tags)
    elif isinstance(file.tags, ID3):
        lost = _to_id3(file.tags, tags)
    else:
        lost = _to_comments(file, tags)
    whole.seek(0)
    file.save(whole)
    return lost


def _to_comments(file: Any, tags: Tags) -> list[str]:
    for name, values in tags.texts.items():
        file.tags[name.upper()] = list(values)
    blocks = [_flac_picture(one) for one in tags.pictures]
    if not hasattr(file, "add_picture"):
        if blocks:
            file.tags["METADATA_BLOCK_PICTURE"] = [base64.b64encode(one.write()).decode() for one in blocks]
        return []
    held = [one for one in blocks if len(one.write()) <= _FLAC_PICTURE_BYTES]
    for one in held:
        file.add_picture(one)
    return [] if len(held) == len(blocks) else ["a picture of 16 MiB"]


def _flac_picture(one: TagPicture) -> Any:
    block = _PICTURE()
    block.data, block.mime, block.type, block.desc = one.data, one.media_type, one.type, one.description
    return block


def _to_id3(frames: Any, tags: Tags) -> list[str]:
    texts = tags.texts | {name: _stamps(tags.texts.get(name, ())) for name in _DATES}
    people: list[list[str]] = []
    for field in FIELDS:
        values = texts.get(field.name, ())
        if field.name in NUMBERS:
            values = tuple(_as_parts(values, texts.get(NUMBERS[field.name], ())))
        kind, _, description = field.id3.partition(":")
        if kind == "TIPL":
            people += [[description, value] for value in values]
        elif values and field.name not in NUMBERS.values():
            for frame in _frames(kind.split()[0], description, values):
                frames.add(frame)
    if people:
        frames.add(_FRAMES.TIPL(encoding=_UTF8, people=people))
    for number, one in enumerate(tags.pictures):
        # Under a key of its own: mutagen's is the description, of which two pictures may have the same.
        frames[f"APIC:{number}"] = _FRAMES.APIC(
            encoding=_UTF8, mime=one.media_type, type=one.type, desc=one.description, data=one.data
        )
    lost = [WORDS[name] for name in _DATES if len(texts[name]) < len(tags.texts.get(name, ()))]
    ones = [field for field in FIELDS if field.id3.startswith("UFID") and len(texts.get(field.name, ())) > 1]
    return lost + [f"more than one {field.words}" for field in ones]


def _stamps(dates: Sequence[str]) -> tuple[str, ...]:
    found = [_DATE.fullmatch(date) for date in dates]
    return tuple(stamp[1] for stamp in found if stamp)


def _frames(kind: str, description: str, values: Sequence[str]) -> list[Any]:
    if kind == "COMM":
        return [_FRAMES.COMM(encoding=_UTF8, lang="XXX", desc=_nth(at), text=[one]) for at, one in enumerate(values)]
    if kind == "USLT":
        return [_FRAMES.USLT(encoding=_UTF8, lang="XXX", desc=_nth(at), text=one) for at, one in enumerate(values)]
    if kind == "UFID":
        return [_FRAMES.UFID(owner=description, data=values[0].encode())]
    if kind == "TMCL":
        return [_FRAMES.TMCL(encoding=_UTF8, people=[_instrument_and_name(one) for one in values])]
    if kind == "TXXX":
        return [_FRAMES.TXXX(encoding=_UTF8, desc=description, text=list(values))]
    return [getattr(_FRAMES, kind)(encoding=_UTF8, text=list(values))]


def _nth(at: int) -> str:
    """What tells a second comment from the first: ID3 allows one of each language and description."""
    return str(at + 1) if at else ""


def _instrument_and_name(performer: str) -> list[str]:
    name, bracket, instrument = performer.rpartition(" (")
    return [instrument[:-1], name] if bracket and instrument.endswith(")") else ["", performer]


def _as_parts(numbers: Sequence[str], totals: Sequence[str]) -> Iterator[str]:
    for number, total in zip_longest(numbers, totals, fillvalue=""):
        yield f"{number or 0}/{total}" if total else number


def _to_items(items: Any, tags: Tags) -> list[str]:
    lost = []
    for field in FIELDS:
        values = tags.texts.get(field.name, ())
        if field.mp4 in _PAIRS:
            # A number and its total are two fields and one atom, written with the first of them.
            lost += _to_pairs(items, field, tags.texts) if field.name in NUMBERS else []
        elif values and field.mp4 in _MOST_OF_WHOLE:
            lost += _to_whole_numbers(items, field, values)
        elif field.is_atom:
            if values:
                items[field.mp4] = list(values)
        elif values:
            items[f"----:com.apple.iTunes:{field.mp4}"] = [_FREE(value.encode()) for value in values]
    return lost + _to_covers(items, tags.pictures)


def _to_pairs(items: Any, field: Field, texts: Texts) -> list[str]:
    both = field.name, NUMBERS[field.name]
    pairs = list(zip_longest(*(texts.get(name, ()) for name in both), fillvalue="0"))
    held = [tuple(_whole(part, _MOST_OF_PAIR) for part in pair) for pair in pairs]
    if any(any(pair) for pair in held):
        items[field.mp4] = [(number or 0, total or 0) for number, total in held]
    columns = zip(both, zip(*pairs, strict=True), zip(*held, strict=True), strict=False)
    return [WORDS[name] for name, values, numbers in columns if not all(map(_same, values, numbers))]


def _to_whole_numbers(items: Any, field: Field, values: Sequence[str]) -> list[str]:
    held = [_whole(value, _MOST_OF_WHOLE[field.mp4]) for value in values]
    if field.mp4 == "cpil":
        items[field.mp4] = bool(held[0])
    elif any(held):
        items[field.mp4] = [number for number in held if number]
    return [] if all(map(_same, values, held)) else [field.words]


def _whole(value: str, most: int) -> int | None:
    """The nearest whole number up to `most`; None for what is none."""
    try:
        number = round(float(value))
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= most else None


def _same(value: str, number: int | None) -> bool:
    return number is not None and float(value) == number


def _to_covers(items: Any, pictures: Sequence[TagPicture]) -> list[str]:
    """Pictures without type or description, the front cover first: programs show the first."""
    held = [one for one in pictures if one.media_type in _COVER_KINDS]
    if held:
        in_order = sorted(held, key=lambda one: one.type != FRONT_COVER)
        items["covr"] = [_COVER(one.data, imageformat=_COVER_KINDS[one.media_type]) for one in in_order]
    lost = {
        "pictures other than JPEG and PNG": len(held) < len(pictures),
        "types of pictures": any(one.type != FRONT_COVER for one in held),
        "descriptions of pictures": any(one.description for one in held),
    }
    return [words for words, is_lost in lost.items() if is_lost]
