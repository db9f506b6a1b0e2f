"""How much of a Space's memory a job may take."""

from __future__ import annotations

from mastering_space.jobs import AUDIO, SpaceJob, SpaceJobs
from mastering_space.settings import MIB, SpaceSettings


def job_of(jobs: SpaceJobs, name: str, size_bytes: int) -> SpaceJob:
    memory = jobs.receive(name, AUDIO, size_bytes)
    memory.write(bytes(size_bytes))
    jobs.received(name, AUDIO, memory, is_whole=True)
    return jobs.begin(name)


async def test_songs_that_do_not_say_their_length_fit_beside_each_other() -> None:
    jobs = SpaceJobs(SpaceSettings(memory_bytes=64 * MIB))
    for number in range(8):
        job = job_of(jobs, f"{number:032x}", 10_000)
        allowed_bytes = jobs.unforeseen_bytes(job, 1)
        assert allowed_bytes == 4_000_000
        jobs.reserve(job, allowed_bytes)
    jobs.forget_all()


async def test_a_large_song_that_does_not_say_its_length_leaves_half_of_the_memory() -> None:
    jobs = SpaceJobs(SpaceSettings(memory_bytes=64 * MIB))
    job = job_of(jobs, "0" * 32, 4 * MIB)
    assert jobs.unforeseen_bytes(job, 3) == 30 * MIB
    jobs.forget_all()
