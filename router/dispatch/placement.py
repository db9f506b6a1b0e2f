"""A backend for a job, occupied for one attempt; and which jobs could find one at all."""

from __future__ import annotations

from typing import NamedTuple

from router.core import clock
from router.jobs import attempts, eviction
from router.jobs.intake import LANES, MANAGED_LANE
from router.jobs.services import Services
from router.store.port import JobMissing
from router.store.record import Job
from router.tiers.fleet.member import Reservation
from router.tiers.policy.choice import TYPICAL, Choice, choose, outlook

RETRY_SHARE, RETRIES_LEAST = 0.2, 3


class Placement(NamedTuple):
    """A chosen backend, occupied for one attempt."""

    choice: Choice
    reservation: Reservation
    is_retry: bool


class Placer:
    def __init__(self, services: Services) -> None:
        self._services = services
        self.retries = 0
        """Attempts that run now after an earlier one of their job had failed."""

    def lanes_with_room(self, queued: int) -> list[str]:
        fleet = self._services.fleet
        candidates = fleet.candidates()
        needs = {lane: TYPICAL._replace(managed_only=lane == MANAGED_LANE, queued=queued) for lane in LANES}
        return [lane for lane, need in needs.items() if choose(candidates, need, fleet.draw)]

    async def place(self, job_id: str, *, fresh: bool) -> Placement | None:
        """A backend for the job, occupied; None when it must wait. `fresh`: it has waited since its last fault, so
        that it may go where it failed, if there is nobody else."""
        services = self._services
        try:
            job, _ = await services.jobs.get(job_id)
        except JobMissing:
            await services.queue.withdraw(job_id)
            return None
        if attempts.lacked_spool_space(job) and await self._lacks_room(job):
            return None
        queued = await services.queue.depth()
        if attempts.is_retry(job) and not self._may_retry(queued):
            return None
        candidates, now, draw = services.fleet.candidates(), clock.now(), services.fleet.draw
        need = attempts.need_of(job, now, queued)
        if fresh and outlook(candidates, need, draw).tier is None:
            need = attempts.need_of(job, now, queued, again=True)
        choice = choose(candidates, need, draw)
        if choice is None:
            return None
        if attempts.is_retry(job):
            services.fleet.note_failover(choice, job.attempts[-1].outcome if job.attempts else "")
        return Placement(choice, services.fleet.begin(choice, need), attempts.is_retry(job))

    async def _lacks_room(self, job: Job) -> bool:
        """Would a master of about the song's size find no room, old masters out of the way?"""
        wanted_bytes = len(job.settings.outputs) * (job.input.size_bytes if job.input else 0)
        await eviction.evict(self._services, wanted_bytes)
        return self._services.spool.bytes_to_free(wanted_bytes) > 0

    def _may_retry(self, queued: int) -> bool:
        """Retries are a part of the load, never most of it: beyond that they wait."""
        active = queued + sum(member.in_flight for member in self._services.fleet.members())
        return self.retries < max(RETRIES_LEAST, RETRY_SHARE * active)
