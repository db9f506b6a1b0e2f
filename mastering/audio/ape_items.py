"""Texts and pictures of an APE tag at a file's end, read within bounds.

The tag library reads an item's name byte by byte into ever longer bytes, for as long as the file goes on; here a name
has at most 255 bytes, and only items that are wanted are copied.

Source: the APEv2 specification (hydrogenaudio wiki), and its APE key page for the names of pictures.
"""

from __future__ import annotations

from mastering.audio.riff import RandomAccessBytes
from mastering.audio.tag_allowance import MAX_FIELDS, Allowance
from mastering.audio.tag_fields import FREE_NAMES, Texts, by_free_names
from mastering.audio.tag_record import TagPicture, picture

_FOOTER_BYTES = 32
_ID3V1_BYTES = 128
_NAME_BYTES = 256
"""With the zero byte behind it."""
_TEXT, _BINARY = 0, 1
_SHOWN = (
    "other", "icon", "other icon", "front", "back", "leaflet", "media", "lead artist", "artist", "conductor", "band",
    "composer", "lyricist", "recording location", "during recording", "during performance", "video capture", "fish",
    "illustration", "band logotype", "publisher logotype",
)  # fmt: skip
_PICTURES = {f"cover art ({what})": number for number, what in enumerate(_SHOWN)}
"""An item's name in lower case, and the picture's type in ID3 and FLAC."""


def read(data: RandomAccessBytes, allowance: Allowance) -> tuple[Texts, list[TagPicture]]:
    """Nothing where the file has no APE tag at its end, or before an ID3v1 tag there."""
    has_id3v1 = data[max(0, len(data) - _ID3V1_BYTES) :][:3] == b"TAG"
    end = len(data) - (_ID3V1_BYTES if has_id3v1 else 0) - _FOOTER_BYTES
    footer = data[max(0, end) : max(0, end) + _FOOTER_BYTES]
    if end < 0 or footer[:8] != b"APETAGEX":
        return {}, []
    size, items = int.from_bytes(footer[12:16], "little"), int.from_bytes(footer[16:20], "little")
    at = max(0, end + _FOOTER_BYTES - size)
    found: dict[str, list[str]] = {}
    pictures: list[TagPicture] = []
    for _ in range(min(items, MAX_FIELDS)):
        head = data[at : min(at + 8 + _NAME_BYTES, end)]
        name, zero, _ = head[8:].partition(b"\0")
        first = at + 8 + len(name) + 1
        at = first + int.from_bytes(head[:4], "little")
        if not zero or at > end:
            break
        key, kind = name.decode("ascii", "replace").lower(), head[4] >> 1 & 3
        if kind == _TEXT and key in FREE_NAMES and allowance.takes_text(at - first):
            found[key] = data[first:at].decode(errors="replace").split("\0")
        elif kind == _BINARY and key in _PICTURES and allowance.takes_picture(at - first):
            # A file's name, whose ending tells the type.
            file_name, _, content = data[first:at].partition(b"\0")
            ending = file_name.decode(errors="replace").rpartition(".")[2]
            pictures.append(picture(content, ending, _PICTURES[key]))
    if items > MAX_FIELDS:
        allowance.ends()
    return by_free_names(found), pictures
