"""Random runs of the ports against a model that is too simple to be wrong, and all stores against each other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mastering.contract import Settings
from router.core import clock
from router.store.embedded import sqlite
from router.store.port import JobMissing, Lease, Owner, QueueFull, RevisionConflict
from router.store.record import Job
from router.store.state import STEPS, IllegalStep, JobState
from router.store.testing import memory
from tests import waiting
from tests.services import ram_folder

T = TypeVar("T")
IDS = st.sampled_from("abcdefgh")
ACCOUNTS = st.sampled_from(["x", "y", "z"])
ROUTERS = ("here", "there")
LANES = st.sampled_from(["any", "managed"])
LEASE_S, MAX_QUEUED, MAX_RUNNING, TTL_S = 20.0, 3, 2, 100.0


class Stores(RuleBasedStateMachine):
    """Base: three stores on one clock that the rules move; one of them lets others run in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(clock, "now", lambda: self.now)
        self._folder = ram_folder()
        limits: dict[str, Any] = {"lease_s": LEASE_S, "max_queued": MAX_QUEUED, "max_running": MAX_RUNNING}
        path = Path(self._folder.name) / "jobs.sqlite"
        opened = (
            sqlite.open_store(path, **limits),
            memory.open_store(**limits),
            waiting.open_store(memory.open_store(**limits), longest_s=0),
        )
        self._runner, self._opened = asyncio.Runner(), AsyncExitStack()
        self.stores = [self.run(self._opened.enter_async_context(store)) for store in opened]

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """What the call comes to, however long it waits."""
        return self._runner.run(call)

    def teardown(self) -> None:
        self.run(self._opened.aclose())
        self._runner.close()
        self._patch.undo()
        self._folder.cleanup()

    @rule(seconds=st.sampled_from([1.0, 7.0, 19.0, 21.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds


class JobTable(Stores):
    """The record goes only along the table's steps, whoever tries what, and only from the revision that was read."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, tuple[Job, float]] = {}

    def _alive(self, job_id: str) -> Job | None:
        found = self.model.get(job_id)
        return found[0] if found and found[1] > self.now else None

    @rule(job_id=IDS, account=ACCOUNTS)
    def create(self, job_id: str, account: str) -> None:
        job = Job(
            id=job_id, account=account, options=Settings().model_dump(mode="json"), created_s=self.now, expires_s=0.0
        )
        expected = self._alive(job_id)
        if expected is None:
            expected = job
            self.model[job_id] = (job, self.now + TTL_S)
        for store in self.stores:
            assert self.run(store.jobs.create(job, TTL_S)).job == expected

    @rule(job_id=IDS, after=st.sampled_from(JobState), is_stale=st.booleans())
    def step(self, job_id: str, after: JobState, is_stale: bool) -> None:
        before = self._alive(job_id)
        for store in self.stores:
            if before is None:
                with pytest.raises(JobMissing):
                    self.run(store.jobs.get(job_id))
                continue
            job, revision = self.run(store.jobs.get(job_id))
            if after not in STEPS[job.state]:
                with pytest.raises(IllegalStep):
                    job.to(after)
            elif is_stale:
                with pytest.raises(RevisionConflict):
                    self.run(store.jobs.change(job.to(after), revision - 1))
            else:
                self.run(store.jobs.change(job.to(after, faults=job.faults + 1), revision))
        if before is not None and after in STEPS[before.state] and not is_stale:
            self.model[job_id] = (before.to(after, faults=before.faults + 1), self.model[job_id][1])

    @rule(job_id=IDS)
    def forget(self, job_id: str) -> None:
        self.model.pop(job_id, None)
        for store in self.stores:
            self.run(store.jobs.forget(job_id))

    @invariant()
    def every_record_is_as_the_model_says(self) -> None:
        for job_id in self.model:
            expected = self._alive(job_id)
            for store in self.stores:
                try:
                    assert self.run(store.jobs.get(job_id)).job == expected
                except JobMissing:
                    assert expected is None


class Line(Stores):
    """Who is leased what: the stores agree, no job has two holders, no account more than its share."""

    @initialize()
    def begin(self) -> None:
        self.starts = dict.fromkeys(ROUTERS, 0)
        self.held: list[tuple[Lease, ...]] = []
        self.router_of: dict[str, str] = {}
        self.holder: dict[str, tuple[tuple[Lease, ...], float]] = {}
        self.accounts: dict[str, str] = {}

    def _holds(self, job_id: str) -> bool:
        return job_id in self.holder and self.holder[job_id][1] > self.now

    @rule(job_id=IDS, account=ACCOUNTS, lane=LANES, cost_s=st.integers(1, 9))
    def offer(self, job_id: str, account: str, lane: str, cost_s: int) -> None:
        outcomes = []
        for store in self.stores:
            try:
                self.run(store.queue.enqueue(job_id, lane, account, cost_s))
                outcomes.append("taken")
            except QueueFull:
                outcomes.append("full")
        is_new = job_id not in self.accounts
        is_full = is_new and list(self.accounts.values()).count(account) >= MAX_QUEUED
        assert outcomes == ["full" if is_full else "taken"] * len(self.stores)
        if is_new and not is_full:
            self.accounts[job_id] = account

    @rule(lanes=st.sampled_from([(), ("any",), ("managed",), ("any", "managed")]), router=st.sampled_from(ROUTERS))
    def lease(self, lanes: tuple[str, ...], router: str) -> None:
        owner = Owner(router, str(self.starts[router]))
        leases = tuple(self.run(store.queue.lease(lanes, 0, owner)) for store in self.stores)
        names = {lease and lease.job_id for lease in leases}
        assert len(names) == 1
        name = names.pop()
        if name is None:
            return
        assert not self._holds(name)
        account = self.accounts[name]
        assert sum(self._holds(other) and self.accounts[other] == account for other in self.accounts) < MAX_RUNNING
        pair = tuple(lease for lease in leases if lease)
        assert len({lease.attempt for lease in pair}) == 1
        self.held.append(pair)
        self.router_of[name] = router
        self.holder[name] = (pair, self.now + LEASE_S)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(self.held))
        name = pair[0].job_id
        is_holder = self._holds(name) and self.holder[name][0] is pair
        assert [self.run(lease.extend()) for lease in pair] == [is_holder] * len(self.stores)
        if is_holder:
            self.holder[name] = (pair, self.now + LEASE_S)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay_s=st.sampled_from([0.0, 10.0]))
    def give_back(self, data: st.DataObject, delay_s: float) -> None:
        pair = data.draw(st.sampled_from(self.held))
        for lease in pair:
            self.run(lease.release(delay_s))
        if self.holder.get(pair[0].job_id, (None,))[0] is pair:
            del self.holder[pair[0].job_id]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(self.held))
        for lease in pair:
            self.run(lease.finish())
        # Only who holds it, or held it last, takes it off the line; one that lost it to another does nothing.
        name = pair[0].job_id
        if not self._is_in_line(name):
            self._forget(name)

    @rule(job_id=IDS)
    def withdraw(self, job_id: str) -> None:
        for store in self.stores:
            self.run(store.queue.withdraw(job_id))
        self._forget(job_id)

    @rule(router=st.sampled_from(ROUTERS))
    def start_again(self, router: str) -> None:
        self.starts[router] += 1
        for store in self.stores:
            self.run(store.queue.release(Owner(router, str(self.starts[router]))))
        for job_id in [name for name in self.holder if self.router_of[name] == router]:
            del self.holder[job_id]

    def _is_in_line(self, job_id: str) -> bool:
        places = [self.run(store.queue.ahead_of(job_id)) for store in self.stores]
        assert len(set(places)) == 1
        return places[0] is not None or self._still_extends(job_id)

    def _still_extends(self, job_id: str) -> bool:
        if not self._holds(job_id):
            return False
        pair = self.holder[job_id][0]
        outcomes = {self.run(lease.extend()) for lease in pair}
        assert len(outcomes) == 1
        if held := outcomes.pop():
            self.holder[job_id] = (pair, self.now + LEASE_S)
        return held

    def _forget(self, job_id: str) -> None:
        self.accounts.pop(job_id, None)
        self.holder.pop(job_id, None)

    @invariant()
    def all_lines_are_the_same(self) -> None:
        depths = {self.run(store.queue.depth()) for store in self.stores}
        waiting = sum(not self._holds(job_id) for job_id in self.accounts)
        assert depths == {waiting}
        for job_id in "abcdefgh":
            assert len({self.run(store.queue.ahead_of(job_id)) for store in self.stores}) == 1


SHORT = settings(max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
TestJobTable = JobTable.TestCase
TestJobTable.settings = SHORT
TestLine = Line.TestCase
TestLine.settings = SHORT
