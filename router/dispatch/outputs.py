"""Writes one attempt's outputs to the spool while they arrive, and verifies each before it may be committed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from mastering.contract import CODER_PADDING_FRAMES, Facts, Fault, FaultCode, OutputFormat
from mastering.protocol.probe import VerifiedMaster
from router.core import clock
from router.jobs import eviction
from router.jobs.services import Services
from router.probe.client import AnnouncedMaster
from router.probe.stream_tap import StreamTap
from router.store.record import BlobRef, Job
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Heartbeat, OutputStarted, RenderProgress, TierEvent

PCM_ROUNDING_FRAMES = 2
"""Of a song that was resampled: its length times the ratio of the rates is seldom a whole number."""


class OutputWriter:
    """The outputs of one attempt. Close it however the attempt ends."""

    def __init__(self, services: Services, job: Job, facts: Facts) -> None:
        self._services, self._job, self._facts = services, job, facts
        self._taps: dict[OutputFormat, StreamTap[VerifiedMaster]] = {}
        self.outputs: dict[OutputFormat, BlobRef] = {}
        self.expires_s = 0.0
        """Until when all outputs can be read, on the clock of `clock.now`; 0 before the first."""

    def close(self) -> None:
        for tap in self._taps.values():
            tap.close()

    async def write(self, begins: OutputStarted, events: AsyncGenerator[TierEvent]) -> None:
        """Take one output from its own body or from `events`. Raises TierFault, SpoolFull."""
        services, job, size_bytes = self._services, self._job, begins.size_bytes
        if begins.format in self.outputs or begins.format not in job.settings.outputs:
            raise TierFault(FaultClass.BAD_OUTPUT, "the backend sent a format twice, or one that nobody asked for")
        if size_bytes > _largest_output_bytes(job, services.settings.max_bytes):
            raise TierFault(FaultClass.BAD_OUTPUT, "the master is larger than its song allows")
        self.expires_s = self.expires_s or clock.now() + services.settings.output_ttl_s
        await eviction.evict(services, size_bytes)
        ref = await services.spool.reserve(size_bytes, self.expires_s, beside=job.input.ref if job.input else None)
        self.outputs[begins.format] = BlobRef(ref=ref, size_bytes=size_bytes)
        body = begins.body or _body_of(events, size_bytes)
        tap = services.probe.tap_master(**self._announced(begins.format, size_bytes))
        if tap is not None:
            self._taps[begins.format] = tap
        await services.spool.append(ref, 0, body, size_bytes, tap.write if tap else None)

    async def verify(self, output_format: OutputFormat) -> None:
        """Raise TierFault(BAD_OUTPUT) unless the output is sound and as long as the song, to a codec's padding."""
        blob, tap = self.outputs[output_format], self._taps.get(output_format)
        try:
            if tap is None or await tap.result() is None:
                announced = self._announced(output_format, blob.size_bytes)
                await self._services.probe.verify(self._services.spool.read(blob.ref), **announced)
        except Fault as fault:
            if fault.code is FaultCode.INTERNAL:  # our own probe broke: no backend is to blame
                raise
            detail = f"the router's own check refused the master: {fault.message}"
            raise TierFault(FaultClass.BAD_OUTPUT, detail) from fault

    def _announced(self, output_format: OutputFormat, size_bytes: int) -> AnnouncedMaster:
        facts = self._facts
        rate_hz = output_format.rate_hz(self._job.settings.rate_hz or facts.rate_hz)
        return AnnouncedMaster(
            frames=round(facts.frames * rate_hz / facts.rate_hz),
            rate_hz=rate_hz,
            channels=facts.channels,
            tolerance_frames=CODER_PADDING_FRAMES if output_format.is_lossy else PCM_ROUNDING_FRAMES,
            size=size_bytes,
        )


async def destroy(services: Services, outputs: dict[OutputFormat, BlobRef]) -> None:
    """Destroy outputs that will not be committed."""
    for blob in outputs.values():
        await services.spool.drop(blob.ref)


async def _body_of(events: AsyncGenerator[TierEvent], size_bytes: int) -> AsyncIterator[bytes]:
    """The next `size_bytes` of bytes events. Raises TierFault where they are fewer or more."""
    left_bytes = size_bytes
    while left_bytes > 0:
        event = await anext(events, None)
        match event:
            case bytes():
                left_bytes -= len(event)
                if left_bytes < 0:
                    raise TierFault(FaultClass.BAD_OUTPUT, "the backend sent more than it announced")
                yield event
            case Heartbeat() | RenderProgress():
                continue
            case _:
                raise TierFault(FaultClass.BAD_OUTPUT, "the master ended before its announced size")


def _largest_output_bytes(job: Job, max_bytes: int) -> int:
    """A stereo WAV of four bytes a sample at the highest rate the song may have, and a mebibyte for its header."""
    frames = job.facts.frames if job.facts else 0
    ratio = (job.settings.rate_hz or 0) / job.facts.rate_hz if job.facts and job.settings.rate_hz else 1.0
    return max(max_bytes, int(frames * max(1.0, ratio)) * 8 + 1024 * 1024)
