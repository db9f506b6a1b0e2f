"""The table of a job's life: every pair of states, and what must hold of any table that keeps the promise."""

from __future__ import annotations

from itertools import product

import pytest

from mastering.contract import Settings
from router.store.record import Job
from router.store.state import ACTIVE, CLOSED, DONE, STEPS, IllegalStep, JobState, check_step, mermaid

# Written a second time on purpose, in the words of the documentation: a step added by mistake is noticed.
ALLOWED = {
    "received": "spooled failed cancelled expired",
    "spooled": "queued failed cancelled expired",
    "queued": "running failed cancelled expired",
    "running": "queued sealed failed cancelled expired",
    "sealed": "mastered expired",
    "mastered": "delivered expired cancelled",
    "delivered": "expired cancelled",
    "failed": "wiped",
    "cancelled": "wiped",
    "expired": "wiped",
    "wiped": "",
}
PAIRS = list(product(JobState, JobState))


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=[f"{before}-{after}" for before, after in PAIRS])
def test_a_step_is_allowed_or_raises_and_changes_nothing(before: JobState, after: JobState) -> None:
    job = Job(id="x", account="a", options=Settings().model_dump(mode="json"), created_s=0, expires_s=1, state=before)
    kept = job.model_copy()
    if after in ALLOWED[before].split():
        check_step(before, after)
        assert job.to(after, faults=3) == job.model_copy(update={"state": after, "faults": 3})
    else:
        with pytest.raises(IllegalStep, match=f"{before} → {after}"):
            check_step(before, after)
        with pytest.raises(IllegalStep):
            job.to(after, faults=3)
    assert job == kept


def _reachable(start: JobState) -> set[JobState]:
    found, todo = {start}, [start]
    while todo:
        new = STEPS[todo.pop()] - found
        found |= new
        todo += new
    return found


def test_every_state_is_reached_and_everything_ends_wiped() -> None:
    assert _reachable(JobState.RECEIVED) == set(JobState)
    assert all(JobState.WIPED in _reachable(state) for state in JobState)
    assert STEPS[JobState.WIPED] == frozenset()


def test_a_master_is_reached_only_through_sealed_and_never_rendered_again() -> None:
    assert [state for state in JobState if JobState.MASTERED in STEPS[state]] == [JobState.SEALED]
    assert [state for state in JobState if JobState.SEALED in STEPS[state]] == [JobState.RUNNING]
    for state in (JobState.SEALED, JobState.MASTERED, JobState.DELIVERED):
        assert not _reachable(state) & {JobState.QUEUED, JobState.RUNNING, JobState.FAILED}


def test_no_closed_job_opens_again() -> None:
    for state in CLOSED:
        assert STEPS[state] <= CLOSED


def test_each_state_is_of_one_kind() -> None:
    assert sorted([*ACTIVE, *DONE, *CLOSED]) == sorted(JobState)


def test_the_diagram_holds_every_step_and_no_other() -> None:
    lines = [line.strip().split(" --> ") for line in mermaid().splitlines() if "-->" in line]
    drawn = {(before, after) for before, after in lines if "[*]" not in (before, after)}
    assert drawn == {(before, after) for before, afters in ALLOWED.items() for after in afters.split()}
    assert ["[*]", "received"] in lines
    assert ["wiped", "[*]"] in lines
