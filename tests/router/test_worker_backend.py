"""The router's adapter against a real worker that wants its requests signed."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from pydantic import SecretStr

from mastering.contract import Facts, OutputFormat, Settings
from mastering.signing import Signer
from router.app import connect
from router.complaint import Complaint
from router.settings import Settings as RouterSettings
from router.tiers.catalogue import Entry
from router.tiers.faults import FaultClass, TierFault
from router.tiers.port import Accepted, Finished, OutputBegins, Work
from router.tiers.worker import WorkerBackend
from tests.mastering.worker_process import WorkerProcess, running_worker, until

SECRET = b"a secret that is long enough to be one"
AUDIO = os.urandom(700_000)


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    keys = json.dumps({"router": SECRET.decode()})
    with running_worker(signer=Signer("router", SECRET), keys=keys) as worker:
        yield worker


async def audio() -> AsyncIterator[bytes]:
    for at in range(0, len(AUDIO), 65_536):
        yield AUDIO[at : at + 65_536]


def work() -> Work:
    facts = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=1, duration_s=1.0, lossy=False)
    settings = Settings(outputs=(OutputFormat.FLAC,))
    return Work(settings=settings, facts=facts, size_bytes=len(AUDIO), deadline_s=60.0, open_audio=audio)


async def test_a_signed_render_goes_out_and_comes_back_sealed(worker: WorkerProcess) -> None:
    backend = WorkerBackend("w", str(worker.client.base_url), signer=Signer("router", SECRET))
    try:
        assert (await backend.probe()).up
        until(lambda: worker.health()["state"] == "ready")
        events = [event async for event in backend.run(work())]
    finally:
        await backend.close()
    assert isinstance(events[0], Accepted)
    assert isinstance(events[-1], Finished)
    assert OutputBegins(OutputFormat.FLAC, len(AUDIO)) in events
    assert b"".join(event for event in events if isinstance(event, bytes)) == AUDIO


@pytest.mark.parametrize("signer", [None, Signer("router", SECRET[::-1])], ids=["no key", "another key"])
async def test_a_router_without_the_workers_key_is_told_so_and_sends_no_audio(
    worker: WorkerProcess, signer: Signer | None
) -> None:
    backend = WorkerBackend("w", str(worker.client.base_url), signer=signer)
    try:
        assert not (await backend.probe()).up
        with pytest.raises(TierFault) as caught:
            _ = [event async for event in backend.run(work())]
    finally:
        await backend.close()
    assert caught.value.fault_class is FaultClass.CONFIGURATION


@pytest.mark.parametrize("url", ["http://worker.example:8101", "http://10.1.2.3:8101"])
def test_no_audio_leaves_this_machine_in_the_clear(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        WorkerBackend("w", url)


def test_a_short_key_is_a_complaint_and_not_a_traceback() -> None:
    entry = Entry(name="gpu-1", tier="managed", url="https://worker.example")
    with pytest.raises(Complaint, match="32 bytes"):
        connect(RouterSettings(worker_secret=SecretStr("short")), entry)


async def test_the_settings_key_is_the_one_that_signs(worker: WorkerProcess) -> None:
    entry = Entry(name="gpu-1", tier="managed", url=str(worker.client.base_url))
    backend = connect(RouterSettings(worker_secret=SecretStr(SECRET.decode())), entry)
    try:
        assert (await backend.probe()).up
    finally:
        await backend.close()
