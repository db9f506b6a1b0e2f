"""The C library's heap: what a song's pieces leave free stays with the process, for the next pieces."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD."""
_KEPT_BYTES = 64 * 1024 * 1024
_LARGEST_PIECE_BYTES = 8 * 1024 * 1024


def keep_what_is_freed() -> None:
    """Up to 64 MiB. glibc gives half a mebibyte back as soon as it is free, and the kernel clears each page anew, which
    is a tenth of what receiving a master takes. Other C libraries do as they like."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGEST_PIECE_BYTES)
