"""Files in RAM without a name (memfd), for the bytes of a job: gone when closed or when the process ends in any way."""

from __future__ import annotations

import hashlib
import os

from mastering.protocol.frames import CHUNK_BYTES


class MemoryFile:
    """One input or output of a job, in RAM. It knows when it was closed: the descriptor's number may then be another
    job's."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = os.memfd_create("audio", os.MFD_CLOEXEC) if descriptor is None else descriptor
        self.size = os.fstat(self._descriptor).st_size
        self.is_open = True

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.descriptor, view) :]
        self.size += len(data)

    def read(self, at: int) -> bytes:
        """The next piece from `at`; raises ValueError once the file is gone."""
        return os.pread(self.descriptor, CHUNK_BYTES, at)

    def rewind(self) -> None:
        """Set the position to the start, for the process that gets the descriptor."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)

    def digest(self) -> str:
        """SHA-256 in hex: by it the caller checks what arrives. It is kept nowhere."""
        sha256 = hashlib.sha256()
        for at in range(0, self.size, CHUNK_BYTES):
            sha256.update(self.read(at))
        return sha256.hexdigest()

    @property
    def descriptor(self) -> int:
        if not self.is_open:
            raise ValueError("this memory file was closed")
        return self._descriptor

    def close(self) -> None:
        """Emptied first: a process that was forked meanwhile (ZeroGPU keeps one) may hold the same file."""
        if self.is_open:
            self.is_open = False
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
