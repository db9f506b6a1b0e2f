"""A Hugging Face Space of ours behind the tier port: the audio travels by its own addresses, the call by Gradio.

An attempt: ask how it is (a busy Space costs no upload) → PUT the audio → call `/master` in a child process and hear
its progress → GET each output → DELETE the job, and see that it is gone. Whatever ends an attempt, the child is killed
and the job deleted; what could not be deleted then is deleted with the Space's next answer, by the next router if
this one dies (`space_debts`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from mastering.contract import OutputFormat, Record, Report
from mastering.protocol import frames
from router.core import clock
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, Alive, BackendHealth, Event, Finished, OutputBegins, Work, Working
from router.tiers.space import faults
from router.tiers.space.address import SpaceAddress
from router.tiers.space.call import READ_S, Call, Question, Value
from router.tiers.space.cleanup import PendingDeletions
from router.tiers.space.transfer import SpaceTransfer

QUEUE_S = 30.0
"""So long a job may stand in the Space's own queue, behind people on its page, before it goes elsewhere."""
_CLOSE_S = 3.0
_AGAIN_S = 0.5


class SpaceOutput(Record):
    format: OutputFormat
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SpaceEnd(Record):
    """The last word of a Space about a job that went well."""

    type: Literal["end"]
    report: Report
    outputs: tuple[SpaceOutput, ...]


