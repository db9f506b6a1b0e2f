"""Writes one attempt's outputs to the spool while they arrive, and verifies each before it may be committed."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator

from mastering.contract import Facts, Fault, FaultCode
from mastering.contract.kinds import ExpectedOutput
from mastering.protocol.probe import VerifiedAudio
from router.core.errors import Problem
from router.jobs import eviction
from router.jobs.kinds import kind_of, options_of
from router.jobs.services import Services
from router.probe.stream_tap import StreamTap
from router.spool.port import Blobs, SpoolFull
from router.spool.records import sealed_size
from router.store.record import BlobRef, Job
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Heartbeat, OutputStarted, RenderProgress, TierEvent

_OVERHEAD_BYTES = 1024 * 1024
"""Beyond the bound that the kind knows: a header, or a cover picture."""


class OutputWriter:
    """The outputs of one attempt. Close it however the attempt ends."""

    def __init__(self, services: Services, job: Job, facts: Facts) -> None:
        self._services, self._job, self._facts = services, job, facts
        self._kind, self._options = kind_of(job), options_of(job)
        self._taps: dict[str, StreamTap[VerifiedAudio]] = {}
        self.outputs: dict[str, BlobRef] = {}
        self.expires_s = 0.0
        """Until when all outputs can be read, on the service's clock; 0 before the first."""

    def close(self) -> None:
        for tap in self._taps.values():
            tap.close()

    async def write(self, begins: OutputStarted, events: AsyncGenerator[TierEvent]) -> None:
        """Take one output from its own body or from `events`. Raises TierFault, SpoolFull, Problem."""
        services, job, size_bytes = self._services, self._job, begins.size_bytes
        if begins.name in self.outputs or begins.name not in job.wanted:
            raise TierFault(FaultClass.BAD_OUTPUT, "the backend sent an output twice, or one that nobody asked for")
        if size_bytes > self._largest_bytes(begins.name):
            raise TierFault(FaultClass.BAD_OUTPUT, "the master is larger than its song allows")
        self.expires_s = self.expires_s or services.clock.now() + self._kept_s()
        await eviction.evict(services, size_bytes)
        beside = job.input.ref if job.input else None
        try:
            ref = await services.spool.reserve(size_bytes, self.expires_s, beside)
        except SpoolFull:
            self._refuse_what_never_fits(size_bytes)
            raise
        self.outputs[begins.name] = BlobRef(ref=ref, size_bytes=size_bytes)
        body = begins.body or _body_of(events, size_bytes)
        tap = services.probe.tap_output(self._expected(begins.name), size_bytes)
        if tap is not None:
            self._taps[begins.name] = tap
        await services.spool.append(ref, 0, body, size_bytes, tap.write if tap else None)

    async def verify(self, name: str) -> None:
        """Raise TierFault(BAD_OUTPUT) unless the output is what its kind expects."""
        blob, tap = self.outputs[name], self._taps.get(name)
        try:
            if tap is None or await tap.result() is None:
                feed = self._services.spool.read(blob.ref)
                await self._services.probe.verify(feed, self._expected(name), size_bytes=blob.size_bytes)
        except Fault as fault:
            if fault.code is FaultCode.INTERNAL:  # our own probe broke: no backend is to blame
                raise
            detail = f"the router's own check refused the master: {fault.message}"
            raise TierFault(FaultClass.BAD_OUTPUT, detail) from fault

    def _refuse_what_never_fits(self, size_bytes: int) -> None:
        """Raise Problem where an output of `size_bytes` would have no room beside its song in an empty spool.

        To wait would be to render it again for nothing.
        """
        spool, job = self._services.spool, self._job
        blobs = [*filter(None, (job.input, *job.references.values())), *self.outputs.values()]
        needed_bytes = sum(spool.reserved_bytes_of(blob.ref) for blob in blobs) + sealed_size(size_bytes)
        quota_bytes = spool.usage().quota_bytes
        if needed_bytes > quota_bytes:
            raise Problem(
                "spool_full",
                f"The song and its master take {needed_bytes / 2**20:.1f} MiB; the temporary store has"
                f" {quota_bytes / 2**20:.1f} MiB in all. Ask for a smaller format, or for less of them.",
                needed_bytes=needed_bytes,
                quota_bytes=quota_bytes,
            )

    def _expected(self, name: str) -> ExpectedOutput:
        return self._kind.expected(self._options, self._facts, name)

    def _largest_bytes(self, name: str) -> int:
        """What the output may have; never less than a song may."""
        facts = self._facts
        bound = self._kind.output_bound_bytes(self._options, name, facts.duration_s, facts.rate_hz, facts.channels)
        return max(self._services.settings.max_bytes, bound + _OVERHEAD_BYTES)

    def _kept_s(self) -> float:
        return min(self._services.settings.output_ttl_s, self._kind.output_ttl_s or math.inf)


async def destroy(spool: Blobs, outputs: dict[str, BlobRef]) -> None:
    """Destroy outputs that will not be committed."""
    for blob in outputs.values():
        await spool.drop(blob.ref)


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
