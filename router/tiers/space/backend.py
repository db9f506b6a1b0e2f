"""The tier port for a Hugging Face Space of ours: audio by the Space's own HTTP routes, the call by Gradio.

An attempt: GET its health (a busy Space costs no upload) → PUT the audio → call the endpoint of the job's kind,
`/master`, in a child process and follow its progress → GET each output → DELETE the job, and check that it is gone.
However an attempt ends, the child is killed and the job deleted; what could not be deleted then is deleted with the
Space's next answer, by the next router if this one dies (`cleanup`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from mastering.contract import Record
from mastering.contract.kinds import OUTPUT_NAME
from mastering.protocol import frames
from router.core import clock
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import (
    Accepted,
    BackendHealth,
    Finished,
    Heartbeat,
    OutputStarted,
    RenderProgress,
    TierEvent,
    Work,
)
from router.tiers.space import faults
from router.tiers.space.address import SpaceAddress
from router.tiers.space.call import READ_S, CallRequest, EndpointValue, GradioCall
from router.tiers.space.cleanup import PendingDeletions
from router.tiers.space.transfer import SpaceTransfer

QUEUE_S = 30.0
"""So long a job may wait in the Space's own queue, behind people on its page, before it goes elsewhere."""
_CLOSE_TIMEOUT_S = 3.0
"""For deletions that are under way when the router stops; the rest stay due for the next start."""
_DELETE_AGAIN_S = 0.5
"""Before a second DELETE, where bytes of an interrupted upload may still have been under way at the first."""


