"""Eviction takes finished jobs, fetched ones first, the oldest first, and never one that is still running."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.jobs import eviction
from router.spool import records
from router.store.state import DONE, JobState
from tests.router.jobs.test_lifecycle import OPEN, job_in
from tests.services import services_in


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(states=st.lists(st.sampled_from(OPEN), max_size=8), needed=st.integers(0, 24_000))
async def test_eviction_takes_fetched_masters_first_then_the_oldest_and_never_one_that_is_still_owed(
    tmp_path: Path, states: list[JobState], needed: int
) -> None:
    quota = 20 * records.sealed_size(1000)
    async with services_in(tmp_path, spool_quota_bytes=quota) as services:
        jobs = [await job_in(services, state, created_s=float(age)) for age, state in enumerate(states)]
        evicted = await eviction.evict(services, needed)
        after = [(await services.jobs.get(job.id)).job for job in jobs]
        finished = [n for n, state in enumerate(states) if state in DONE]
        finished.sort(key=lambda n: (states[n] is not JobState.DELIVERED, n))
        gone = [n for n in finished if after[n].state is JobState.WIPED]
        assert all("made room" in (after[n].error or {})["detail"] for n in gone), "the owner reads why"
        assert gone == finished[: len(gone)]
        assert evicted == len(gone)
        fits = services.spool.usage().reserved_bytes + records.sealed_size(needed) <= quota
        assert fits or gone == [], "nobody loses a master for a request that is refused all the same"
        for n, job in enumerate(jobs):
            if n not in gone:
                for blob in filter(None, [job.input, *job.outputs.values()]):
                    assert (await services.spool.extent(blob.ref)).complete


async def test_a_younger_fetched_master_goes_before_an_older_one_that_nobody_has(tmp_path: Path) -> None:
    quota = 20 * records.sealed_size(1000)
    async with services_in(tmp_path, spool_quota_bytes=quota) as services:
        owed = await job_in(services, JobState.MASTERED, created_s=1.0)
        fetched = await job_in(services, JobState.DELIVERED, created_s=2.0)
        free = quota - services.spool.usage().reserved_bytes
        await services.spool.reserve(free - 100, 1e9)
        assert await eviction.evict(services, 500) == 1
        assert (await services.jobs.get(owed.id)).job.state is JobState.MASTERED
        gone = (await services.jobs.get(fetched.id)).job
        assert gone.state is JobState.WIPED
        assert "made room" in (gone.error or {})["detail"]
