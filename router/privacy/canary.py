"""Canaries: unique words put where personal data would be, and the search for them in every encoding.

A canary stands for a file's name, its tags, its samples or an address. After a song has gone through, it is searched
for as it is and as it would be written in a URL, in JSON, in hexadecimal, in base64 at each of its three offsets, and
as the digests that programs name things by.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import random
import secrets
import struct
import wave
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

_LARGEST_FILE_BYTES = 64 * 1024 * 1024
"""Files beyond this are not searched: no test song or log of one is that large, and each is read into memory."""
_RATE_HZ = 44_100
_SAMPLES_AT_S = 0.01
"""Seconds into the song at which the canary's samples stand."""


class Hit(NamedTuple):
    """A canary that was found: its name, the encoding, the place."""

    canary: str
    form: str
    place: str


def word(kind: str) -> str:
    """A new canary, unique, which URLs, JSON and shells each write differently (`ü`, `&`, a quote)."""
    return f'canary {kind} ü&"{secrets.token_hex(8)}'


def samples() -> bytes:
    """A new canary as 32 random 16-bit samples (64 bytes), quiet enough that no decoder clips them."""
    return struct.pack("<32h", *(random.SystemRandom().randrange(-2000, 2000) for _ in range(32)))


def forms(canary: bytes) -> dict[str, bytes]:
    """The canary in every encoding that is searched for, by the encoding's name."""
    found = {
        "raw": canary,
        "repr": repr(canary)[2:-1].encode(),
        "hex": canary.hex().encode(),
        "HEX": canary.hex().upper().encode(),
    }
    try:
        text = canary.decode()
    except UnicodeDecodeError:
        pass
    else:
        found["URL"] = quote(text, safe="").encode()
        found["URL path"] = quote(text).encode()
        found["URL plus"] = quote(text, safe="").replace("%20", "+").encode()
        found["JSON"] = json.dumps(text)[1:-1].encode()
        found["JSON UTF-8"] = json.dumps(text, ensure_ascii=False)[1:-1].encode()
        found["UTF-16"] = text.encode("utf-16-le")
        found["Latin-1"] = text.encode("latin-1", "replace")
    for offset in range(3):
        found[f"base64+{offset}"] = plain = _base64(canary, offset)
        found[f"base64url+{offset}"] = plain.replace(b"+", b"-").replace(b"/", b"_")
    for name in ("sha256", "sha1", "md5"):
        digest = hashlib.new(name, canary, usedforsecurity=False).digest()
        found |= {name: digest.hex().encode(), f"{name} bytes": digest, f"{name} base64": base64.b64encode(digest)[:-2]}
    return found


def _base64(canary: bytes, offset: int) -> bytes:
    """The part of its base64 that is the same whatever stands before it (`offset` bytes of a group) and after it."""
    whole = base64.b64encode(bytes(offset) + canary)
    return whole[-(-8 * offset // 6) : 8 * (offset + len(canary)) // 6]


class CanarySearch:
    """Searches bytes, files and processes for canaries (name → bytes) in every encoding."""

    def __init__(self, canaries: Mapping[str, bytes]) -> None:
        self._forms = {(name, form): bytes_ for name, one in canaries.items() for form, bytes_ in forms(one).items()}

    def within(self, place: str, content: bytes) -> Iterator[Hit]:
        """Hits in `content`; `place` is how each names it."""
        yield from (Hit(*which, place) for which, form in self._forms.items() if form in content)

    def files(self, *folders: Path) -> Iterator[Hit]:
        """Hits in the names and the content of all files under the folders; one that is deleted meanwhile has none."""
        for folder in folders:
            for path in (folder, *folder.rglob("*")):
                yield from self.within(f"the name of {path.name}", str(path).encode("utf-8", "surrogateescape"))
                yield from self.within(str(path), _content(path))

    def processes(self, pids: Iterable[int]) -> Iterator[Hit]:
        """Hits in the processes' command lines and environments, where we may read them."""
        for pid in pids:
            for what in ("cmdline", "environ"):
                yield from self.within(f"{what} of process {pid}", _content(Path(f"/proc/{pid}/{what}")))


def _content(path: Path) -> bytes:
    try:
        if path.is_file() and path.stat().st_size <= _LARGEST_FILE_BYTES:
            return path.read_bytes()
    except OSError:
        pass
    return b""


def song(pattern: bytes, tag: str, seconds: float = 3.0) -> bytes:
    """A 16-bit stereo WAV with `pattern` in its samples and `tag` in its BWF description and its INFO list."""
    draw = random.Random(7)  # noqa: S311 — noise for a song
    at = 2 * round(_SAMPLES_AT_S * _RATE_HZ)
    tones = [
        round(7000 * math.sin(2 * math.pi * 220 * n / _RATE_HZ) * (1 - n % 22_050 / 22_050) + draw.gauss(0, 900))
        for n in range(round(seconds * _RATE_HZ))
    ]
    pcm = bytearray(struct.pack(f"<{2 * len(tones)}h", *(tone for tone in tones for _ in range(2))))
    pcm[2 * at : 2 * at + len(pattern)] = pattern
    plain = io.BytesIO()
    with wave.open(plain, "wb") as out:
        out.setparams((2, 2, _RATE_HZ, 0, "NONE", ""))
        out.writeframes(bytes(pcm))
    text = tag.encode()
    info = b"INFO" + _chunk(b"INAM", text + b"\0") + _chunk(b"IART", text + b"\0")
    bext = text[:256].ljust(256, b"\0") + bytes(602 - 256)
    riff = plain.getvalue() + _chunk(b"LIST", info) + _chunk(b"bext", bext)
    return riff[:4] + struct.pack("<I", len(riff) - 8) + riff[8:]


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
