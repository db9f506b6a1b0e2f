"""The dispatcher: claims a queued job, chooses a backend, runs attempts until a verified master is committed.

An accepted job ends in a verified master or in an honest error, whatever dies. The upload stays in the spool until a
verified output is committed, so any attempt can be repeated anywhere; `generation` fences late results.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from router.core.errors import Problem
from router.core.event_log import log, log_exception
from router.dispatch import attempt, outputs
from router.dispatch.placement import Placement, Placer
from router.jobs import attempts, lifecycle
from router.jobs.services import Services
from router.store.port import JobMissing, Lease, RevisionConflict
from router.store.record import Job
from router.store.state import JobState
from router.tiers.fleet.member import Reservation
from router.tiers.policy.choice import Choice
from router.tiers.policy.faults import FaultClass, TierFault

WAIT_FOR_BACKEND_S = 1.0
"""Before a job that found no backend is claimed again; as short, since a backend may be free at any moment."""
LONGEST_WAIT_S = 5.0
"""Of what a backend asks for by Retry-After: another backend may be free long before."""
JITTER_S = (0.25, 5.0)
"""Between these a job that failed waits for its next attempt, by chance."""
LEASE_EXTEND_S = 5.0
"""A quarter of the store's lease (DEFAULT_LEASE_S): two extensions may fail before it is lost."""


