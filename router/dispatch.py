"""The dispatcher: claims a queued job, chooses a backend, runs attempts until a verified master is sealed.

An accepted job ends in a verified master or in an honest error, whatever dies. The upload stays in the spool until a
verified output is committed, so any attempt can be repeated anywhere; `generation` fences late results.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from mastering.contract import USER_FAULTS
from router import attempt, clock, wipe
from router.errors import Problem
from router.house import House
from router.intake import LANES, MANAGED_LANE
from router.jobs.model import Attempt, Job
from router.jobs.ports import Conflict, Lease, Missing
from router.jobs.state import DONE, State
from router.logs import log, log_exception, size_bucket
from router.tiers.choice import TIER_TITLES, Choice, choose
from router.tiers.faults import Next, TierFault

MAX_FAULTS = 4
MAX_DEATHS = 2
WAIT_FOR_ROOM_S = 1.0
LONGEST_WAIT_S = 5.0
LEASE_EXTEND_S = 5.0
_ATTEMPTS_KEPT = 20


class Dispatcher:
    def __init__(self, house: House) -> None:
        self._house = house
        self._tasks: list[asyncio.Task[None]] = []
        self._claiming = asyncio.Lock()

    async def start(self) -> None:
        count = self._house.settings.concurrency
        self._tasks = [asyncio.create_task(self._serve(), name=f"dispatch {n}") for n in range(count)]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            lease, choice = await self._claim()
            try:
                await self._hold(lease, self._master(lease, choice))
            except Missing:
                await lease.finish()
            except Exception as error:
                # A fault of our own must not stop this loop, nor lose the job: it is tried again after a while.
                log_exception(error)
                await lease.give_back(WAIT_FOR_ROOM_S)

    async def _claim(self) -> tuple[Lease, Choice]:
        """The next job whose turn it is, and a backend that is occupied for it.

        One claimer at a time, and only while a backend has room: whose turn it is is decided at the last moment.
        """
        house = self._house
        async with self._claiming:
            while True:
                candidates = house.fleet.candidates()
                lanes = [lane for lane in LANES if choose(candidates, managed_only=lane == MANAGED_LANE)]
                lease = await house.queue.lease(lanes, wait_s=1.0) if lanes else None
                if lease is None:
                    if not lanes:
                        await house.fleet.wait_for_change(1.0)
                    continue
                choice = await self._choose(lease.job_id, frozenset())
                if choice is not None:
                    return lease, choice
                await lease.give_back(WAIT_FOR_ROOM_S)

    async def _choose(self, job_id: str, avoid: frozenset[str]) -> Choice | None:
        try:
            job, _ = await self._house.jobs.get(job_id)
        except Missing:
            await self._house.queue.withdraw(job_id)
            return None
        choice = choose(self._house.fleet.candidates(), managed_only=job.managed_only, avoid=avoid)
        if choice is not None:
            self._house.fleet.occupy(choice.backend)
        return choice

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

    async def _master(self, lease: Lease, choice: Choice | None) -> None:
        """Attempts, one after another, until the job is done, has failed, or must wait for room."""
        avoid: frozenset[str] = frozenset()
        wait_s = WAIT_FOR_ROOM_S
        while choice is not None:
            try:
                fault = await self._attempt(lease.job_id, choice)
            except attempt.LostJob:
                return await lease.finish()
            if fault is None:
                return await lease.finish()
            avoid |= {choice.backend}
            choice = await self._choose(lease.job_id, avoid)
            wait_s = min(fault.retry_after_s or WAIT_FOR_ROOM_S, LONGEST_WAIT_S)
        await self._house.change(lease.job_id, _requeued)
        await lease.give_back(wait_s)

    async def _attempt(self, job_id: str, choice: Choice) -> TierFault | None:
        """One attempt on the occupied backend of `choice`: the fault after which to go on elsewhere, or None when
        the job is at its end, mastered or failed. Raises attempt.LostJob."""
        house = self._house
        started_s = clock.now()
        try:
            job = await self._begin(job_id, choice, started_s)
            made = await self._run_unless_lost(job, choice)
        except TierFault as fault:
            verdict = await self._note_fault(job, choice, fault)
            if verdict is None:
                return fault
            await self._fail(job, verdict)
            return None
        except Problem as problem:
            await self._fail(job, problem)
            return None
        finally:
            house.fleet.vacate(choice.backend)
        await self._seal(job, made)
        sealed = await wipe.finish_sealed(house, job_id)
        _record(sealed, started_s)
        return None

    async def _begin(self, job_id: str, choice: Choice, started_s: float) -> Job:
        """The job put to work under a new generation. Raises attempt.LostJob when it is not to be run."""
        job = await self._house.change(job_id, lambda job: _put_to_work(job, choice, started_s))
        if job.state is State.SEALED:  # its last step was interrupted
            await wipe.finish_sealed(self._house, job_id)
        if job.state is not State.RUNNING:
            raise attempt.LostJob
        return job

    async def _run_unless_lost(self, job: Job, choice: Choice) -> attempt.Made:
        """Run the attempt while the job is still this generation's. Raises TierFault, Problem, attempt.LostJob."""
        run = asyncio.create_task(attempt.run(self._house, job, choice))
        watch = asyncio.create_task(attempt.until_lost(self._house, job))
        made: attempt.Made | None = None
        try:
            await asyncio.wait([run, watch], return_when=asyncio.FIRST_COMPLETED)
            made = run.result() if run.done() else None
        finally:
            for task in (run, watch):
                task.cancel()
            ended, _ = await asyncio.gather(run, watch, return_exceptions=True)
            if made is None and isinstance(ended, attempt.Made):  # whole, but too late to be wanted
                await attempt.drop(self._house, ended.outputs)
        if made is None:
            raise attempt.LostJob
        return made

    async def _seal(self, job: Job, made: attempt.Made) -> None:
        """Commit the verified outputs, if the job is still this generation's. Raises attempt.LostJob."""
        mine = False

        def commit(current: Job) -> Job | None:
            nonlocal mine
            mine = _is_still(current, job)
            if not mine:
                return None
            attempts = _closed_last(current.attempts, clock.now(), "done", "")
            changes = {"outputs": made.outputs, "report": made.report, "expires_s": made.expires_s}
            return current.to(State.SEALED, attempts=attempts, error=None, **changes)

        try:
            await self._house.change(job.id, commit)
        except (Missing, Conflict):
            mine = False
        if not mine:
            await attempt.drop(self._house, made.outputs)
            raise attempt.LostJob

    async def _note_fault(self, job: Job, choice: Choice, fault: TierFault) -> Problem | None:
        """Put the fault on record; the Problem with which the job must end, or None to try elsewhere.

        Raises attempt.LostJob when the job is another generation's by now: a late fault changes nothing of it.
        """
        effect = fault.consequence
        log("attempt_failed", tier=choice.tier, backend=choice.backend, fault=fault.fault_class.value)
        if effect.death:
            self._house.fleet.note_crash(choice.backend, fault.detail)

        def note(current: Job) -> Job:
            if not _is_still(current, job):
                raise attempt.LostJob
            attempts = _closed_last(current.attempts, clock.now(), fault.fault_class, fault.detail)
            faults, deaths = current.faults + effect.counts, current.deaths + effect.death
            return current.with_(attempts=attempts, faults=faults, deaths=deaths, progress=None)

        return _verdict(await self._house.change(job.id, note), fault)

    async def _fail(self, job: Job, problem: Problem) -> None:
        _record(await wipe.end(self._house, job.id, State.FAILED, problem, generation=job.generation), None)


