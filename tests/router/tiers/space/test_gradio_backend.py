"""Any Gradio app that takes a file and gives one: a real one, with Gradio's own upload and download."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mastering.contract import Facts, OutputFormat, Settings
from router.tiers.in_memory import audio_source_of
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, Finished, OutputStarted, Work
from router.tiers.space.address import SpaceAddress
from router.tiers.space.gradio_backend import GradioBackend
from tests.rough_space import RoughSpace, rough_space
from tests.services import ram_folder

AUDIO = os.urandom(300_000)


@pytest.fixture(scope="module")
def app() -> Iterator[RoughSpace]:
    with rough_space("plain") as app:
        yield app


@asynccontextmanager
async def backend_of(url: str, endpoint: str = "/process") -> AsyncIterator[GradioBackend]:
    with ram_folder() as ram:
        backend = GradioBackend(
            "p", "cpu_space", SpaceAddress(url), Path(ram), endpoint=endpoint, returns=OutputFormat.WAV24
        )
        try:
            yield backend
        finally:
            await backend.close()
        assert not list((Path(ram) / "p" / "calls").glob("*"))


def work(**changes: Any) -> Work:
    facts = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=1, duration_s=10.0, lossy=False)
    return Work(Settings(), facts, audio_source_of(AUDIO), 60.0)._replace(**changes)


async def test_a_song_goes_through_and_comes_back_without_a_report(app: RoughSpace) -> None:
    async with backend_of(app.url) as backend:
        assert (await backend.probe()).up
        events = [event async for event in backend.run(work())]
    assert events[0] == Accepted("a Gradio app")
    assert events[1] == OutputStarted(OutputFormat.WAV24, len(AUDIO))
    assert b"".join(event for event in events if isinstance(event, bytes)) == AUDIO
    assert events[-1] == Finished(None)


@pytest.mark.parametrize(
    "changes",
    [
        {"options": Settings(outputs=(OutputFormat.FLAC,))},
        {"options": Settings(outputs=(OutputFormat.WAV24, OutputFormat.FLAC))},
        {"references": (audio_source_of(AUDIO),)},
    ],
)
async def test_what_it_cannot_do_is_left_to_another_tier(changes: dict[str, Any], app: RoughSpace) -> None:
    async with backend_of(app.url) as backend:
        with pytest.raises(TierFault) as caught:
            _ = [event async for event in backend.run(work(**changes))]
    assert caught.value.fault_class is FaultClass.TOO_BIG


async def test_an_app_without_the_endpoint_is_a_mistake_in_the_catalogue(app: RoughSpace) -> None:
    async with backend_of(app.url, "/other") as backend:
        assert (await backend.probe()).detail == "the Gradio app has no endpoint of that name"


async def test_an_app_that_is_not_there_is_unreachable() -> None:
    with rough_space("plain") as app:
        async with backend_of(app.url) as backend:
            app.send(signal.SIGKILL)
            app.process.wait()
            assert not (await backend.probe()).up
            with pytest.raises(TierFault) as caught:
                _ = [event async for event in backend.run(work())]
    assert caught.value.fault_class is FaultClass.UNREACHABLE
