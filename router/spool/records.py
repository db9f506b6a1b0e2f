"""The form of an encrypted blob: a run of AES-256-GCM records, each of up to RECORD_BYTES plain bytes.

A record is a header ``!BI12s`` (last flag, plain length in bytes, nonce), then the ciphertext and its 16-byte tag.
Every blob has a key of its own and every record a fresh 96-bit random nonce (NIST SP 800-38D §8.2.2; a blob has far
fewer than 2³² records), so continuing after a crash can't use a nonce twice whatever the client sends next. The
associated data binds the record to its blob, its place and the last flag: records can't be moved, dropped at the end
or exchanged.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from router.spool.port import BlobGone

RECORD_BYTES = 576 * 1024
"""The more a record holds, the fewer trips to a thread. Three of them, and what comes in, are 2 MiB an upload."""
KEY_BYTES = 32
_HEADER = struct.Struct("!BI12s")
_TAG_BYTES = 16
_NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)
"""Linux; tmpfs does not know it."""


class CorruptRecord(BlobGone):
    """The ciphertext is not what was written: the audio is as good as gone."""


class RecordPosition(NamedTuple):
    """Where one record lies."""

    number: int
    position: int
    """Of its header in the file."""
    plain_start: int
    plain_size: int
    last: bool

    @property
    def end(self) -> int:
        return self.position + _HEADER.size + self.plain_size + _TAG_BYTES


def new_key() -> bytes:
    return AESGCM.generate_key(bit_length=8 * KEY_BYTES)


def seal(key: bytes, ref: str, index: int, plain: bytes | memoryview, room: memoryview, *, last: bool) -> int:
    """One record at the start of `room`: header, ciphertext and tag. How many bytes it takes."""
    nonce = secrets.token_bytes(12)
    size = _HEADER.size + len(plain) + _TAG_BYTES
    _HEADER.pack_into(room, 0, last, len(plain), nonce)
    AESGCM(key).encrypt_into(nonce, plain, _associated(ref, index, last), room[_HEADER.size : size])
    return size


def record_positions(fd: int) -> Iterator[RecordPosition]:
    """The whole records of a file, in order. A record that a crash cut short is not among them."""
    size, position, plain_start, index = os.fstat(fd).st_size, 0, 0, 0
    while True:
        header = os.pread(fd, _HEADER.size, position)
        if len(header) < _HEADER.size:
            return
        last, plain_size, _ = _HEADER.unpack(header)
        place = RecordPosition(index, position, plain_start, plain_size, bool(last))
        if place.end > size:
            return
        yield place
        position, plain_start, index = place.end, plain_start + plain_size, index + 1


def read_if_cached(fd: int, place: RecordPosition, room: memoryview) -> memoryview | None:
    """One record as it lies there, in `room`; None where that would take a disk, or nobody can say if it would."""
    record = room[: place.end - place.position]
    try:
        whole = _NO_WAIT and os.preadv(fd, [record], place.position, _NO_WAIT) == len(record)
    except OSError:
        return None
    return record if whole else None


def read_record(fd: int, place: RecordPosition) -> bytes:
    """One record as it lies there."""
    return os.pread(fd, place.end - place.position, place.position)


def read_record_into(fd: int, place: RecordPosition, room: memoryview) -> memoryview:
    """The same, at the start of `room`. Raises Corrupt where the file ends before it does."""
    record = room[: place.end - place.position]
    if os.preadv(fd, [record], place.position) != len(record):
        raise CorruptRecord(f"record {place.number} is not whole")
    return record


def unseal(record: bytes | memoryview, key: bytes, ref: str, place: RecordPosition) -> bytes:
    """The plain bytes of one record. Raises Corrupt."""
    with _authentic(place):
        return AESGCM(key).decrypt(*_sealed(record), _associated(ref, place.number, place.last))


def unseal_into(record: memoryview, key: bytes, ref: str, place: RecordPosition, room: memoryview) -> memoryview:
    """The same, at the start of `room`. Raises Corrupt."""
    plain = room[: place.plain_size]
    with _authentic(place):
        AESGCM(key).decrypt_into(*_sealed(record), _associated(ref, place.number, place.last), plain)
    return plain


def _sealed(record: bytes | memoryview) -> tuple[bytes, memoryview]:
    """The nonce of a record, and what is sealed with it."""
    return _HEADER.unpack_from(record)[2], memoryview(record)[_HEADER.size :]


@contextmanager
def _authentic(place: RecordPosition) -> Iterator[None]:
    try:
        yield
    except InvalidTag:
        raise CorruptRecord(f"record {place.number} does not authenticate") from None


def sealed_size(plain_bytes: int) -> int:
    """Room that `plain_bytes` take on disk when written in full records."""
    count = max(1, -(-plain_bytes // RECORD_BYTES))
    return plain_bytes + count * (_HEADER.size + _TAG_BYTES)


def _associated(ref: str, index: int, last: bool) -> bytes:
    return ref.encode() + struct.pack("!QB", index, last)
