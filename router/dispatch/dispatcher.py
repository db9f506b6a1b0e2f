"""The dispatcher: claims a queued job, chooses a backend, runs attempts until a verified master is sealed.

An accepted job ends in a verified master or in an honest error, whatever dies. The upload stays in the spool until a
verified output is committed, so any attempt can be repeated anywhere; `generation` fences late results.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from router.core import clock
from router.core.errors import Problem
from router.core.event_log import log, log_exception
from router.dispatch import attempt
from router.dispatch.placement import Placement, Placer
from router.jobs import attempts, lifecycle
from router.jobs.services import Services
from router.store.port import JobMissing, Lease, RevisionConflict
from router.store.record import Job
from router.store.state import JobState
from router.tiers.fleet.member import Reservation
from router.tiers.policy.choice import Choice
from router.tiers.policy.estimate import Timing
from router.tiers.policy.faults import FaultClass, TierFault

WAIT_FOR_ROOM_S = 1.0
LONGEST_WAIT_S = 5.0
JITTER_S = (0.25, 5.0)
LEASE_EXTEND_S = 5.0


class Dispatcher:
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
        while True:
            try:
                await self._serve_one()
            except Exception as error:
                # Not even the store failing may end this loop; a lease that could not be given back runs out.
                log_exception(error)
                await asyncio.sleep(WAIT_FOR_ROOM_S)

    async def _serve_one(self) -> None:
        lease, place = await self._claim()
        try:
            await self._hold(lease, self._master(lease, place))
        except JobMissing:
            await lease.finish()
        except Exception as error:
            # A fault of our own must not lose the job: it is tried again after a while.
            log_exception(error)
            await lease.give_back(WAIT_FOR_ROOM_S)

    async def _claim(self) -> tuple[Lease, Placement]:
        """The next job whose turn it is, and a backend that is occupied for it.

        One claimer at a time, and only while a backend has room: whose turn it is is decided at the last moment.
        """
        services = self._services
        async with self._claiming:
            while True:
                lanes = self._placer.lanes_with_room(await services.queue.depth())
                lease = await services.queue.lease(lanes, wait_s=1.0) if lanes else None
                if lease is None:
                    if not lanes:
                        await services.fleet.wait_for_change(1.0)
                    continue
                place = await self._placer.place(lease.job_id, fresh=True)
                if place is not None:
                    return lease, place
                await lease.give_back(WAIT_FOR_ROOM_S)

    async def _hold(self, lease: Lease, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` while extending the lease; stop when the lease is lost."""
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

    async def _master(self, lease: Lease, place: Placement | None) -> None:
        """Attempts, one after another, until the job is done, has failed, or must wait for room."""
        wait_s = WAIT_FOR_ROOM_S
        while place is not None:
            try:
                fault = await self._attempt(lease.job_id, place)
            except attempt.LostJob:
                return await lease.finish()
            if fault is None:
                return await lease.finish()
            lacks_room = fault.fault_class is FaultClass.ROOM  # it would be rendered for nothing elsewhere too
            place = None if lacks_room else await self._placer.place(lease.job_id, fresh=False)
            wait_s = self._pause_s(fault)
        await self._services.change(lease.job_id, attempts.requeued)
        await lease.give_back(wait_s)

    def _pause_s(self, fault: TierFault) -> float:
        """What the backend asked for; else full jitter, so that many jobs do not come back together."""
        if fault.retry_after_s is not None:
            return min(fault.retry_after_s, LONGEST_WAIT_S)
        return JITTER_S[0] + (JITTER_S[1] - JITTER_S[0]) * self._services.fleet.draw()

    async def _attempt(self, job_id: str, place: Placement) -> TierFault | None:
        """One attempt on its place: the fault after which to go on elsewhere, or None when the job is at its end,
        mastered or failed. Raises attempt.LostJob."""
        services, started_s = self._services, clock.now()
        fault: TierFault | None = None
        timing: Timing | None = None
        self._placer.retries += place.is_retry
        try:
            job = await self._begin(job_id, place.choice, started_s)
            made = await self._run_unless_lost(job, place.reservation)
            timing = made.timing
        except TierFault as caught:
            fault = caught
        except Problem as problem:
            await self._fail(job, problem)
            return None
        finally:
            self._placer.retries -= place.is_retry
            services.fleet.end(place.reservation, fault, timing)
        if fault is not None:
            verdict = await self._note_fault(job, place.choice, fault)
            if verdict is None:
                return fault
            await self._fail(job, verdict)
            return None
        await self._seal(job, made)
        await lifecycle.finish_sealed(services, job_id)
        return None

    async def _begin(self, job_id: str, choice: Choice, started_s: float) -> Job:
        """The job put to work under a new generation. Raises attempt.LostJob when it is not to be run."""
        job = await self._services.change(job_id, lambda job: attempts.with_new_attempt(job, choice, started_s))
        if job.state is JobState.SEALED:  # its last step was interrupted
            await lifecycle.finish_sealed(self._services, job_id)
        if job.state is not JobState.RUNNING:
            raise attempt.LostJob
        return job

    async def _run_unless_lost(self, job: Job, reservation: Reservation) -> attempt.AttemptResult:
        """Run the attempt while the job is still this generation's and the backend may be used.

        Raises TierFault, Problem, attempt.LostJob.
        """
        run = asyncio.create_task(attempt.run(self._services, job, reservation))
        lost = asyncio.create_task(attempt.until_lost(self._services, job))
        evicted = asyncio.create_task(reservation.evicted.wait())
        made: attempt.AttemptResult | None = None
        try:
            await asyncio.wait([run, lost, evicted], return_when=asyncio.FIRST_COMPLETED)
            made = run.result() if run.done() else None
        finally:
            for task in (run, lost, evicted):
                task.cancel()
            ended, *_ = await asyncio.gather(run, lost, evicted, return_exceptions=True)
            if made is None and isinstance(ended, attempt.AttemptResult):  # whole, but too late to be wanted
                await attempt.drop(self._services, ended.outputs)
        if made is not None:
            return made
        if reservation.evicted.is_set():
            raise TierFault(FaultClass.CAPACITY, "the backend was taken out for maintenance")
        raise attempt.LostJob

    async def _seal(self, job: Job, made: attempt.AttemptResult) -> None:
        """Commit the verified outputs, if the job is still this generation's. Raises attempt.LostJob."""
        mine = False

        def commit(current: Job) -> Job | None:
            nonlocal mine
            mine = attempts.is_same_attempt(current, job)
            if not mine:
                return None
            closed = attempts.with_last_ended(current.attempts, clock.now(), "done", "")
            changes = {"outputs": made.outputs, "report": made.report, "expires_s": made.expires_s}
            return current.to(JobState.SEALED, attempts=closed, error=None, **changes)

        try:
            await self._services.change(job.id, commit)
        except (JobMissing, RevisionConflict):
            mine = False
        if not mine:
            await attempt.drop(self._services, made.outputs)
            raise attempt.LostJob

    async def _note_fault(self, job: Job, choice: Choice, fault: TierFault) -> Problem | None:
        """Put the fault on record; the Problem with which the job must end, or None to try elsewhere.

        Raises attempt.LostJob when the job is another generation's by now: a late fault changes nothing of it.
        """
        log("attempt_failed", tier=choice.tier, backend=choice.backend, fault=fault.fault_class.value)

        def note(current: Job) -> Job:
            if not attempts.is_same_attempt(current, job):
                raise attempt.LostJob
            return attempts.faulted(current, fault, clock.now())

        return attempts.ending_problem(await self._services.change(job.id, note), fault)

    async def _fail(self, job: Job, problem: Problem) -> None:
        await lifecycle.end(self._services, job.id, JobState.FAILED, problem, generation=job.generation)
