"""What a song says of itself, as it is read from one file and written to others."""

from __future__ import annotations

from dataclasses import dataclass

from mastering.audio.bwf import Broadcast
from mastering.audio.tag_fields import Texts

FRONT_COVER = 3
"""A picture's type in ID3 and FLAC, which share one list of them."""
_MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "image/jpg": "image/jpeg"}
"""Other names of two types: ID3v2.2 has three letters."""
_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"BM": "image/bmp"}


@dataclass(frozen=True)
class TagPicture:
    """A picture, what it shows (ID3's and FLAC's list of types) and its description."""

    data: bytes
    media_type: str
    type: int = FRONT_COVER
    description: str = ""


@dataclass(frozen=True)
class Tags:
    """What a song says of itself and its masters shall say too."""

    texts: Texts
    pictures: tuple[TagPicture, ...] = ()
    broadcast: Broadcast | None = None
    remarks: tuple[str, ...] = ()
    """What of the song's tags was not read, and why."""

    def __bool__(self) -> bool:
        return bool(self.texts) or bool(self.pictures) or self.broadcast is not None


def picture(data: bytes, media_type: str, type_: int = FRONT_COVER, description: str = "") -> TagPicture:
    """A picture whose media type is what its first bytes say, or else what its file says."""
    told = next((kind for first, kind in _SIGNATURES.items() if data.startswith(first)), media_type.lower())
    return TagPicture(data, _MEDIA_TYPES.get(told, told), type_, description)
