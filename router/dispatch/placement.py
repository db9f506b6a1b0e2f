"""Finds and reserves a backend for a job, and says which of the queue's lanes could find one at all."""

from __future__ import annotations

from typing import NamedTuple

from mastering.contract.kinds import job_kinds
from router.jobs import attempts, eviction
from router.jobs.intake import lane_of
from router.jobs.kinds import outputs_bound_bytes, typical_job
from router.jobs.services import Services
from router.spool.records import sealed_size
from router.store.port import JobMissing
from router.store.record import Job
from router.tiers.fleet.member import Reservation
from router.tiers.policy.choice import Choice, choose, forecast

RETRY_SHARE = 0.2
"""Retries may be this share of the jobs that run or wait: in an outage they must not become most of the load."""
MIN_RETRIES = 3
"""So many may run in any case, or a router with few jobs could never retry."""


class Placement(NamedTuple):
    """A chosen backend, reserved for one attempt."""

    choice: Choice
    reservation: Reservation
    is_retry: bool


class Placer:
    """Places one job at a time, by what is known of the fleet at that moment."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.retries = 0
        """Attempts that run now after an earlier one of their job had failed."""

    def lanes_with_free_backend(self, queued: int) -> list[str]:
        """The lanes of which a typical job could start now, when `queued` jobs wait."""
        fleet = self._services.fleet
        candidates = fleet.candidates()
        lanes = []
        for kind in job_kinds().values():
            for managed_only in (False, True):
                need = typical_job(kind)._replace(managed_only=managed_only, queued=queued)
                if choose(candidates, need, fleet.draw):
                    lanes.append(lane_of(kind.name, managed_only=managed_only))
        return lanes

    async def place(self, job_id: str, *, has_waited: bool) -> Placement | None:
        """Reserve a backend for the job; None when it must wait.

        `has_waited`: since its last fault it stood in the queue, so that, if no other backend is left, it may go to
        one where it failed.
        """
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
        candidates, now_s, draw = services.fleet.candidates(), services.clock.now(), services.fleet.draw
        need = attempts.need_of(job, now_s, queued)
        if has_waited and forecast(candidates, need, draw).tier is None:
            need = attempts.need_of(job, now_s, queued, again=True)
        choice = choose(candidates, need, draw)
        if choice is None:
            return None
        if attempts.is_retry(job):
            services.fleet.note_failover(choice, job.attempts[-1].outcome if job.attempts else "")
        return Placement(choice, services.fleet.reserve(choice, need, job.id), attempts.is_retry(job))

    async def waits_for_another(self, job_id: str) -> bool:
        """Whether a backend where the job has not failed would take it, once that is free."""
        services = self._services
        try:
            job, _ = await services.jobs.get(job_id)
        except JobMissing:
            return False
        need = attempts.need_of(job, services.clock.now(), await services.queue.depth())
        failed_on = {job.attempts[-1].backend} if job.attempts else set()
        others = [one for one in services.fleet.candidates() if one.name not in failed_on]
        return forecast(others, need, services.fleet.draw).tier is not None

    async def _lacks_room(self, job: Job) -> bool:
        """Whether the spool has no room for its masters at their largest, once others' finished ones are evicted."""
        spool = self._services.spool
        most_bytes = spool.usage().quota_bytes - (spool.reserved_bytes_of(job.input.ref) if job.input else 0)
        most_bytes -= sealed_size(most_bytes) - most_bytes
        expected_bytes = max(0, min(outputs_bound_bytes(job), most_bytes))
        await eviction.evict(self._services, expected_bytes)
        return self._services.spool.bytes_to_free(expected_bytes) > 0

    def _may_retry(self, queued: int) -> bool:
        active = queued + sum(member.in_flight for member in self._services.fleet.members())
        return self.retries < max(MIN_RETRIES, RETRY_SHARE * active)
