"""Wakes a Space that sleeps before a job needs it: its cold start passes while the tiers above still cope."""

from __future__ import annotations

import asyncio

from router.core.event_log import log_exception
from router.jobs.services import Services
from router.tiers.policy.choice import TYPICAL, worth_waking

LOOK_EVERY_S = 1.0


async def wake_for_ever(services: Services) -> None:
    while True:
        try:
            await wake(services)
        except Exception as error:
            # A queue that can't be asked for a moment must not end this.
            log_exception(error)
        await asyncio.sleep(LOOK_EVERY_S)


async def wake(services: Services) -> None:
    """Look once."""
    need = TYPICAL._replace(queued=await services.queue.depth())
    for name in worth_waking(services.fleet.candidates(), need, services.fleet.draw):
        services.fleet.wake(name)
