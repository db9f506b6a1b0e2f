"""A job's attempts: how each is added and closed, and what they say of the next backend."""

from __future__ import annotations

import pytest

from mastering.contract import Facts, FaultCode, Settings
from router.jobs import attempts as job_attempts
from router.store.record import Attempt, BlobRef, Job
from router.store.state import JobState
from router.tiers.policy.choice import Choice
from router.tiers.policy.faults import CONSEQUENCES, FaultClass, NextStep, TierFault, fault_of_engine

FACTS = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=441_000, duration_s=10.0, lossy=False)


def tried(*outcomes: tuple[str, str, str]) -> Job:
    """A running job with these attempts: tier, backend and how it ended."""
    attempts = tuple(
        Attempt(
            number=n, generation=n, tier=tier, backend=backend, reason="", started_s=0.0, outcome=outcome, ended_s=1.0
        )
        for n, (tier, backend, outcome) in enumerate(outcomes, 1)
    )
    return Job(
        id="j",
        account="a",
        state=JobState.RUNNING,
        options=Settings().model_dump(mode="json"),
        created_s=0.0,
        expires_s=100.0,
        input=BlobRef(ref="r", size_bytes=5),
        facts=FACTS,
        generation=len(attempts),
        attempts=attempts,
    )


def test_an_attempt_that_was_never_closed_is_interrupted_when_the_next_begins() -> None:
    """As after a laptop's sleep: the lease ran out, and nobody closed the attempt."""
    job = tried(("managed", "w1", "running"))
    job = job.with_(attempts=(job.attempts[0].model_copy(update={"ended_s": None}),))
    again = job_attempts.with_new_attempt(job, Choice("managed", "w2", "", 1.0), 30.0)
    assert again is not None
    assert [(one.outcome, one.ended_s) for one in again.attempts] == [("interrupted", 30.0), ("running", None)]


def test_a_fresh_job_needs_its_size_length_and_time() -> None:
    need = job_attempts.need_of(tried(), now_s=40.0, queued=3)
    assert (need.size_bytes, need.duration_s, need.deadline_s, need.queued) == (5, 10.0, 60.0, 3)
    assert (need.avoid, need.avoid_tiers, need.managed_only) == (frozenset(), frozenset(), False)


@pytest.mark.parametrize("fault_class", list(FaultClass))
def test_a_backend_that_the_job_brought_down_is_avoided_and_no_other(fault_class: FaultClass) -> None:
    need = job_attempts.need_of(tried(("managed", "w1", fault_class.value)), 0.0, 0)
    assert need.avoid == (frozenset({"w1"}) if CONSEQUENCES[fault_class].death else frozenset())
    assert need.avoid_tiers == (
        frozenset({"managed"}) if fault_class in (FaultClass.TOO_BIG, FaultClass.UNSUPPORTED) else frozenset()
    )


def test_two_faulted_attempts_on_a_tier_are_all_it_gets() -> None:
    job = tried(("managed", "w1", "crash"), ("managed", "w2", "bug"), ("gpu_space", "s", "crash"))
    need = job_attempts.need_of(job, 0.0, 0)
    assert need.avoid_tiers == {"managed"}
    assert need.avoid == {"w1", "w2", "s"}


def test_for_want_of_others_a_backend_is_met_again_but_never_one_that_is_too_small() -> None:
    job = tried(("managed", "w1", "crash"), ("managed", "w1", "crash"), ("gpu_space", "s", "too_big"))
    need = job_attempts.need_of(job, 0.0, 0, again=True)
    assert (need.avoid, need.avoid_tiers) == (frozenset(), {"gpu_space"})


def test_a_router_that_was_restarted_costs_the_job_nothing() -> None:
    job = tried(("managed", "w1", "interrupted"))
    assert job_attempts.need_of(job, 0.0, 0).avoid == frozenset()
    assert not job_attempts.is_retry(job)