class Dispatcher:
    """As many claims and attempts at once as `concurrency` in the settings."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks: list[asyncio.Task[None]] = []
        self._claiming = asyncio.Lock()
        self._placer = Placer(services)

    async def start(self) -> None:
        count = self._services.settings.concurrency
        self._tasks = [asyncio.create_task(self._serve(), name=f"dispatch {n}") for n in range(count)]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self) -> None:
        """Claim and master jobs, for ever."""
        while True:
            try:
                await self._serve_one()
            except Exception as error:
                # Not even the store failing may end this loop; a lease that could not be given back runs out.
                log_exception(error)
                await asyncio.sleep(WAIT_FOR_BACKEND_S)

    async def _serve_one(self) -> None:
        lease, placement = await self._claim()
        try:
            await self._while_leased(lease, self._master(lease, placement))
        except JobMissing:
            await lease.finish()
        except Exception as error:
            log_exception(error)
            await self._go_on_after_own_failure(lease)

    async def _go_on_after_own_failure(self, lease: Lease) -> None:
        """A fault of our own must not lose the job, which is tried again after a while; nor repeat it without end."""
        services = self._services
        fault = TierFault(FaultClass.OURS, "something broke on the router's side")

        def note(job: Job) -> Job | None:
            running = job.state is JobState.RUNNING
            return attempts.faulted(job, fault, services.clock.now()) if running else None

        job = await services.change(lease.job_id, note)
        problem = attempts.ending_problem(job, fault)
        if problem is not None:
            await self._fail(job, problem)
            return await lease.finish()
        await services.change(lease.job_id, attempts.requeued)
        await lease.release(WAIT_FOR_BACKEND_S)

    async def _claim(self) -> tuple[Lease, Placement]:
        """Wait for the next job in turn and a backend that is reserved for it.

        One claimer at a time, and only while a backend is free: whose turn it is is decided at the last moment.
        """
        services = self._services
        async with self._claiming:
            while True:
                lanes = self._placer.lanes_with_free_backend(await services.queue.depth())
                lease = await services.queue.lease(lanes, 1.0, services.owner) if lanes else None
                if lease is None:
                    if not lanes:
                        await services.fleet.wait_for_change(1.0)
                    continue
                placement = await self._placer.place(lease.job_id, has_waited=True)
                if placement is not None:
                    return lease, placement
                await lease.release(WAIT_FOR_BACKEND_S)

    async def _while_leased(self, lease: Lease, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` while extending the lease; cancel it when the lease is lost."""
        task = asyncio.create_task(work)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=LEASE_EXTEND_S)
                if not task.done() and not await lease.extend():
                    task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _master(self, lease: Lease, placement: Placement | None) -> None:
        """Run attempts, one after another, until the job is done, has failed, or must wait."""
        wait_s = WAIT_FOR_BACKEND_S
        while placement is not None:
            try:
                fault = await self._attempt(lease.job_id, placement)
            except attempt.LostJob:
                return await lease.finish()
            if fault is None:
                return await lease.finish()
            lacks_room = fault.fault_class is FaultClass.ROOM  # it would be rendered for nothing elsewhere too
            placement = None if lacks_room else await self._placer.place(lease.job_id, has_waited=False)
            goes_elsewhere = not (lacks_room or placement) and await self._placer.waits_for_another(lease.job_id)
            wait_s = 0.0 if goes_elsewhere else self._pause_s(fault)
        await self._services.change(lease.job_id, attempts.requeued)
        await lease.release(wait_s)

    def _pause_s(self, fault: TierFault) -> float:
        """What the backend asked for; else full jitter, so that many jobs do not come back to it together."""
        if fault.retry_after_s is not None:
            return min(fault.retry_after_s, LONGEST_WAIT_S)
        return JITTER_S[0] + (JITTER_S[1] - JITTER_S[0]) * self._services.fleet.draw()

    async def _attempt(self, job_id: str, placement: Placement) -> TierFault | None:
        """Run one attempt: the fault after which to go on elsewhere, or None when the job is mastered or has failed.

        Raises attempt.LostJob.
        """
        services, started_s = self._services, self._services.clock.now()
        outcome: attempt.AttemptResult | TierFault | Problem | None = None
        self._placer.retries += placement.is_retry
        try:
            job = await self._begin(job_id, placement.choice, started_s)
            outcome = await self._outcome_of(job, placement.reservation)
        finally:
            self._placer.retries -= placement.is_retry
            fault = outcome if isinstance(outcome, TierFault) else None
            timing = outcome.timing if isinstance(outcome, attempt.AttemptResult) else None
            services.fleet.release(placement.reservation, fault, timing)
        match outcome:
            case attempt.AttemptResult():
                await self._seal(job, outcome)
                await lifecycle.finish_sealed(services, job_id)
            case TierFault():
                problem = await self._note_fault(job, placement.choice, outcome)
                if problem is None:
                    return outcome
                await self._fail(job, problem)
            case Problem():
                await self._fail(job, outcome)
        return None

    async def _begin(self, job_id: str, choice: Choice, started_s: float) -> Job:
        """Set the job running under a new generation. Raises attempt.LostJob when it is not to be run."""
        job = await self._services.change(job_id, lambda job: attempts.with_new_attempt(job, choice, started_s))
        if job.state is JobState.SEALED:  # its last step was interrupted
            await lifecycle.finish_sealed(self._services, job_id)
        if job.state is not JobState.RUNNING:
            raise attempt.LostJob
        return job

    async def _outcome_of(self, job: Job, reservation: Reservation) -> attempt.AttemptResult | TierFault | Problem:
        """Run the attempt while the job is still this generation's and the backend may be used.

        Raises attempt.LostJob.
        """
        run = asyncio.create_task(attempt.run(self._services, job, reservation))
        lost = asyncio.create_task(attempt.until_lost(self._services.jobs, self._services.events, job))
        evicted = asyncio.create_task(reservation.evicted.wait())
        result: attempt.AttemptResult | None = None
        try:
            await asyncio.wait([run, lost, evicted], return_when=asyncio.FIRST_COMPLETED)
            result = run.result() if run.done() else None
        except (TierFault, Problem) as error:
            return error
        finally:
            for task in (run, lost, evicted):
                task.cancel()
            ended, *_ = await asyncio.gather(run, lost, evicted, return_exceptions=True)
            if result is None and isinstance(ended, attempt.AttemptResult):  # whole, but too late to be used
                await outputs.destroy(self._services.spool, ended.outputs)
        if result is not None:
            return result
        if reservation.evicted.is_set():
            return TierFault(FaultClass.CAPACITY, "the backend was taken out for maintenance")
        raise attempt.LostJob

    async def _seal(self, job: Job, result: attempt.AttemptResult) -> None:
        """Commit the verified outputs, if the job is still this generation's. Raises attempt.LostJob."""
        is_ours = False

        def commit(current: Job) -> Job | None:
            nonlocal is_ours
            is_ours = attempts.is_same_attempt(current, job)
            if not is_ours:
                return None
            closed = attempts.with_last_ended(current.attempts, self._services.clock.now(), "done", "")
            changes = {"outputs": result.outputs, "report": result.report, "expires_s": result.expires_s}
            return current.to(JobState.SEALED, attempts=closed, error=None, **changes)

        try:
            await self._services.change(job.id, commit)
        except (JobMissing, RevisionConflict):
            is_ours = False
        if not is_ours:
            await outputs.destroy(self._services.spool, result.outputs)
            raise attempt.LostJob

    async def _note_fault(self, job: Job, choice: Choice, fault: TierFault) -> Problem | None:
        """Put the fault on record; the Problem with which the job must end, or None to try elsewhere.

        Raises attempt.LostJob when the job is another generation's by now: a late fault changes nothing of it.
        """
        log("attempt_failed", tier=choice.tier, backend=choice.backend, fault=fault.fault_class.value)

        def note(current: Job) -> Job:
            if not attempts.is_same_attempt(current, job):
                raise attempt.LostJob
            return attempts.faulted(current, fault, self._services.clock.now())

        problem = attempts.ending_problem(await self._services.change(job.id, note), fault)
        if problem is not None and problem.code == "poison":
            self._services.fleet.take_back_failures(job.id)
        return problem

    async def _fail(self, job: Job, problem: Problem) -> None:
        await lifecycle.end(self._services, job.id, JobState.FAILED, problem, generation=job.generation)
