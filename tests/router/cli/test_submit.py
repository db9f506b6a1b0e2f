"""`router submit` against a router with a scripted backend: a song to it and its master back, or one line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from router.cli.submit import SubmitOptions, submit
from router.core.command_error import CommandError
from router.store.state import JobState
from router.tiers.fake import FakeBackend, Freeze
from router.tiers.port import Accepted
from tests.served import Served, served
from tests.services import FACTS, MASTER, SONG, eventually, mastering, probe_of, until

WANTED = SubmitOptions(target="streaming", style="neutral", amount_percent=60.0, outputs=("wav24",))


async def send(
    router: Served, song: Path, output: Path | None = None, *, as_json: bool = False, keep: bool = False
) -> None:
    url = f"http://127.0.0.1:{router.port}"
    await asyncio.to_thread(submit, url, song, output, WANTED, as_json=as_json, keep=keep)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(SONG)
    return path


async def test_the_master_lies_beside_the_song_and_nothing_stays_on_the_router(
    tmp_path: Path, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        await send(router, song)
        assert (tmp_path / "song (master).wav").read_bytes() == MASTER
        assert router.services.spool.usage().blobs == 0
        said = capsys.readouterr()
        assert "-14.0 LUFS" in said.err


async def test_the_finished_job_can_be_had_as_json_and_left_on_the_router(
    tmp_path: Path, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        capsys.readouterr()
        await send(router, song, tmp_path / "out.wav", as_json=True, keep=True)
        said = capsys.readouterr().out
        job = json.loads(said[said.index("{\n") :])
        assert (job["state"], job["report"]["after"]["integrated_lufs"]) == ("mastered", -14.0)
        assert router.services.spool.usage().blobs == 1


async def test_a_song_that_is_refused_is_a_complaint_and_leaves_no_file(tmp_path: Path, song: Path) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        probe_of(router.services).facts = FACTS.model_copy(update={"duration_s": 1e6})
        with pytest.raises(CommandError, match="Split it") as command_error:
            await send(router, song)
        assert command_error.value.exit_code == 3
        assert not (tmp_path / "song (master).wav").exists()


async def test_a_job_that_the_router_forgot_ends_the_wait(tmp_path: Path, song: Path) -> None:
    async with served(tmp_path, [FakeBackend("a", [[Accepted("scripted"), Freeze()]])]) as router:
        sending = asyncio.create_task(send(router, song))
        found: list[str] = []

        async def made() -> bool:
            found.extend([job.id async for job, _ in router.services.jobs.scan()])
            return bool(found)

        await eventually(made)
        await until(router.services, found[0], JobState.RUNNING)
        await router.services.jobs.forget(found[0])
        await router.services.events.tell(found[0])
        with pytest.raises(CommandError, match="no such job"):
            async with asyncio.timeout(20):
                await sending


async def test_a_master_that_can_not_be_written_is_a_complaint(tmp_path: Path, song: Path) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        with pytest.raises(CommandError, match="can't be written") as command_error:
            await send(router, song, tmp_path / "no such folder" / "out.wav")
        assert command_error.value.exit_code == 2
        assert router.services.spool.usage().blobs == 0
