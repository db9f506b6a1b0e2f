"""How much of a stranger's tags is read: the one truth for every container's tags.

An honest tag has a few dozen fields and a cover; a hostile one has millions of fields, or one of gigabytes. Each reader
asks here before it copies anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_FIELDS = 4096
"""Looked at in one tag; music libraries write a few dozen."""
MAX_PICTURES_BYTES = 16 * 1024 * 1024
_MAX_PICTURES = 32
_MAX_TEXT_BYTES = 256 * 1024
_MAX_TEXTS_BYTES = 1024 * 1024


@dataclass
class Allowance:
    """What may still be copied out of one song's tags, and what was left out because there was too much of it."""

    left_out: set[str] = field(default_factory=set)
    """In words."""
    _text_bytes: int = _MAX_TEXTS_BYTES
    _picture_bytes: int = MAX_PICTURES_BYTES
    _pictures: int = _MAX_PICTURES

    def takes_text(self, size: int) -> bool:
        if size > min(_MAX_TEXT_BYTES, self._text_bytes):
            self.left_out.add("texts above 256 KiB, or 1 MiB in all")
            return False
        self._text_bytes -= size
        return True

    def takes_picture(self, size: int) -> bool:
        if size > self._picture_bytes or not self._pictures:
            self.left_out.add(f"pictures beyond {_MAX_PICTURES}, or 16 MiB in all")
            return False
        self._picture_bytes -= size
        self._pictures -= 1
        return True

    def ends(self) -> None:
        """Said by a reader that gives a tag up after MAX_FIELDS."""
        self.left_out.add(f"what stands behind the first {MAX_FIELDS} fields")
