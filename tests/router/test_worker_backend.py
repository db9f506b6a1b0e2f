"""The router's adapter against a real worker that wants its requests signed."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest
from pydantic import SecretStr

from mastering.contract import Facts, FaultCode, OutputFormat, Settings
from mastering.exchange import (
    SEAL_HEADER,
    EndEvent,
    FaultEvent,
    PartEvent,
    ReportEvent,
    Seal,
    data_header,
    encode_event,
    problem_seal,
)
from mastering.signing import Guard, Signer
from router.app import connect
from router.complaint import Complaint
from router.settings import Settings as RouterSettings
from router.tiers.catalogue import Entry
from router.tiers.faults import FaultClass, TierFault
from router.tiers.port import Accepted, Finished, OutputBegins, Work
from router.tiers.worker import WorkerBackend
from tests.houses import report
from tests.mastering.worker_process import FAKE, WorkerProcess, running_worker, until

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


async def test_a_whole_exchange_leaves_its_connection_for_the_next(worker: WorkerProcess) -> None:
    backend = WorkerBackend("w", str(worker.client.base_url), signer=Signer("router", SECRET))
    try:
        for _ in range(3):
            until(lambda: worker.health()["state"] == "ready")
            assert isinstance([event async for event in backend.run(work())][-1], Finished)
            kept = backend._http._transport._pool.connections  # type: ignore[attr-defined]
            assert [connection.is_idle() for connection in kept] == [True]
    finally:
        await backend.close()


async def test_what_follows_the_end_of_a_master_spoils_it() -> None:
    seal = Seal()
    told = seal.pass_on(encode_event(ReportEvent(report=report()))) + 2 * encode_event(seal.close(EndEvent()))
    fault = await fault_of(between(None, lambda _: httpx.Response(200, stream=httpx.ByteStream(told))), work())
    assert fault.fault_class is FaultClass.BUG


async def fault_of(backend: WorkerBackend, asked: Work) -> TierFault:
    try:
        with pytest.raises(TierFault) as caught:
            _ = [event async for event in backend.run(asked)]
    finally:
        await backend.close()
    return caught.value


async def test_what_a_worker_with_the_key_says_of_a_song_is_believed() -> None:
    keys, signer = json.dumps({"router": SECRET.decode()}), Signer("router", SECRET)
    with running_worker(f"{FAKE}:refuse", signer=signer, keys=keys) as worker:
        fault = await fault_of(WorkerBackend("w", str(worker.client.base_url), signer=signer), work())
    assert (fault.fault_class, fault.code) == (FaultClass.USER, FaultCode.SILENT)


def between(signer: Signer | None, answer: Callable[[httpx.Request], httpx.Response]) -> WorkerBackend:
    """A backend that meets somebody who gives slots, and `answer` to every render."""

    def said(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json={"slot": "s"}) if request.url.path == "/v1/slots" else answer(request)

    backend = WorkerBackend("w", "http://127.0.0.1:1", signer=signer)
    backend._http = httpx.AsyncClient(base_url="http://127.0.0.1:1", transport=httpx.MockTransport(said))
    return backend


async def test_a_sealed_refusal_is_believed() -> None:
    def sealed(request: httpx.Request) -> httpx.Response:
        key = Guard({"router": SECRET}).admit(request.method, str(request.url), request.headers, 0.0).response
        assert key is not None
        body = json.dumps({"title": "too_large", "code": "too_large"}).encode()
        return httpx.Response(413, content=body, headers={SEAL_HEADER: problem_seal(key, 413, body)})

    fault = await fault_of(between(Signer("router", SECRET), sealed), work())
    assert (fault.fault_class, fault.code) == (FaultClass.USER, FaultCode.TOO_LARGE)


DAMAGED = encode_event(Seal().close(FaultEvent(code=FaultCode.UNDECODABLE, message="Damaged.")))
FORGED = {
    "a frame": (FaultClass.BAD_OUTPUT, lambda _: httpx.Response(200, stream=httpx.ByteStream(DAMAGED))),
    **{
        f"status {status}": (
            FaultClass.BUG,
            lambda _, status=status: httpx.Response(
                status, json={"title": "undecodable", "code": "undecodable"}, headers={SEAL_HEADER: b"\xe9"}
            ),
        )
        for status in (400, 413, 422)
    },
}


@pytest.mark.parametrize(("with_a_key", "forged"), FORGED.values(), ids=FORGED)
async def test_who_has_no_key_cannot_say_that_the_song_is_to_blame(
    forged: Callable[[httpx.Request], httpx.Response], with_a_key: FaultClass
) -> None:
    assert (await fault_of(between(None, forged), work())).fault_class is FaultClass.USER
    assert (await fault_of(between(Signer("router", SECRET), forged), work())).fault_class is with_a_key


async def test_a_master_that_changed_on_its_way_is_a_bad_one() -> None:
    seal, (begins, master) = Seal(), (PartEvent(name="output/flac", size=3), data_header(3) + b"abc")
    sent = b"".join(map(seal.pass_on, (encode_event(ReportEvent(report=report())), encode_event(begins), master)))
    told = (sent + encode_event(seal.close(EndEvent()))).replace(b"abc", b"abd")
    fault = await fault_of(between(None, lambda _: httpx.Response(200, stream=httpx.ByteStream(told))), work())
    assert fault.fault_class is FaultClass.BAD_OUTPUT


@pytest.mark.parametrize("signer", [None, Signer("router", SECRET[::-1])], ids=["no key", "another key"])
async def test_a_router_without_the_workers_key_is_told_so_and_sends_no_audio(
    worker: WorkerProcess, signer: Signer | None
) -> None:
    backend = WorkerBackend("w", str(worker.client.base_url), signer=signer)
    assert not (await backend.probe()).up
    assert (await fault_of(backend, work())).fault_class is FaultClass.CONFIGURATION


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
