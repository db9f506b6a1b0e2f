"""Where a Space answers, and whether it is awake: by a fixed address, or by what the Hub says of `owner/name`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from router.core import clock
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import BackendHealth
from router.tiers.space.stage import StageWatch

IN_USE_S = 600.0
"""A Space that nobody has used for so long is left alone: any question would keep it from falling asleep."""
WAKE_EVERY_S = 20.0
_MAY_BE_ASLEEP = frozenset({FaultClass.UNREACHABLE, FaultClass.CRASH, FaultClass.BUG})


class SpaceAddress:
    def __init__(self, url: str | None = None, stage: StageWatch | None = None, token: str | None = None) -> None:
        """`url`, or a watched stage. `token` opens a private Space."""
        self._url, self._stage, self.token = url, stage, token
        self._used_s = -IN_USE_S
        self._woken_s = -WAKE_EVERY_S

    def url(self) -> str:
        """Raises TierFault while nobody has said."""
        url = self._url or (self._stage.host if self._stage else None)
        if url is None:
            raise TierFault(FaultClass.UNREACHABLE, "the Hub has not said where the Space answers")
        return url.rstrip("/")

    def use(self) -> None:
        """It is being used: for a while it may be asked how it is."""
        self._used_s = clock.now()

    async def resting(self, last: BackendHealth | None) -> BackendHealth | None:
        """What the Hub says, where that is all there is to say; None: ask the Space itself."""
        if self._stage is None:
            return None
        stage = await self._stage.look()
        if not stage.health.up:
            return stage.health
        if clock.now() - self._used_s <= IN_USE_S:
            return None
        return self.with_quota((last or stage.health)._replace(up=True, resting=None, detail="runs; not in use"))

    def with_quota(self, health: BackendHealth) -> BackendHealth:
        """The answer with what the Hub says is left of the quota."""
        allowance = self._stage.allowance if self._stage else None
        if allowance is None:
            return health
        return health._replace(quota_left_s=allowance.left_s, quota_resets_in_s=allowance.resets_in_s)

    async def refuse_unless_awake(self) -> None:
        """Raises TierFault."""
        fault = await self._by_stage()
        if fault is not None:
            raise fault

    async def explained(self, fault: TierFault) -> TierFault:
        """The stage behind a fault of the connection, if it has changed: asleep is no crash."""
        if self._stage is None or fault.fault_class not in _MAY_BE_ASLEEP:
            return fault
        self._stage.hurry()
        return await self._by_stage() or fault

    async def wake(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Have it get up: a request (`ask`) wakes one that sleeps, one that was stopped has to be told."""
        if self._stage is None or clock.now() - self._woken_s < WAKE_EVERY_S:
            return
        if (await self._stage.look()).fault is not FaultClass.ASLEEP:
            return
        self._woken_s = clock.now()
        self.use()
        await self._stage.restart_if_stopped()
        with suppress(TierFault):
            await ask()
        self._stage.hurry()

    async def close(self) -> None:
        if self._stage is not None:
            await self._stage.close()

    async def _by_stage(self) -> TierFault | None:
        if self._stage is None:
            return None
        stage = await self._stage.look()
        return None if stage.fault is None else TierFault(stage.fault, f"the Space is {stage.health.detail}")
