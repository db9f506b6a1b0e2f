"""The Hub's stage of a Space decides whether the Space itself is asked; the fake Hub is a real HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mastering.contract import Facts, OutputFormat, Settings
from router.core import clock
from router.tiers.fleet.fleet import Fleet
from router.tiers.in_memory import audio_source_of
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Finished, Work
from router.tiers.space import stage as stage_module
from router.tiers.space.address import SpaceAddress
from router.tiers.space.backend import SpaceBackend
from router.tiers.space.faults import STAGES
from router.tiers.space.hub import Hub, HubError
from router.tiers.space.stage import StageWatch
from tests.fake_hub import TOKEN, FakeHub, FakeSpace, fake_hub
from tests.rough_space import RoughSpace, rough_space
from tests.services import eventually, ram_folder

NAME = "owner/name"


@pytest.fixture(scope="module")
def server() -> Iterator[RoughSpace]:
    with rough_space() as space:
        yield space


@pytest.fixture
def hub(server: RoughSpace) -> Iterator[FakeHub]:
    server.behave(forget=True)
    with fake_hub() as hub:
        hub.spaces[NAME] = FakeSpace(host=server.url)
        yield hub


def hub_of(fake: FakeHub, token: str | None = TOKEN) -> Hub:
    made = Hub(token)
    made.api.endpoint = fake.url
    return made


class _Named:
    """A backend of the Space called by its name."""

    def __init__(self, fake: FakeHub, token: str | None = TOKEN) -> None:
        self.folder = ram_folder()
        self.watch = StageWatch(hub_of(fake, token), NAME)
        where = SpaceAddress(stage=self.watch, token=token)
        self.backend = SpaceBackend("zero", "gpu_space", where, Path(self.folder.name))

    async def __aenter__(self) -> SpaceBackend:
        return self.backend

    async def __aexit__(self, *_: object) -> None:
        await self.backend.close()
        self.folder.cleanup()


def work() -> Work:
    facts = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=1, duration_s=10.0, lossy=False)
    return Work(Settings(), facts, audio_source_of(b"a song"), 60.0)


def calls_of(server: RoughSpace) -> int:
    return len(server.saw()["seen"])


@pytest.mark.parametrize("stage", [stage for stage, known in STAGES.items() if known.fault is not None])
async def test_a_space_that_does_not_run_is_neither_asked_nor_sent_a_byte(
    stage: str, hub: FakeHub, server: RoughSpace
) -> None:
    hub.spaces[NAME].stage = stage
    named = _Named(hub)
    async with named as backend:
        health = await backend.probe()
        for _ in range(100):
            if named.watch.name:
                break
            health = await backend.probe()  # the Hub's answer may take longer than a probe waits for it
        with pytest.raises(TierFault) as caught:
            _ = [event async for event in backend.run(work())]
    assert (health.up, health.reported_state) == (False, STAGES[stage].health.reported_state)
    assert caught.value.fault_class is STAGES[stage].fault
    assert calls_of(server) == 0


async def test_a_running_space_that_nobody_uses_is_let_fall_asleep(hub: FakeHub, server: RoughSpace) -> None:
    async with _Named(hub) as backend:
        for _ in range(3):
            assert (await backend.probe()).up
        assert calls_of(server) == 0
        events = [event async for event in backend.run(work())]
        assert isinstance(events[-1], Finished)
        assert (await backend.probe()).device == "rough"


async def test_the_hub_is_asked_seldom(hub: FakeHub) -> None:
    async with _Named(hub) as backend:
        for _ in range(20):
            await backend.probe()
    assert [asked.path for asked in hub.requests].count(f"/api/spaces/{NAME}/runtime") == 1


async def test_a_sleeping_space_wakes_by_a_request_and_a_stopped_one_is_told(hub: FakeHub, server: RoughSpace) -> None:
    for stage in ("SLEEPING", "STOPPED", "PAUSED", "RUNTIME_ERROR"):
        hub.spaces[NAME].stage = stage
        hub.requests.clear()
        server.behave()
        async with _Named(hub) as backend:
            await backend.probe()
            await backend.wake()
            await backend.wake()
            if stage in ("SLEEPING", "STOPPED"):
                await eventually(lambda: asyncio.to_thread(lambda: calls_of(server) == 1))
        restarted = f"/api/spaces/{NAME}/restart" in [asked.path for asked in hub.requests]
        assert (calls_of(server), restarted) == (int(stage in ("SLEEPING", "STOPPED")), stage == "STOPPED")


async def test_a_fleet_sees_a_space_fall_asleep_start_and_come_back(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "RUNNING_EVERY_S", 0.0)
    monkeypatch.setattr(stage_module, "OTHERWISE_EVERY_S", 0.0)
    async with _Named(hub) as backend:
        fleet = Fleet([backend])
        seen = []
        for stage in ("SLEEPING", "APP_STARTING", "RUNNING", "PAUSED"):
            hub.spaces[NAME].stage = stage
            await fleet.probe_all()
            seen.append(fleet.members()[0].state(clock.now()))
    assert seen == [BackendState.SLEEPING, BackendState.WARMING, BackendState.HEALTHY, BackendState.PAUSED]


async def test_a_space_that_falls_asleep_in_the_middle_is_asleep_and_not_crashed(
    hub: FakeHub, server: RoughSpace
) -> None:
    async with _Named(hub) as backend:
        assert (await backend.probe()).up
        hub.spaces[NAME].stage = "SLEEPING"
        server.behave(answers={"/v1/": [200, {"content-type": "text/html"}, "<html>asleep</html>"]})
        with pytest.raises(TierFault) as caught:
            _ = [event async for event in backend.run(work())]
    assert caught.value.fault_class is FaultClass.ASLEEP


async def test_the_quota_of_zero_gpu_is_read_and_kept_in_the_ledger(hub: FakeHub) -> None:
    hub.spaces[NAME].hardware = "zero-a10g"
    async with _Named(hub) as backend:
        fleet = Fleet([backend])
        await fleet.probe_all()
        assert fleet.candidates()[0].quota_left_s == 1200.5


async def test_a_space_without_zero_gpu_has_no_quota_to_ask_for(hub: FakeHub) -> None:
    async with _Named(hub) as backend:
        assert (await backend.probe()).quota_left_s is None
    assert not any("quota" in asked.path for asked in hub.requests)


@pytest.mark.parametrize(
    ("token", "says"), [("hf_wrong", "the Hub does not accept the token"), (None, "or the token may not see it")]
)
async def test_a_token_that_opens_nothing_is_said_and_is_no_crash(token: str | None, says: str, hub: FakeHub) -> None:
    async with _Named(hub, token) as backend:
        health = await backend.probe()
        with pytest.raises(TierFault) as caught:
            _ = [event async for event in backend.run(work())]
    assert says in health.detail
    assert caught.value.fault_class is FaultClass.CONFIGURATION


async def test_a_hub_that_is_down_takes_no_running_space_down_with_it(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "RUNNING_EVERY_S", 0.0)
    async with _Named(hub) as backend:
        assert (await backend.probe()).up
        hub.failing = 500
        assert (await backend.probe()).up


def test_a_passing_fault_of_the_hub_is_tried_again_and_a_refusal_is_not(hub: FakeHub) -> None:
    made = hub_of(hub)
    hub.failing_next = [503, 500]
    assert made.runtime(NAME).stage == "RUNNING"
    assert len(hub.requests) == 3
    hub.requests.clear()
    hub.failing_next = [403]
    with pytest.raises(HubError, match="may not do this"):
        made.runtime(NAME)
    assert len(hub.requests) == 1


def test_what_would_happen_twice_is_not_tried_again(hub: FakeHub) -> None:
    made = hub_of(hub)
    hub.failing_next = [503]
    with pytest.raises(HubError, match="status 503"):
        made.restart(NAME)
    assert len(hub.requests) == 1


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Hub(None)
    made.api.endpoint = "http://127.0.0.1:9"
    with pytest.raises(HubError, match="the Hub can't be reached"):
        made.runtime(NAME)


async def test_the_formats_and_the_song_of_a_named_space_are_its_own(hub: FakeHub) -> None:
    async with _Named(hub) as backend:
        asked = work()._replace(options=Settings(outputs=(OutputFormat.FLAC,)))
        events = [event async for event in backend.run(asked)]
    assert b"".join(event for event in events if isinstance(event, bytes)) == b"a song"


@pytest.mark.parametrize(
    "host",
    [
        "https://elsewhere.example",
        "http://owner-name.hf.space",
        "https://hf.space.example",
        "https://a@b.hf.space",
        "file:///127.0.0.1",
        "https://[",
    ],
)
async def test_a_host_that_is_not_the_hubs_own_is_never_asked(hub: FakeHub, host: str) -> None:
    hub.spaces[NAME].host = host
    watch = StageWatch(hub_of(hub), NAME)
    stage = await watch.current()
    await watch.close()
    assert (stage.fault, stage.health.up, watch.host) == (FaultClass.CONFIGURATION, False, None)


async def test_a_host_below_hf_space_is_the_hubs_own(hub: FakeHub) -> None:
    hub.spaces[NAME].host = "https://owner-name.hf.space"
    watch = StageWatch(hub_of(hub), NAME)
    assert (await watch.current()).health.up
    await watch.close()
    assert watch.host == "https://owner-name.hf.space"