class SpaceOutput(Record):
    """An output that the Space holds: its size in bytes and its checksum."""

    format: Annotated[str, Field(pattern=OUTPUT_NAME)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SpaceResult(Record):
    """The last value of an endpoint for a job that succeeded."""

    type: Literal["end"]
    report: dict[str, Any]
    outputs: tuple[SpaceOutput, ...]


class SpaceBackend:
    """A Space that runs this project's own app."""

    silence_s = READ_S

    def __init__(self, name: str, tier: str, address: SpaceAddress, ram: Path, key: str | None = None) -> None:
        """`ram`: a folder in RAM for pending deletions and child processes. `key`: the shared secret of our Spaces."""
        self.name, self.tier, self._address = name, tier, address
        self._key = {"x-mastering-key": key} if key else {}
        self._pending_deletions = PendingDeletions(ram / name / "jobs")
        self._scratch = ram / name / "calls"
        self._transfer: SpaceTransfer | None = None
        self._last: BackendHealth | None = None
        self._deleting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def probe(self) -> BackendHealth:
        due = self._pending_deletions.due()
        if due:
            self._address.mark_used()
        try:
            by_hub = await self._address.health_by_hub(self._last)
            if by_hub is not None:
                return by_hub
            self._last = await self._client().health()
        except TierFault as fault:
            return BackendHealth(False, fault.detail)
        for job_id in due:
            self._spawn(self._delete(job_id))
        return self._address.with_quota(self._last)

    async def wake(self) -> None:
        self._spawn(self._address.wake(lambda: self._client().health(timeout_s=READ_S)))

    async def run(self, work: Work) -> AsyncGenerator[TierEvent]:
        self._address.mark_used()
        await self._refuse_unless_fit(work)
        transfer, job_id = self._client(), self._pending_deletions.add()
        call, is_whole = GradioCall(self._scratch), False
        try:
            await call.start()
            await transfer.put(job_id, "audio", work.audio)
            for number, reference in enumerate(work.references):
                await transfer.put(job_id, f"references/{number}", reference)
            async with aclosing(self._events(call, job_id, work)) as events:
                async for event in events:
                    is_whole = isinstance(event, Finished)
                    yield event
        except TierFault as fault:
            raise await self._address.explain(fault) from None
        finally:
            self._address.mark_used()
            self._pending_deletions.mark_due(job_id)
            self._spawn(self._delete(job_id, again=not is_whole))
            await call.close()

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_TIMEOUT_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._address.close()
        if self._transfer is not None:
            await self._transfer.close()

    async def _events(self, call: GradioCall, job_id: str, work: Work) -> AsyncGenerator[TierEvent]:
        """The events from the call to the last byte of the outputs. Raises TierFault."""
        arguments = (job_id, work.options.model_dump(mode="json"), work.deadline_s)
        request = CallRequest(self._address.url(), f"/{work.kind}", arguments, self._address.token, self._key)
        result: SpaceResult | None = None
        accepted, asked_s = False, clock.now()
        async with aclosing(call.run(request, self.silence_s)) as values:
            async for value in values:
                if isinstance(value, EndpointValue) and value.is_last:
                    result = _result_in(value.value)
                event = _tier_event(value.value) if isinstance(value, EndpointValue) else None
                if event is not None and not (accepted and isinstance(event, Accepted)):
                    accepted = True
                    yield event
                if not accepted and clock.now() - asked_s > QUEUE_S:
                    await self._client().health()  # raises where it is frozen and not only busy
                    sentence = f"the Space's queue did not move for {QUEUE_S:.0f} s"
                    raise TierFault(FaultClass.CAPACITY, sentence, retry_after_s=QUEUE_S)
        if result is None:
            raise TierFault(FaultClass.BUG, "the Space's last word is not in the protocol")
        for output in result.outputs:
            yield OutputStarted(output.format, output.size)
            async for chunk in self._client().output(job_id, output.format, output.size, output.sha256):
                yield chunk
        yield Finished(result.report)

    async def _refuse_unless_fit(self, work: Work) -> None:
        """Ask for its health before the upload, and raise TierFault where it would refuse the job."""
        await self._address.refuse_unless_awake()
        try:
            health = await self._client().health()
        except TierFault as fault:
            raise await self._address.explain(fault) from None
        if not health.up or health.free == 0:
            raise TierFault(FaultClass.CAPACITY, "the Space has no slot free" if health.up else health.detail)
        if health.kinds is not None and work.kind not in health.kinds:
            raise TierFault(FaultClass.UNSUPPORTED, f"the Space does no jobs of the kind '{work.kind}'")
        if work.upload_bytes > (health.max_bytes or work.upload_bytes):
            raise TierFault(FaultClass.TOO_BIG, "the song is too large for the Space")
        if work.facts.duration_s > (health.max_duration_s or work.facts.duration_s):
            raise TierFault(FaultClass.TOO_BIG, "the song is too long for the Space")

    def _client(self) -> SpaceTransfer:
        """The client of the Space's own routes. Raises TierFault while its URL is not known."""
        if self._transfer is None:
            bearer = {"authorization": f"Bearer {self._address.token}"} if self._address.token else {}
            self._transfer = SpaceTransfer(self._address.url(), {**bearer, **self._key})
        return self._transfer

    async def _delete(self, job_id: str, *, again: bool = False) -> None:
        """Delete the job at the Space. `again`: bytes of it may still be under way to there."""
        if job_id in self._deleting:
            return
        self._deleting.add(job_id)
        try:
            gone = await self._client().delete(job_id)
            if again or not gone:
                await asyncio.sleep(_DELETE_AGAIN_S)
                gone = await self._client().delete(job_id)
            if gone:
                self._pending_deletions.remove(job_id)
        except TierFault:
            return  # it stays due
        finally:
            self._deleting.discard(job_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"housekeeping of {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_EVENT_RECORDS: Mapping[str, type[Record]] = {
    "accepted": frames.AcceptedEvent,
    "heartbeat": frames.HeartbeatEvent,
    "progress": frames.ProgressEvent,
    "fault": frames.FaultEvent,
}


def _tier_event(value: Any) -> TierEvent | None:
    """The event for a value that the endpoint yielded; None for the result, which is read apart. Raises TierFault."""
    record = _EVENT_RECORDS.get(str(value.get("type"))) if isinstance(value, dict) else None
    if record is None:
        return None
    match _validated(record, value):
        case frames.AcceptedEvent(device=device):
            return Accepted(device)
        case frames.ProgressEvent(stage=stage, fraction=fraction):
            return RenderProgress(stage, fraction)
        case frames.FaultEvent(code=code, numbers=numbers):
            raise faults.fault_of_space(code, dict(numbers))
    return Heartbeat()


def _result_in(value: Any) -> SpaceResult | None:
    if not isinstance(value, dict) or value.get("type") != "end":
        return None
    result = _validated(SpaceResult, value)
    return result if isinstance(result, SpaceResult) else None


def _validated(kind: type[Record], value: Any) -> Record:
    try:
        return kind.model_validate_json(json.dumps(value))  # as JSON, where a list is a tuple
    except (ValidationError, ValueError):
        raise TierFault(FaultClass.BUG, "the Space's answer is not in the protocol") from None
