"""The format of an encrypted blob: a run of AES-256-GCM records, each of up to RECORD_BYTES plain bytes.

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
"""The more a record holds, the fewer calls of threads. Three of them, and what comes in, are 2 MiB an upload."""
KEY_BYTES = 32
_HEADER = struct.Struct("!BI12s")
_TAG_BYTES = 16
_NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)
"""Linux; tmpfs does not know it."""


class CorruptRecord(BlobGone):
    """A record does not authenticate or is cut short: the blob can't be read any more."""


class RecordPosition(NamedTuple):
    """Where one record is in its file, and which bytes of the audio it holds."""

    number: int
    position: int
    """Of its header, in bytes from the file's start."""
    plain_start: int
    plain_size: int
    last: bool
    """Whether it ends the blob."""

    @property
    def end(self) -> int:
        return self.position + _HEADER.size + self.plain_size + _TAG_BYTES


def new_key() -> bytes:
    """A random key for one blob."""
    return AESGCM.generate_key(bit_length=8 * KEY_BYTES)


def seal(key: bytes, ref: str, index: int, plain: bytes | memoryview, out: memoryview, *, last: bool) -> int:
    """Encrypt one record to the start of `out`: header, ciphertext and tag. Returns how many bytes it takes."""
    nonce = secrets.token_bytes(12)
    size = _HEADER.size + len(plain) + _TAG_BYTES
    _HEADER.pack_into(out, 0, last, len(plain), nonce)
    AESGCM(key).encrypt_into(nonce, plain, _associated(ref, index, last), out[_HEADER.size : size])
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


def read_if_cached(fd: int, place: RecordPosition, out: memoryview) -> memoryview | None:
    """One encrypted record, read to the start of `out`; None where the kernel would have to wait for a disk, or
    can't say whether it would."""
    record = out[: place.end - place.position]
    try:
        whole = _NO_WAIT and os.preadv(fd, [record], place.position, _NO_WAIT) == len(record)
    except OSError:
        return None
    return record if whole else None


def read_record(fd: int, place: RecordPosition) -> bytes:
    """One encrypted record, whole unless the file ends before it does."""
    return os.pread(fd, place.end - place.position, place.position)


def read_record_into(fd: int, place: RecordPosition, out: memoryview) -> memoryview:
    """One encrypted record, read to the start of `out`. Raises CorruptRecord where the file ends before it does."""
    record = out[: place.end - place.position]
    if os.preadv(fd, [record], place.position) != len(record):
        raise CorruptRecord(f"record {place.number} is not whole")
    return record


def unseal(record: bytes | memoryview, key: bytes, ref: str, place: RecordPosition) -> bytes:
    """Decrypt one record. Raises CorruptRecord."""
    with _authentic(place):
        return AESGCM(key).decrypt(*_sealed(record), _associated(ref, place.number, place.last))


def unseal_into(record: memoryview, key: bytes, ref: str, place: RecordPosition, out: memoryview) -> memoryview:
    """Decrypt one record to the start of `out`. Raises CorruptRecord."""
    plain = out[: place.plain_size]
    with _authentic(place):
        AESGCM(key).decrypt_into(*_sealed(record), _associated(ref, place.number, place.last), plain)
    return plain


def _sealed(record: bytes | memoryview) -> tuple[bytes, memoryview]:
    """The nonce of a record, and its ciphertext and tag."""
    return _HEADER.unpack_from(record)[2], memoryview(record)[_HEADER.size :]


@contextmanager
def _authentic(place: RecordPosition) -> Iterator[None]:
    try:
        yield
    except InvalidTag:
        raise CorruptRecord(f"record {place.number} does not authenticate") from None


def sealed_size(plain_bytes: int) -> int:
    """How many bytes `plain_bytes` take on disk when written in full records."""
    count = max(1, -(-plain_bytes // RECORD_BYTES))
    return plain_bytes + count * (_HEADER.size + _TAG_BYTES)


def _associated(ref: str, index: int, last: bool) -> bytes:
    """The associated data of a record: blob, place and last flag."""
    return ref.encode() + struct.pack("!QB", index, last)
