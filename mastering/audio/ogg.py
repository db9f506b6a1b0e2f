"""The recordings of an Ogg file: a chain of them, one behind the other, is one song (RFC 3533, section 4).

Decoders read on from one to the next at their own discretion: libsndfile stops at the first, FFmpeg's libraries count
the ends between them wrong. So the chain is taken apart here, and each link is decoded as a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from mastering.audio.riff import RandomAccessBytes

MAX_LINKS = 256
"""Of a chain: an evening's recording of a radio station has a few dozen."""
_MAX_STREAMS = 64
"""Side by side in one link."""
_MARK = b"OggS\0"
_BEGINNINGS = (_MARK + b"\2", _MARK + b"\6")
"""Of a page that is the first of its stream; the second one is the last as well."""
_LAST_OF_STREAM = 4
_HEADER_BYTES = 27
_PAGE_BYTES = 65_307
"""The largest (RFC 3533, section 6)."""
_PIECE_BYTES = 1 << 20
_MAX_LINKS_IN_PIECE = 16 * 1024
"""More than there is room for in one page's length: those may be broken off by the file's end."""


def links(data: RandomAccessBytes, start: int = 0) -> list[tuple[int, int]] | None:
    """First byte, and first byte behind it, of each link from `start` on; None for more than `MAX_LINKS`.

    A link begins where streams begin, all of them before any of them goes on.
    """
    starts, at = [start], _beginnings_end(data, start)
    while (found := _find_beginning(data, at)) is not None:
        if len(starts) == MAX_LINKS:
            return None
        starts.append(found)
        at = _beginnings_end(data, found)
    return list(zip(starts, [*starts[1:], len(data)], strict=True))


def _beginnings_end(data: RandomAccessBytes, at: int) -> int:
    """The first byte behind the pages from `at` on that begin a stream."""
    for _ in range(_MAX_STREAMS):
        size = _page_bytes(data, at)
        if size is None or data[at : at + 6] not in _BEGINNINGS:
            break
        at += size
    return at


def _find_beginning(data: RandomAccessBytes, at: int) -> int | None:
    """The first page from `at` on that begins a stream."""
    while at + _HEADER_BYTES <= len(data):
        piece = data[at : at + _PIECE_BYTES]
        marks = [found for mark in _BEGINNINGS for found in _each(piece, mark)]
        for found in sorted(marks):
            if _page_bytes(data, at + found):
                return at + found
        at += max(1, len(piece) - len(_MARK))
    return None


def _each(piece: bytes, mark: bytes) -> Iterator[int]:
    """The first few places of `mark`: all but those at the file's very end are whole pages."""
    found = -1
    for _ in range(_MAX_LINKS_IN_PIECE):
        found = piece.find(mark, found + 1)
        if found < 0:
            return
        yield found


def _page_bytes(data: RandomAccessBytes, at: int) -> int | None:
    """Bytes of the whole page at `at`; None where there is none."""
    header = data[at : at + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[:5] != _MARK:
        return None
    lacing = data[at + _HEADER_BYTES : at + _HEADER_BYTES + header[26]]
    size = _HEADER_BYTES + len(lacing) + sum(lacing)
    return size if at + size <= len(data) else None


def last_page(data: RandomAccessBytes) -> tuple[int, int, bool] | None:
    """Of the last page: its first byte, the first behind it (more than there are, where its end is missing), and
    whether it says that its stream ends there. None where there is no page."""
    start = max(0, len(data) - 2 * _PAGE_BYTES)
    tail = data[start : len(data)]
    at = tail.rfind(b"OggS")
    if at < 0 or at + _HEADER_BYTES > len(tail):
        return None
    lacing = tail[at + _HEADER_BYTES : at + _HEADER_BYTES + tail[at + 26]]
    end = at + _HEADER_BYTES + tail[at + 26] + sum(lacing)
    return start + at, start + end, bool(tail[at + 5] & _LAST_OF_STREAM)
