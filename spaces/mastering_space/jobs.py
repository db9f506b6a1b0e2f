"""The jobs of a Space: what each holds in RAM, how many there may be, and when each part of one is dropped.

Not thread-safe and not meant to be: everything here runs on the server's event loop.

A job is *open* while it takes uploads, *rendering* from the call of its kind's endpoint on (/master), *done* once that
has ended. Its inputs go when the render ends, however it ends; its outputs on DELETE, or `keep_s` after. An open job
that stands still for `keep_s` goes too.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from mastering.contract import Fault, FaultCode
from mastering_space.memory import MemoryFile
from mastering_space.settings import SpaceSettings

AUDIO = "audio"
_MOST_EXPANSION = 400
"""How many times its size a song may become: Opus at its least, 6 kbit/s, as 24-bit stereo at 48 kHz comes to 384."""


@dataclass
class SpaceJob:
    """One job's files and its work. `inputs` are by name: audio, references/0 …; `outputs` by the kind's own names."""

    inputs: dict[str, MemoryFile] = field(default_factory=dict)
    arriving: set[str] = field(default_factory=set)
    outputs: dict[str, MemoryFile] = field(default_factory=dict)
    reserved_bytes: int = 0
    """Bytes kept free for outputs that the render has not made yet."""
    work: asyncio.Task[None] | None = None
    """The render, once it was called for."""
    expiry: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        return self.work is None

    @property
    def is_over(self) -> bool:
        return self.work is not None and self.work.done()

    @property
    def bytes_held(self) -> int:
        """Bytes of all its files, with what is reserved for outputs."""
        held = sum(memory.size for memory in (*self.inputs.values(), *self.outputs.values()))
        return held + self.reserved_bytes

    def references(self) -> list[MemoryFile]:
        """The references in the order of their numbers. Raises Fault where one is left out."""
        count = len(self.inputs) - 1
        if {f"references/{at}" for at in range(count)} | {AUDIO} != set(self.inputs):
            raise Fault(FaultCode.BAD_REQUEST, f"The {count} references are not numbered from 0 without a gap.")
        return [self.inputs[f"references/{at}"] for at in range(count)]

    def drop_inputs(self) -> None:
        for memory in self.inputs.values():
            memory.close()
        self.inputs.clear()

    def drop_outputs(self) -> None:
        self.reserved_bytes = 0
        for memory in self.outputs.values():
            memory.close()
        self.outputs.clear()


class UploadConflict(Exception):
    """This part of the job is there already, or the job no longer takes any."""


class SpaceJobs:
    """All jobs of the process."""

    def __init__(self, settings: SpaceSettings) -> None:
        self._settings = settings
        self._jobs: dict[str, SpaceJob] = {}
        self.is_draining = False

    def get(self, job_id: str) -> SpaceJob | None:
        return self._jobs.get(job_id)

    @property
    def rendering(self) -> int:
        return sum(1 for job in self._jobs.values() if not job.is_open and not job.is_over)

    @property
    def bytes_held(self) -> int:
        return sum(job.bytes_held for job in self._jobs.values())

    def receive(self, job_id: str, part: str, size: int | None) -> MemoryFile:
        """A file for an upload, of `size` bytes if it says so. Raises UploadConflict and Fault(too_large, busy)."""
        if size is not None:
            self.check_size(size)
        job = self._jobs.get(job_id) or SpaceJob()
        if part in job.inputs or part in job.arriving or not job.is_open:
            raise UploadConflict
        self._check_capacity(job_id, size or 0)
        self._jobs[job_id] = job
        job.arriving.add(part)
        job.inputs[part] = MemoryFile()
        self._forget_after(job_id, job, None)
        return job.inputs[part]

    def received(self, job_id: str, part: str, memory: MemoryFile, is_whole: bool) -> None:
        """The upload has ended, well or not. The job may be forgotten by now, and another one have its id."""
        job = self._jobs.get(job_id)
        if job is None or job.inputs.get(part) is not memory:
            memory.close()
            return
        job.arriving.discard(part)
        if not is_whole:
            job.inputs.pop(part).close()
        if not job.inputs:
            self.forget(job_id)
        elif not job.arriving:
            self._forget_after(job_id, job, self._settings.keep_s)

    def begin(self, job_id: str) -> SpaceJob:
        """The job to be rendered now. Raises Fault where there is none that is whole and waits for it."""
        job = self._jobs.get(job_id)
        if job is None or not job.is_open or AUDIO not in job.inputs or job.arriving:
            raise Fault(
                FaultCode.BAD_REQUEST,
                f"No song waits here for this job. PUT it to /v1/jobs/{{id}}/audio first, and call within "
                f"{self._settings.keep_s:.0f} seconds.",
            )
        job.references()
        self._forget_after(job_id, job, None)
        return job

    def ended(self, job_id: str, job: SpaceJob) -> None:
        """The render is over: drop the inputs now, and the outputs after `keep_s`."""
        job.drop_inputs()
        if self._jobs.get(job_id) is not job or not job.outputs:
            job.drop_outputs()
            self._jobs = {known: one for known, one in self._jobs.items() if one is not job}
        else:
            self._forget_after(job_id, job, self._settings.keep_s)

    def forget(self, job_id: str) -> None:
        """Stop the render and give all memory of the job back."""
        job = self._jobs.pop(job_id, None)
        if job is None:
            return
        self._forget_after(job_id, job, None)
        if job.work is not None:
            job.work.cancel()
        job.drop_inputs()
        job.drop_outputs()

    def forget_all(self) -> None:
        for job_id in list(self._jobs):
            self.forget(job_id)

    def check_size(self, size: int) -> None:
        """Check an upload's size against the settings. Raises Fault(too_large)."""
        allowed = self._settings.max_bytes
        if size > allowed:
            raise Fault(
                FaultCode.TOO_LARGE,
                f"The file has more than the {allowed} bytes that this Space takes. Send it as FLAC, or in parts.",
                allowed_bytes=allowed,
            )

    def output_bytes(self, job: SpaceJob) -> int:
        """Bytes that the outputs of `job` could have together if it were the only job."""
        return max(1, self._settings.memory_bytes - job.bytes_held)

    def unforeseen_bytes(self, job: SpaceJob, outputs: int) -> int:
        """The same where the song's header does not say its length.

        What so many bytes may come to, and at most half of what is free, so that other jobs fit beside it.
        """
        free = self._settings.memory_bytes - self.bytes_held
        return max(1, min(free // 2, job.inputs[AUDIO].size * _MOST_EXPANSION * outputs))

    def store(self, job: SpaceJob, outputs: dict[str, MemoryFile]) -> None:
        """Put the outputs in place of the reservation. Raises Fault(busy) where they are more than fits."""
        job.reserved_bytes = 0
        job.outputs.update(outputs)  # the job closes them, whatever follows
        self.check_memory(0)

    def reserve(self, job: SpaceJob, size: int) -> None:
        """Keep `size` bytes free for outputs. Raises Fault(busy)."""
        self.check_memory(size)
        job.reserved_bytes = size

    def check_memory(self, size: int) -> None:
        """Check that `size` more bytes fit. Raises Fault(busy)."""
        if self.bytes_held + size > self._settings.memory_bytes:
            raise Fault(FaultCode.BUSY, "This Space's memory is full of other songs. Ask again soon.", retry_after_s=10)

    def _check_capacity(self, job_id: str, size: int) -> None:
        if self.is_draining:
            raise Fault(FaultCode.BUSY, "This Space is stopping. Ask another one.", retry_after_s=60)
        taken = sum(1 for job in self._jobs.values() if job.inputs)
        if job_id not in self._jobs and taken >= self._settings.places:
            raise Fault(FaultCode.BUSY, f"All {self._settings.places} places of this Space are taken.", retry_after_s=5)
        self.check_memory(size)

    def _forget_after(self, job_id: str, job: SpaceJob, seconds: float | None) -> None:
        """Forget the job in `seconds`; None cancels an earlier call."""
        if job.expiry is not None:
            job.expiry.cancel()
        loop = asyncio.get_running_loop()
        job.expiry = None if seconds is None else loop.call_later(seconds, self.forget, job_id)
