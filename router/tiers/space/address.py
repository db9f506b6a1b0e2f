"""A Space's URL and whether it is awake: a fixed URL, or what the Hub reports of `owner/name`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from router.core import clock
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import BackendHealth
from router.tiers.space.stage import StageWatch

IN_USE_S = 600.0
"""A Space that was not used for so long is not probed: any request would keep it from falling asleep."""
WAKE_EVERY_S = 20.0
"""Between two requests to wake it: a cold start takes a minute or more, and the Hub limits requests."""
_MAY_BE_ASLEEP = frozenset({FaultClass.UNREACHABLE, FaultClass.CRASH, FaultClass.BUG})


class SpaceAddress:
    """The URL of one Space, its stage where the Hub is asked for it, and when it was last used and woken."""

    def __init__(self, url: str | None = None, stage: StageWatch | None = None, token: str | None = None) -> None:
        """Either `url` or `stage` is given. `token` goes to the Space itself, for a private one."""
        self._url, self._stage, self.token = url, stage, token
        self._used_s = -IN_USE_S
        self._woken_s = -WAKE_EVERY_S

    def url(self) -> str:
        """The URL without a slash at its end. Raises TierFault while the Hub has not told it."""
        url = self._url or (self._stage.host if self._stage else None)
        if url is None:
            raise TierFault(FaultClass.UNREACHABLE, "the Hub has not said where the Space answers")
        return url.rstrip("/")

    def mark_used(self) -> None:
        """The Space is being used now: for IN_USE_S it may be probed."""
        self._used_s = clock.now()

    async def health_by_hub(self, last: BackendHealth | None) -> BackendHealth | None:
        """Its health by the Hub, where the Space itself must not or need not be asked; None: ask the Space."""
        if self._stage is None:
            return None
        stage = await self._stage.current()
        if not stage.health.up:
            return stage.health
        if clock.now() - self._used_s <= IN_USE_S:
            return None
        return self.with_quota((last or stage.health)._replace(up=True, reported_state=None, detail="runs; not in use"))

    def with_quota(self, health: BackendHealth) -> BackendHealth:
        """`health` with the quota that the Hub reports."""
        allowance = self._stage.allowance if self._stage else None
        if allowance is None:
            return health
        return health._replace(quota_left_s=allowance.left_s, quota_resets_in_s=allowance.resets_in_s)

    async def refuse_unless_awake(self) -> None:
        """Raise TierFault for a Space that does not run, without a request to it."""
        fault = await self._stage_fault()
        if fault is not None:
            raise fault

    async def explain(self, fault: TierFault) -> TierFault:
        """The fault by the Space's stage, where `fault` may come of a change of stage: falling asleep is no crash."""
        if self._stage is None or fault.fault_class not in _MAY_BE_ASLEEP:
            return fault
        self._stage.ask_soon()
        return await self._stage_fault() or fault

    async def wake(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Wake it: any request (`ask`) wakes one that sleeps; one that was stopped is restarted by the Hub."""
        if self._stage is None or clock.now() - self._woken_s < WAKE_EVERY_S:
            return
        if (await self._stage.current()).fault is not FaultClass.ASLEEP:
            return
        self._woken_s = clock.now()
        self.mark_used()
        await self._stage.restart_if_stopped()
        with suppress(TierFault):
            await ask()
        self._stage.ask_soon()

    async def close(self) -> None:
        if self._stage is not None:
            await self._stage.close()

    async def _stage_fault(self) -> TierFault | None:
        """The fault of an attempt at this stage; None where the Space runs, or the Hub is not asked."""
        if self._stage is None:
            return None
        stage = await self._stage.current()
        return None if stage.fault is None else TierFault(stage.fault, f"the Space is {stage.health.detail}")
