"""Polls the Hub for a Space's stage and the ZeroGPU quota, and keeps the answers in between.

The Space itself is not asked: any request that reaches a sleeping Space wakes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from router.core import clock
from router.core.settings import LOOPBACK_NAMES
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.faults import FaultClass
from router.tiers.port import BackendHealth
from router.tiers.space.faults import SpaceStage, stage_of
from router.tiers.space.hosts import is_hub_host
from router.tiers.space.hub import GpuAllowance, Hub, HubError

RUNNING_EVERY_S, OTHERWISE_EVERY_S = 15.0, 3.0
"""Between two questions: a running Space's change shows by faults too; of another, jobs may wait for the change."""
QUOTA_EVERY_S = 60.0
"""Between two questions for the quota: the router counts its own use in between."""
_WAIT_S = 0.8
"""For the Hub's answer: less than a probe may take."""
_NOT_ASKED_YET = SpaceStage(
    BackendHealth(False, "the Hub has not answered yet", reported_state=BackendState.WARMING), None
)

_FOREIGN_HOST = SpaceStage(BackendHealth(False, "not below hf.space, by what the Hub says"), FaultClass.CONFIGURATION)


def _is_trusted_host(host: str) -> bool:
    """Whether songs and the token may go there: to a host of the Hub, or to this machine."""
    try:
        return is_hub_host(host) or (
            urlsplit(host).scheme in ("http", "https") and urlsplit(host).hostname in LOOPBACK_NAMES
        )
    except ValueError:
        return False


class StageWatch:
    """The stage of `space`, some seconds old at most."""

    def __init__(self, hub: Hub, space: str, now: Callable[[], float] = clock.now) -> None:
        self._hub, self._space, self._now = hub, space, now
        self._asking: asyncio.Task[None] | None = None
        self._stage = _NOT_ASKED_YET
        self._asked_s = -RUNNING_EVERY_S
        self._quota_asked_s = -QUOTA_EVERY_S
        self.name = ""
        """The stage by the Hub's own string; empty before the first answer, and where the Hub denies it."""
        self.allowance: GpuAllowance | None = None
        self.host: str | None = None

    async def current(self) -> SpaceStage:
        """The latest stage; waits a moment for an answer of the Hub where one is due."""
        if self._asking is None and self._is_due():
            self._asking = asyncio.create_task(self._ask(), name="stage of a Space")
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=_WAIT_S)
        return self._stage

    def ask_soon(self) -> None:
        """Ask the Hub at the next `current`: something contradicts the latest stage."""
        self._asked_s = -RUNNING_EVERY_S

    async def restart_if_stopped(self) -> None:
        if self.name == "STOPPED":
            with suppress(HubError):
                await asyncio.to_thread(self._hub.restart, self._space)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _is_due(self) -> bool:
        every_s = RUNNING_EVERY_S if self._stage.fault is None and self.name else OTHERWISE_EVERY_S
        return self._now() - self._asked_s >= every_s

    async def _ask(self) -> None:
        try:
            runtime = await asyncio.to_thread(self._hub.runtime, self._space)
            if self.host is None:
                host = await asyncio.to_thread(self._hub.host, self._space)
                if not _is_trusted_host(host):
                    self.name, self._stage = "", _FOREIGN_HOST
                    return
                self.host = host
            self.name, self._stage = runtime.stage, stage_of(runtime.stage)
            if (runtime.hardware or "").startswith("zero") and self._now() - self._quota_asked_s >= QUOTA_EVERY_S:
                self._quota_asked_s = self._now()
                self.allowance = await self._quota()
        except HubError as error:
            self._note_failure(error)
        finally:
            self._asked_s = self._now()
            self._asking = None

    async def _quota(self) -> GpuAllowance | None:
        try:
            return await asyncio.to_thread(self._hub.allowance)
        except HubError:  # not every token may ask; then the router's own count stands alone
            return None

    def _note_failure(self, error: HubError) -> None:
        """Take in a failure of the Hub: one that is down says nothing about a Space that ran a moment ago."""
        if error.status in (401, 403, 404):
            self.name, self._stage = "", SpaceStage(BackendHealth(False, str(error)), FaultClass.CONFIGURATION)
        elif not self.name:
            self._stage = SpaceStage(BackendHealth(False, str(error)), FaultClass.UNREACHABLE)
