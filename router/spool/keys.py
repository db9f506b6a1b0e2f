"""The keys of the spool's blobs, in RAM-backed files: to destroy one destroys its audio, wherever copies lie.

A key file holds the key, when the blob was made and when it expires (seconds on `core.clock`) and the bytes reserved
for it, so that the lifetime of audio hangs on nothing that a crash or a lost job record could take away.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from router.core import clock
from router.spool.port import BlobGone
from router.spool.records import KEY_BYTES, new_key

_FORM = struct.Struct(f"!{KEY_BYTES}sddQ")


class BlobKey(NamedTuple):
    """What a key file holds; times are seconds on `core.clock`."""

    secret: bytes
    created_s: float
    expires_s: float
    reserved_bytes: int


class KeyRing:
    """The key files of one spool, one for each blob."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.stat().st_size != _FORM.size:  # a kill came between making the file and writing it
                path.unlink()

    def make(self, ref: str, expires_s: float, reserved_bytes: int) -> BlobKey:
        """Make a key and its file, before any byte is encrypted with it. Raises OSError where there is no room."""
        key = BlobKey(new_key(), clock.now(), expires_s, reserved_bytes)
        fd = os.open(self._path(ref), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            written = os.write(fd, _FORM.pack(*key))
        except OSError:
            written = 0
        finally:
            os.close(fd)
        if written != _FORM.size:
            self._path(ref).unlink()
            raise OSError(errno.ENOSPC, "no room for a key")
        return key

    def get(self, ref: str) -> BlobKey:
        """The blob's key. Raises BlobGone."""
        try:
            return BlobKey(*_FORM.unpack(self._path(ref).read_bytes()))
        except (FileNotFoundError, struct.error):
            raise BlobGone(ref) from None

    def change(self, ref: str, *, reserved_bytes: int) -> BlobKey:
        """Set how many bytes are reserved for the blob, in place (one small write is atomic here). Raises BlobGone."""
        key = self.get(ref)._replace(reserved_bytes=reserved_bytes)
        with self._path(ref).open("r+b") as file:
            file.write(_FORM.pack(*key))
        return key

    def destroy(self, ref: str) -> bool:
        """Overwrite and remove the key. True if there was one."""
        path = self._path(ref)
        try:
            with path.open("r+b") as file:
                file.write(bytes(_FORM.size))
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def refs(self) -> Iterator[str]:
        """The references of all blobs that have a key."""
        for path in self._folder.iterdir():
            yield path.name.replace(".", "/")

    def _path(self, ref: str) -> Path:
        return self._folder / ref.replace("/", ".")
