"""A backend that plays a script of events and faults, for tests and simulations beside those of the real adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from router.tiers.policy.faults import TierFault
from router.tiers.port import BackendHealth, Finished, TierEvent, Work


class Hang:
    """A step at which the backend says nothing more until it is closed."""


ScriptStep = TierEvent | TierFault | Hang | Callable[[], TierEvent]
"""An event to yield, or a function that gives one at that moment; a fault to raise; or silence."""
Script = Sequence[ScriptStep] | Callable[[Work], Sequence[ScriptStep]]
"""The steps of one run, or a function that gives them for its work."""


class FakeBackend:
    """Plays one script per run, the last one for every further run; records the work and the audio of each."""

    def __init__(self, name: str, scripts: Sequence[Script], *, tier: str = "managed", silence_s: float = 10.0) -> None:
        self.name, self.tier, self.silence_s = name, tier, silence_s
        self.health = BackendHealth(True, "scripted", slots=1)
        self.runs: list[Work] = []
        self.received: list[bytes] = []
        self.closed_early = 0
        self.woken = 0
        self._scripts = list(scripts)

    async def probe(self) -> BackendHealth:
        return self.health

    async def wake(self) -> None:
        self.woken += 1

    async def run(self, work: Work) -> AsyncGenerator[TierEvent]:
        script = self._scripts[min(len(self.runs), len(self._scripts) - 1)]
        self.runs.append(work)
        self.received.append(b"".join([chunk async for chunk in work.audio.open()]))
        ended = False
        try:
            for step in script(work) if callable(script) else script:
                if isinstance(step, TierFault):
                    ended = True
                    raise step
                if isinstance(step, Hang):
                    await asyncio.Event().wait()
                    continue
                event = step() if callable(step) else step
                ended = isinstance(event, Finished)
                yield event
            ended = True
        finally:
            self.closed_early += not ended

    def script_from_now_on(self, script: Script) -> None:
        self._scripts = [script]

    async def close(self) -> None:
        return