@pytest.mark.parametrize("fault_class", list(FaultClass))
def test_each_fault_goes_on_record_and_costs_what_its_row_says(fault_class: FaultClass) -> None:
    fault = TierFault(fault_class, "it broke")
    job = job_attempts.faulted(tried(("managed", "w1", "running")), fault, 7.0)
    row = CONSEQUENCES[fault_class]
    assert (job.faults, job.deaths) == (int(row.spends), int(row.death))
    assert (job.attempts[-1].outcome, job.attempts[-1].detail, job.attempts[-1].ended_s) == (
        fault_class.value,
        "it broke",
        7.0,
    )
    assert (job_attempts.ending_problem(job, fault) is not None) == (row.next is NextStep.STOP)


@pytest.mark.parametrize(
    "code", [code for code in FaultCode if fault_of_engine(code, "").fault_class is FaultClass.USER]
)
def test_a_fault_of_the_song_ends_the_job_with_its_own_code_and_numbers(code: FaultCode) -> None:
    fault = fault_of_engine(code, "The song is bad.", {"at_s": 3})
    problem = job_attempts.ending_problem(job_attempts.faulted(tried(("managed", "w1", "running")), fault, 1.0), fault)
    assert problem is not None
    assert (problem.code, problem.detail, problem.numbers) == (code.value, "The song is bad.", {"at_s": 3})


def test_a_deadline_ends_the_job_as_such() -> None:
    fault = TierFault(FaultClass.DEADLINE, "too late")
    problem = job_attempts.ending_problem(tried(), fault)
    assert problem is not None
    assert problem.code == "deadline"


@pytest.mark.parametrize(
    ("faults", "deaths", "code"),
    [(1, 1, None), (3, 1, None), (2, 2, "poison"), (4, 1, "attempts_exhausted")],
)
def test_the_budget_ends_a_job_at_its_number_not_before(faults: int, deaths: int, code: str | None) -> None:
    fault = TierFault(FaultClass.CRASH, "it broke")
    problem = job_attempts.ending_problem(tried().with_(faults=faults, deaths=deaths), fault)
    assert (problem.code if problem else None) == code


@pytest.mark.parametrize("state", list(JobState))
def test_only_queued_and_running_jobs_are_put_to_work_each_time_under_a_new_generation(state: JobState) -> None:
    job = tried(("managed", "w1", "crash")).with_(state=state)
    put = job_attempts.with_new_attempt(job, Choice("w2", "managed", "because", 12.34), 5.0)
    if state not in (JobState.QUEUED, JobState.RUNNING):
        assert put is None
        return
    assert put is not None
    assert (put.state, put.generation, len(put.attempts)) == (JobState.RUNNING, 2, 2)
    assert (put.attempts[-1].backend, put.attempts[-1].reason, put.attempts[-1].eta_s) == ("w2", "because", 12.3)


def test_a_long_history_keeps_its_newest_attempts() -> None:
    job = tried()
    for n in range(30):
        put = job_attempts.with_new_attempt(job, Choice(f"w{n}", "managed", "because"), 0.0)
        assert put is not None
        job = put
    assert [attempt.backend for attempt in job.attempts] == [f"w{n}" for n in range(10, 30)]


def test_only_a_running_job_is_requeued() -> None:
    assert job_attempts.requeued(tried().with_(state=JobState.SEALED)) is None
    job = job_attempts.requeued(tried())
    assert job is not None
    assert job.state is JobState.QUEUED


def test_a_record_at_another_generation_is_another_attempts() -> None:
    job = tried()
    assert job_attempts.is_same_attempt(job, job)
    assert not job_attempts.is_same_attempt(job.with_(generation=9), job)
    assert not job_attempts.is_same_attempt(job.with_(state=JobState.QUEUED), job)


def test_closing_the_last_of_no_attempts_changes_nothing() -> None:
    assert job_attempts.with_last_ended((), 1.0, "done", "") == ()
