"""Wakes a sleeping Space before a job needs it, so that its cold start passes while the tiers above still cope."""

from __future__ import annotations

import asyncio

from router.core.event_log import log_exception
from router.jobs.services import Services
from router.store.port import Queue
from router.tiers.fleet.fleet import Fleet
from router.tiers.policy.choice import TYPICAL_JOB, backends_to_wake

PREWARM_EVERY_S = 1.0
"""A cold start takes a minute or more, so that a second's delay is nothing, and a look takes microseconds."""


async def run_prewarm(services: Services) -> None:
    """Look every LOOK_EVERY_S whether a Space should be woken."""
    while True:
        try:
            await wake_needed_spaces(services.queue, services.fleet)
        except Exception as error:
            # A queue that can't be asked for a moment must not end this.
            log_exception(error)
        await asyncio.sleep(PREWARM_EVERY_S)


async def wake_needed_spaces(queue: Queue, fleet: Fleet) -> None:
    """Wake the Spaces that a typical job would need soon."""
    need = TYPICAL_JOB._replace(queued=await queue.depth())
    for name in backends_to_wake(fleet.candidates(), need, fleet.draw):
        fleet.wake(name)
