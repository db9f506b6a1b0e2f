"""Wakes a Space that sleeps before a job needs it: its cold start passes while the tiers above still cope."""

from __future__ import annotations

import asyncio

from router.core.event_log import log_exception
from router.jobs.services import House
from router.tiers.policy.choice import TYPICAL, worth_waking

LOOK_EVERY_S = 1.0


async def wake_for_ever(house: House) -> None:
    while True:
        try:
            await wake(house)
        except Exception as error:
            # A queue that can't be asked for a moment must not end this.
            log_exception(error)
        await asyncio.sleep(LOOK_EVERY_S)


async def wake(house: House) -> None:
    """Look once."""
    need = TYPICAL._replace(queued=await house.queue.depth())
    for name in worth_waking(house.fleet.candidates(), need, house.fleet.draw):
        house.fleet.wake(name)
