"""Texts of a broadcast WAV (`bext`, INFO, iXML), read from one file and written to another.

EBU Tech 3285 v2 (the `bext` chunk), EBU R 98 (the line that each process adds to the coding history), RIFF INFO lists
(Multimedia Programming Interface 1.0) and the iXML chunk, which is carried as it is. Texts here may name people:
nothing of them is ever logged.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mastering.audio.riff import FileBytes, wav_chunks
from mastering.audio.tag_allowance import MAX_FIELDS
from mastering.audio.tag_fields import FIELDS, Texts
from mastering.contract import ENGINE_VERSION, Measurements

_MOST_CHUNK_BYTES = 1 << 20
"""Of a chunk that is carried over; one of texts has a few kilobytes, and a larger one is left out."""
_FIXED_BYTES = 602
"""Of a bext chunk, before its coding history."""
_HEAD = struct.Struct("<256s32s32s10s8sQH64s5h180s")
_MOVE_BYTES = 1 << 20
"""Of a master, moved at a time to make room for chunks before its audio."""
_INFO = {field.info.encode(): field.name for field in FIELDS if field.info}
_ALSO_INFO = {b"IPRT": "tracknumber"}
"""Read, and not written."""
_MAX_LISTS = 4
_JOINT = "; "
"""Between values, of which an INFO list has one a field."""


@dataclass(frozen=True)
class Broadcast:
    """The `bext` chunk without what holds for the old file alone (its UMID and its loudness), and the iXML chunk."""

    description: bytes
    originator: bytes
    reference: bytes
    date: bytes
    time: bytes
    time_reference_s: float
    """Since midnight; in the file it stands in samples."""
    history: bytes
    ixml: bytes = b""


def read(source: BinaryIO) -> tuple[Texts, Broadcast | None]:
    """(texts of the INFO list, the broadcast extension) of a WAV; nothing of anything else."""
    texts: Texts = {}
    bext, ixml, rate_hz, lists = b"", b"", 0, 0
    for name, at, size in _chunks(source):
        if name not in (b"bext", b"iXML", b"fmt ", b"LIST") or size > _MOST_CHUNK_BYTES:
            continue
        source.seek(at)
        content = source.read(size)
        if name == b"bext" and len(content) >= _FIXED_BYTES:
            bext = content
        elif name == b"iXML":
            ixml = content
        elif name == b"fmt " and len(content) >= 8:
            rate_hz = struct.unpack_from("<I", content, 4)[0]
        elif content[:4] == b"INFO" and lists < _MAX_LISTS:
            texts |= _info(content[4:])
            lists += 1
    return texts, _broadcast(bext, ixml, rate_hz) if bext or ixml else None


def _broadcast(bext: bytes, ixml: bytes, rate_hz: int) -> Broadcast:
    fields = _HEAD.unpack_from(bext.ljust(_FIXED_BYTES, b"\0"))
    description, originator, reference, date, time = (field.split(b"\0")[0] for field in fields[:5])
    seconds = fields[5] / rate_hz if rate_hz else 0.0
    return Broadcast(description, originator, reference, date, time, seconds, bext[_FIXED_BYTES:].split(b"\0")[0], ixml)


def _chunks(source: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte of the content and size of each chunk of a WAV; none of any other file."""
    data = FileBytes(source)
    is_wav = data[:4] in (b"RIFF", b"RF64", b"BW64") and data[8:12] == b"WAVE"
    return wav_chunks(data) if is_wav else iter(())


def _info(content: bytes) -> Texts:
    texts: Texts = {}
    at = 0
    for _ in range(MAX_FIELDS):
        if at + 8 > len(content):
            break
        name, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        text = text_of(content[at + 8 : at + 8 + size])
        field = (_INFO | _ALSO_INFO).get(name)
        if field and text:
            texts[field] = (*texts.get(field, ()), text)
        at += 8 + size + size % 2
    return texts


def text_of(content: bytes) -> str:
    """The text of a chunk: ASCII once, UTF-8 as it is written today, Latin-1 where it is neither."""
    content = content.split(b"\0")[0]
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        return content.decode("latin-1").strip()


def texts_of(broadcast: Broadcast) -> Texts:
    """What a container without `bext` can say of it."""
    found = {"comment": text_of(broadcast.description), "date": text_of(broadcast.date)}
    return {name: (text,) for name, text in found.items() if text}


def only_in_wav(broadcast: Broadcast) -> list[str]:
    """In words, what a container without `bext` cannot say of it."""
    held = {
        "originator": broadcast.originator + broadcast.reference,
        "time reference": broadcast.time.strip(b"\0 ") or broadcast.time_reference_s,
        "coding history": broadcast.history,
        "iXML": broadcast.ixml,
    }
    return [words for words, content in held.items() if content]


def write(target: BinaryIO, texts: Texts, broadcast: Broadcast | None, after: Measurements, bits: str) -> bool:
    """Put an INFO list and `broadcast` into a finished WAV, before its sound; False where there is no room (RF64).

    The coding history gets a line, and the loudness fields are those of the master.
    """
    found = next((at for name, at, _ in _chunks(target) if name == b"data"), None)
    whole = target.seek(0, io.SEEK_END)
    chunks = _list_chunk(texts)
    if broadcast is not None:
        chunks += _chunk(b"bext", _bext(broadcast, after, bits))
        chunks += _chunk(b"iXML", broadcast.ixml) if broadcast.ixml else b""
    target.seek(0)
    if found is None or target.read(4) != b"RIFF" or whole + len(chunks) - 8 > 0xFFFFFFFF:
        return False
    _insert(target, chunks, found - 8, whole)
    target.seek(4)
    target.write(struct.pack("<I", whole + len(chunks) - 8))
    return True


def _list_chunk(texts: Texts) -> bytes:
    """For the many programs that look for no ID3 in a WAV."""
    held = [_chunk(name, _JOINT.join(texts[key]).encode() + b"\0") for name, key in _INFO.items() if key in texts]
    return _chunk(b"LIST", b"INFO" + b"".join(held)) if held else b""


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _bext(broadcast: Broadcast, after: Measurements, bits: str) -> bytes:
    mode = "stereo" if after.channels == 2 else "mono"
    line = f"A=PCM,F={after.rate_hz},W={bits},M={mode},T=mastering {ENGINE_VERSION}\r\n".encode()
    history = broadcast.history
    history += b"" if not history or history.endswith(b"\n") else b"\r\n"
    read = (
        after.integrated_lufs,
        after.loudness_range_lu,
        after.true_peak_dbtp,
        after.max_momentary_lufs,
        after.max_short_term_lufs,
    )
    samples = round(broadcast.time_reference_s * after.rate_hz)
    origin = (broadcast.description, broadcast.originator, broadcast.reference, broadcast.date, broadcast.time)
    return _HEAD.pack(*origin, samples, 2, b"", *map(_hundredths, read), b"") + history + line


def _hundredths(value: float | None) -> int:
    """Tech 3285 v2, 2.4: 0x7FFF where there is no value."""
    return 0x7FFF if value is None else round(100 * value)


def _insert(target: BinaryIO, what: bytes, at: int, size: int) -> None:
    """Move everything from `at` on, the end first, a piece at a time."""
    end = size
    while end > at:
        start = max(at, end - _MOVE_BYTES)
        target.seek(start)
        piece = target.read(end - start)
        target.seek(start + len(what))
        target.write(piece)
        end = start
    target.seek(at)
    target.write(what)