def _verdict(job: Job, fault: TierFault) -> Problem | None:
    """How the job ends after `fault`, or None when it may go on elsewhere."""
    if fault.consequence.next is Next.STOP:
        code = fault.code if fault.code in USER_FAULTS else "deadline"
        return Problem(str(code), fault.detail, **fault.numbers)
    if job.deaths >= MAX_DEATHS:
        return Problem("poison", f"Two machines failed while they had this song; the last said: {fault.detail}.")
    if job.faults >= MAX_FAULTS:
        return Problem("attempts_exhausted", f"{job.faults} attempts failed; the last: {fault.detail}.")
    return None


def _is_still(current: Job, job: Job) -> bool:
    """Whether the record is still at the attempt that `job` was read for."""
    return current.state is State.RUNNING and current.generation == job.generation


def _put_to_work(job: Job, choice: Choice, started_s: float) -> Job | None:
    if job.state not in (State.QUEUED, State.RUNNING):
        return None
    begun = Attempt(
        number=job.generation + 1,
        generation=job.generation + 1,
        tier=choice.tier,
        backend=choice.backend,
        reason=choice.reason,
        started_s=started_s,
    )
    attempts = (*job.attempts, begun)[-_ATTEMPTS_KEPT:]
    changes = {"generation": begun.generation, "attempts": attempts, "progress": None}
    return job.with_(**changes) if job.state is State.RUNNING else job.to(State.RUNNING, **changes)


def _requeued(job: Job) -> Job | None:
    return job.to(State.QUEUED, progress=None) if job.state is State.RUNNING else None


def _closed_last(attempts: tuple[Attempt, ...], ended_s: float, outcome: str, detail: str) -> tuple[Attempt, ...]:
    if not attempts:
        return attempts
    last = attempts[-1].model_copy(update={"ended_s": ended_s, "outcome": outcome, "detail": detail})
    return (*attempts[:-1], last)


def _record(job: Job, started_s: float | None) -> None:
    """The render record: what is left of a job when all else is forgotten."""
    facts = job.facts
    if facts is None:
        return
    last = job.attempts[-1] if job.attempts else None
    log(
        "render",
        container=facts.container,
        codec=facts.codec,
        duration_s=round(facts.duration_s),
        rate_hz=facts.rate_hz,
        channels=facts.channels,
        target=job.settings.target,
        style=job.settings.style,
        amount_percent=job.settings.amount_percent,
        outputs=",".join(job.settings.outputs),
        tier=TIER_TITLES.get(last.tier, "none") if last else "none",
        attempts=len(job.attempts),
        queue_s=round(job.attempts[0].started_s - job.created_s, 1) if job.attempts else 0,
        render_s=round(clock.now() - started_s, 1) if started_s else 0,
        size=size_bucket(job.size_bytes or 0),
        outcome="mastered" if job.state in DONE else str((job.error or {}).get("code", job.state)),
    )