class SpaceBackend:
    """One Space of ours."""

    silence_s = READ_S

    def __init__(self, name: str, tier: str, where: SpaceAddress, ram: Path, key: str | None = None) -> None:
        """`ram`: a folder in RAM for its debts and its children. `key`: what our own Spaces want to hear."""
        self.name, self.tier, self._where = name, tier, where
        self._key = {"x-mastering-key": key} if key else {}
        self._pending_deletions = PendingDeletions(ram / name / "jobs")
        self._scratch = ram / name / "calls"
        self._wire: SpaceTransfer | None = None
        self._last: BackendHealth | None = None
        self._paying: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def probe(self) -> BackendHealth:
        owed = self._pending_deletions.owed()
        if owed:
            self._where.use()
        try:
            resting = await self._where.resting(self._last)
            if resting is not None:
                return resting
            self._last = await self._reach().health()
        except TierFault as fault:
            return BackendHealth(False, fault.detail)
        for job_id in owed:
            self._spawn(self._pay(job_id))
        return self._where.with_quota(self._last)

    async def wake(self) -> None:
        self._spawn(self._where.wake(lambda: self._reach().health(timeout_s=READ_S)))

    async def run(self, work: Work) -> AsyncGenerator[Event]:
        self._where.use()
        await self._refuse_unless_fit(work)
        wire, job_id, call, whole = self._reach(), self._pending_deletions.begin(), Call(self._scratch), False
        try:
            await call.start()
            await wire.put(job_id, "audio", work.audio)
            for number, reference in enumerate(work.references):
                await wire.put(job_id, f"references/{number}", reference)
            async with aclosing(self._events(call, job_id, work)) as events:
                async for event in events:
                    whole = isinstance(event, Finished)
                    yield event
        except TierFault as fault:
            raise await self._where.explained(fault) from None
        finally:
            self._where.use()
            self._pending_deletions.end(job_id)
            self._spawn(self._pay(job_id, again=not whole))
            await call.close()

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._where.close()
        if self._wire is not None:
            await self._wire.close()

    async def _events(self, call: Call, job_id: str, work: Work) -> AsyncGenerator[Event]:
        """From the call to the last byte. Raises TierFault."""
        settings = work.settings.model_dump(mode="json")
        arguments = (job_id, settings, work.deadline_s)
        question = Question(self._where.url(), "/master", arguments, self._where.token, self._key)
        end: SpaceEnd | None = None
        accepted, asked_s = False, clock.now()
        async with aclosing(call.ask(question, self.silence_s)) as answers:
            async for answer in answers:
                if isinstance(answer, Value) and answer.is_last:
                    end = _end(answer.value)
                event = _event(answer.value) if isinstance(answer, Value) else None
                if event is not None and not (accepted and isinstance(event, Accepted)):
                    accepted = True
                    yield event
                if not accepted and clock.now() - asked_s > QUEUE_S:
                    await self._reach().health()  # frozen, or only busy?
                    sentence = f"the Space's queue did not move for {QUEUE_S:.0f} s"
                    raise TierFault(FaultClass.CAPACITY, sentence, retry_after_s=QUEUE_S)
        if end is None:
            raise TierFault(FaultClass.BUG, "the Space's last word is not in the protocol")
        for output in end.outputs:
            yield OutputBegins(output.format, output.size)
            async for chunk in self._reach().output(job_id, output.format, output.size, output.sha256):
                yield chunk
        yield Finished(end.report)

    async def _refuse_unless_fit(self, work: Work) -> None:
        """A small question first: what it refuses costs no upload. Raises TierFault."""
        await self._where.refuse_unless_awake()
        try:
            health = await self._reach().health()
        except TierFault as fault:
            raise await self._where.explained(fault) from None
        if not health.up or health.free == 0:
            raise TierFault(FaultClass.CAPACITY, "the Space has no slot free" if health.up else health.detail)
        if work.upload_bytes > (health.max_bytes or work.upload_bytes):
            raise TierFault(FaultClass.TOO_BIG, "the song is too large for the Space")
        if work.facts.duration_s > (health.max_duration_s or work.facts.duration_s):
            raise TierFault(FaultClass.TOO_BIG, "the song is too long for the Space")

    def _reach(self) -> SpaceTransfer:
        """Raises TierFault while nobody has said where the Space answers."""
        if self._wire is None:
            bearer = {"authorization": f"Bearer {self._where.token}"} if self._where.token else {}
            self._wire = SpaceTransfer(self._where.url(), {**bearer, **self._key})
        return self._wire

    async def _pay(self, job_id: str, *, again: bool = False) -> None:
        """Have the Space forget the job. `again`: something of it may still be on its way there."""
        if job_id in self._paying:
            return
        self._paying.add(job_id)
        try:
            gone = await self._reach().delete(job_id)
            if again or not gone:
                await asyncio.sleep(_AGAIN_S)
                gone = await self._reach().delete(job_id)
            if gone:
                self._pending_deletions.strike(job_id)
        except TierFault:
            return  # it stays owed
        finally:
            self._paying.discard(job_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"housekeeping of {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_EVENTS: Mapping[str, type[Record]] = {
    "accepted": frames.AcceptedEvent,
    "heartbeat": frames.HeartbeatEvent,
    "progress": frames.ProgressEvent,
    "fault": frames.FaultEvent,
}


def _event(value: Any) -> Event | None:
    """What a word of the Space says of the render; None for what the end says again. Raises TierFault."""
    record = _EVENTS.get(str(value.get("type"))) if isinstance(value, dict) else None
    if record is None:
        return None
    match _parsed(record, value):
        case frames.AcceptedEvent(device=device):
            return Accepted(device)
        case frames.ProgressEvent(stage=stage, fraction=fraction):
            return Working(stage, fraction)
        case frames.FaultEvent(code=code, numbers=numbers):
            raise faults.of_space(code, dict(numbers))
    return Alive()


def _end(value: Any) -> SpaceEnd | None:
    if not isinstance(value, dict) or value.get("type") != "end":
        return None
    end = _parsed(SpaceEnd, value)
    return end if isinstance(end, SpaceEnd) else None


def _parsed(kind: type[Record], value: Any) -> Record:
    try:
        return kind.model_validate_json(json.dumps(value))  # as JSON, where a list is a tuple
    except (ValidationError, ValueError):
        raise TierFault(FaultClass.BUG, "the Space's answer is not in the protocol") from None
