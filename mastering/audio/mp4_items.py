"""Texts and pictures of an MP4's item list (moov, udta, meta, ilst), read within bounds.

The tag library builds an object of each box of a file, and of each value of an item. Here a bounded number of boxes is
looked at, and only items that are wanted are copied.

Sources: ISO 14496-12 (boxes), QuickTime File Format (metadata item list), the atoms and types that iTunes writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mutagen.id3 import TCON

from mastering.audio.riff import RandomAccessBytes
from mastering.audio.tag_allowance import MAX_FIELDS, Allowance
from mastering.audio.tag_fields import FIELDS, FREE_NAMES, NUMBERS, Texts, by_free_names
from mastering.audio.tag_record import TagPicture, picture

_MAX_BOXES = 16384
"""Looked at until the item list ends; a library writes some five for each item, and hardly any before the list."""
_PATH = (b"moov", b"udta", b"meta", b"ilst")
_META_BYTES = 4
"""Of a meta box, before the boxes in it."""
_HOST = b"com.apple.iTunes"
_NAME_BYTES = 128
_PAIRS = {one.mp4: (one.name, NUMBERS[one.name]) for one in FIELDS if one.name in NUMBERS and one.mp4[0] != "\xa9"}
_ATOMS = {one.mp4: one.name for one in FIELDS if one.is_atom and one.mp4 not in _PAIRS}
_WHOLE_NUMBERS = ("tmpo", "cpil", "\xa9mvi", "\xa9mvc")
_UTF16 = 2
"""Type of a value; every other text is UTF-8."""
_PICTURE_TYPES = {13: "image/jpeg", 14: "image/png", 12: "image/gif", 27: "image/bmp"}

_Values = list[tuple[int, bytes]]
"""Type and bytes of each."""


@dataclass
class _Boxes:
    """The boxes of a file, of which only so many are looked at."""

    data: RandomAccessBytes
    left: int = _MAX_BOXES

    def within(self, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Name, first byte of the content and end of each box that is whole."""
        while self.left > 0:
            self.left -= 1
            head = self.data[at : min(at + 16, end)]
            size, start = int.from_bytes(head[:4], "big"), at + 8
            if size == 1:
                size, start = int.from_bytes(head[8:16], "big"), at + 16
            at = end if size == 0 else at + size
            if not start <= at <= end:
                return
            yield head[4:8], start, at

    def at_path(self, path: tuple[bytes, ...], at: int, end: int) -> Iterator[tuple[int, int]]:
        """First byte and end of each box at `path`."""
        if not path:
            yield at, end
            return
        for name, start, stop in self.within(at, end):
            if name == path[0]:
                yield from self.at_path(path[1:], start + (_META_BYTES if name == b"meta" else 0), stop)


def read(data: RandomAccessBytes, allowance: Allowance) -> tuple[Texts, list[TagPicture]]:
    """Texts and pictures of the first item list. Of a field in two places an atom counts before a freeform item."""
    boxes = _Boxes(data)
    atoms: dict[str, list[str]] = {}
    free: dict[str, list[str]] = {}
    pictures: list[TagPicture] = []
    place = next(boxes.at_path(_PATH, 0, len(data)), (0, 0))
    for number, (name, at, end) in enumerate(boxes.within(*place)):
        if number == MAX_FIELDS:
            allowance.ends()
            break
        if name == b"covr":
            kept = _values(boxes, at, end, allowance.takes_picture)
            pictures += [picture(content, _PICTURE_TYPES.get(kind, "image/jpeg")) for kind, content in kept]
        elif name == b"----":
            field_name = _free_name(boxes, at, end)
            if field_name in FREE_NAMES:
                free.setdefault(field_name, []).extend(_texts(_values(boxes, at, end, allowance.takes_text)))
        elif (atom := name.decode("latin-1")) in _READERS:
            for field_name, values in _READERS[atom](atom, _values(boxes, at, end, allowance.takes_text)):
                atoms.setdefault(field_name, []).extend(values)
    if not boxes.left:
        allowance.left_out.add(f"what stands behind the first {_MAX_BOXES} boxes")
    return by_free_names(free) | by_free_names(atoms), pictures


def _values(boxes: _Boxes, at: int, end: int, takes: Callable[[int], bool]) -> _Values:
    """Type and bytes of each value of an item, as far as it may be taken."""
    places = [(start, stop) for name, start, stop in boxes.within(at, end) if name == b"data" and stop - start >= 8]
    return [
        (int.from_bytes(boxes.data[start + 1 : start + 4], "big"), boxes.data[start + 8 : stop])
        for start, stop in places
        if takes(stop - start - 8)
    ]


def _free_name(boxes: _Boxes, at: int, end: int) -> str:
    """The name of a freeform item of iTunes, in lower case; empty for one of another program."""
    parts = {
        name: boxes.data[start + 4 : min(stop, start + 4 + _NAME_BYTES)]
        for name, start, stop in boxes.within(at, end)
        if name in (b"mean", b"name")
    }
    return parts.get(b"name", b"").decode("ascii", "replace").lower() if parts.get(b"mean") == _HOST else ""


def _texts(values: _Values) -> list[str]:
    return [content.decode("utf-16-be" if kind == _UTF16 else "utf-8", "replace") for kind, content in values]


def _text(atom: str, values: _Values) -> Iterator[tuple[str, list[str]]]:
    yield _ATOMS[atom], _texts(values)


def _whole_number(atom: str, values: _Values) -> Iterator[tuple[str, list[str]]]:
    yield _ATOMS[atom], [_number(content) for _, content in values]


def _pair(atom: str, values: _Values) -> Iterator[tuple[str, list[str]]]:
    """A number and a total, behind two bytes of nothing."""
    for field_name, at in zip(_PAIRS[atom], (2, 4), strict=True):
        yield field_name, [_number(content[at : at + 2]) for _, content in values]


def _genre(_: str, values: _Values) -> Iterator[tuple[str, list[str]]]:
    """A number of ID3v1's list, and one."""
    numbers = [int.from_bytes(content[:2], "big") for _, content in values]
    yield "genre", [TCON.GENRES[number - 1] for number in numbers if 0 < number <= len(TCON.GENRES)]


_READERS: dict[str, Callable[[str, _Values], Iterator[tuple[str, list[str]]]]] = {
    **dict.fromkeys(_ATOMS, _text),
    **dict.fromkeys(_WHOLE_NUMBERS, _whole_number),
    **dict.fromkeys(_PAIRS, _pair),
    "gnre": _genre,
}


def _number(content: bytes) -> str:
    """In digits; empty for zero, which stands for none."""
    return str(int.from_bytes(content, "big") or "")
