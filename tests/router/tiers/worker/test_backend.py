"""The router's adapter: against a real worker that wants its requests signed, and against a socket that is none."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, nullcontext
from pathlib import Path

import pytest
from pydantic import SecretStr

from mastering.contract import Facts, FaultCode, OutputFormat, Settings, Stage
from mastering.protocol.frames import (
    SEAL_HEADER,
    AcceptedEvent,
    EndEvent,
    FaultEvent,
    HeartbeatEvent,
    PartEvent,
    ProgressEvent,
    ReportEvent,
    Seal,
    data_header,
    encode_event,
    problem_seal,
)
from mastering.protocol.signing import SignatureVerifier, Signer, client_tls
from router.core.command_error import CommandError
from router.core.settings import RouterSettings as RouterSettings
from router.tiers.connect import connect
from router.tiers.fleet.catalogue import CatalogueEntry
from router.tiers.in_memory import audio_source_of
from router.tiers.policy.faults import FaultClass, TierFault
from router.tiers.port import Accepted, Finished, OutputStarted, TierEvent, Work
from router.tiers.worker import backend as worker_module
from router.tiers.worker.backend import WorkerBackend
from router.tiers.worker.connection import WorkerConnection
from tests.certificates import self_signed
from tests.mastering.worker_process import FAKE, WorkerProcess, running_worker, until
from tests.rough_worker import GIVEN, RenderCall, Said, Taken, answer, in_chunks, rough_worker, sealed
from tests.services import report

SECRET = b"a secret that is long enough to be one"
KEYS = json.dumps({"router": SECRET.decode()})
AUDIO = os.urandom(700_000)
ACCEPTED = AcceptedEvent(engine_version="0", device="a lathe")


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with running_worker(signer=Signer("router", SECRET), keys=KEYS) as worker:
        yield worker


def work(data: bytes = AUDIO) -> Work:
    facts = Facts(container="wav", codec="pcm_16", rate_hz=44_100, channels=2, frames=1, duration_s=1.0, lossy=False)
    settings = Settings(outputs=(OutputFormat.FLAC,))
    return Work(options=settings, facts=facts, audio=audio_source_of(data), deadline_s=60.0)


class Kept:
    """A store's memory, smaller than what comes, and all that was put there."""

    def __init__(self) -> None:
        self._room = memoryview(bytearray(100_000))
        self._filled = 0
        self.data = b""

    @property
    def free_view(self) -> memoryview:
        return self._room[self._filled :]

    def commit(self, count: int) -> None:
        self.data += self._room[self._filled : self._filled + count]
        self._filled += count

    def flush(self) -> None:
        assert not self.free_view
        self._filled = 0


async def run(backend: WorkerBackend, asked: Work | None = None) -> tuple[list[TierEvent], bytes]:
    """All events of one render, and the master that came between them."""
    events, kept = [], Kept()
    async with aclosing(backend.run(asked or work())) as said:
        async for event in said:
            events.append(event)
            if isinstance(event, OutputStarted):
                assert event.body is not None
                while await event.body.fill(kept):
                    pass
                assert len(kept.data) == event.size_bytes
    return events, kept.data


async def fault_of(backend: WorkerBackend, asked: Work | None = None) -> TierFault:
    try:
        with pytest.raises(TierFault) as caught:
            await run(backend, asked)
    finally:
        await backend.close()
    return caught.value


@asynccontextmanager
async def meeting(
    said: Said | None = None, *, takes: Taken | None = None, signer: Signer | None = None
) -> AsyncIterator[WorkerBackend]:
    """A backend that meets a rough worker."""
    async with rough_worker(said, takes=takes) as rough:
        backend = WorkerBackend("w", rough.url, signer=signer)
        yield backend
        await backend.close()


def whole(*between: bytes, seal: Seal | None = None, master: bytes = b"abc") -> bytes:
    """An answer with this master, and frames between what is said of it and its bytes."""
    seal = seal or Seal()
    told = sealed(seal, ACCEPTED, ReportEvent(report=report()), PartEvent(name="output/flac", size=len(master)))
    told += b"".join(map(seal.pass_on, between)) + sealed(seal, master)
    return told + encode_event(seal.close(EndEvent()))


async def test_a_signed_render_goes_out_and_comes_back_sealed(worker: WorkerProcess) -> None:
    backend = WorkerBackend("w", str(worker.client.base_url), signer=Signer("router", SECRET))
    try:
        assert (await backend.probe()).up
        until(lambda: worker.health()["state"] == "ready")
        events, master = await run(backend)
    finally:
        await backend.close()
    assert isinstance(events[0], Accepted)
    assert isinstance(events[-1], Finished)
    assert [event[:2] for event in events if isinstance(event, OutputStarted)] == [(OutputFormat.FLAC, len(AUDIO))]
    assert master == AUDIO


async def test_a_render_travels_inside_tls(tmp_path: Path) -> None:
    chain, key = self_signed(tmp_path)
    signer, tls = Signer("router", SECRET), client_tls(str(chain))
    with running_worker(signer=signer, tls=tls, keys=KEYS, tls_certificate=chain, tls_key=key) as worker:
        url = str(worker.client.base_url)
        backend = WorkerBackend("w", url, signer=signer, tls=tls)
        try:
            for _ in range(2):
                until(lambda: worker.health()["state"] == "ready")
                assert (await run(backend))[1] == AUDIO
        finally:
            await backend.close()
        fault = await fault_of(WorkerBackend("w", url, signer=signer))
    assert fault.fault_class is FaultClass.UNREACHABLE


async def test_a_render_given_up_inside_tls_frees_the_worker(tmp_path: Path) -> None:
    chain, key = self_signed(tmp_path)
    signer, tls = Signer("router", SECRET), client_tls(str(chain))
    settings = {"signer": signer, "tls": tls, "keys": KEYS, "tls_certificate": chain, "tls_key": key}
    with running_worker(f"{FAKE}:wait_at_gate", **settings) as worker:  # type: ignore[arg-type]
        backend = WorkerBackend("w", str(worker.client.base_url), signer=signer, tls=tls)
        rendering = asyncio.create_task(run(backend))
        await asyncio.to_thread(until, lambda: worker.health()["slots"]["running"] == 1)
        rendering.cancel()
        await asyncio.wait([rendering], timeout=5)
        assert rendering.cancelled()
        await asyncio.to_thread(until, lambda: worker.free_slots() == 1, tries=100)
        await backend.close()


async def test_a_whole_exchange_leaves_its_connection_for_the_next() -> None:
    async with rough_worker(lambda _: in_chunks(whole())) as rough:
        backend = WorkerBackend("w", rough.url)
        for _ in range(3):
            assert isinstance((await run(backend))[0][-1], Finished)
        assert rough.connections == 1
        await backend.close()


async def test_renders_at_once_have_a_connection_each() -> None:
    async with rough_worker(lambda _: in_chunks(whole())) as rough:
        backend = WorkerBackend("w", rough.url)
        for _ in range(2):
            assert [master for _, master in await asyncio.gather(run(backend), run(backend))] == [b"abc"] * 2
        assert rough.connections == 2
        await backend.close()


async def test_a_connection_that_the_worker_has_closed_is_not_used_again() -> None:
    async with rough_worker(lambda _: answer(200, whole(), connection="close")) as rough:
        backend = WorkerBackend("w", rough.url)
        for _ in range(2):
            assert (await run(backend))[1] == b"abc"
        assert rough.connections == 2
        await backend.close()


async def test_a_kept_connection_that_breaks_when_it_is_used_costs_no_attempt() -> None:
    """The worker hung up in the very moment in which it was taken for the next song."""
    async with rough_worker(lambda _: in_chunks(whole())) as rough:
        backend = WorkerBackend("w", rough.url)
        await run(backend)
        ((connection, _),) = backend._idle
        assert connection._hang_up_socket is not None
        connection._hang_up_socket.shutdown(socket.SHUT_WR)
        assert connection.is_idle
        assert (await run(backend))[1] == b"abc"
        assert rough.connections == 2
        await backend.close()


@pytest.mark.parametrize("last", ["connection: close", "no length"])
async def test_a_slots_answer_that_is_its_connections_last_costs_no_attempt(last: str) -> None:
    """A proxy may count the requests of a connection, or know no other."""
    ended = answer(201, b'{"slot": "s"}', connection="close")
    ended = ended if last == "connection: close" else ended.replace(b"content-length: 13\r\n", b"")
    async with rough_worker(lambda _: in_chunks(whole()), slots=lambda _: ended) as rough:
        backend = WorkerBackend("w", rough.url)
        assert (await run(backend))[1] == b"abc"
        assert rough.connections == 2
        await backend.close()


async def test_what_was_said_on_an_idle_connection_is_no_answer() -> None:
    async with rough_worker(lambda _: in_chunks(whole())) as rough:
        backend = WorkerBackend("w", rough.url)
        await run(backend)
        rough.writers[0].write(answer(408, b"", connection="close"))
        rough.writers[0].close()
        await asyncio.sleep(0.1)
        assert (await run(backend))[1] == b"abc"
        assert rough.connections == 2
        await backend.close()


async def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_MAX_IDLE_S", 0.05)
    async with rough_worker(lambda _: in_chunks(whole())) as rough:
        backend = WorkerBackend("w", rough.url)
        for _ in range(2):
            await run(backend)
            await asyncio.sleep(0.1)
        assert rough.connections == 2
        await backend.close()


EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
NO_SLOT = {
    "after an informational response": EARLY + GIVEN,
    "cut off": answer(201, b'{"slot": "s"}', content_length="100", connection="close"),
    "not HTTP": b"Good evening.\r\n\r\nconnection: close",
}


@pytest.mark.parametrize("told", NO_SLOT.values(), ids=NO_SLOT)
async def test_a_slots_answer_that_is_none_costs_no_attempt_and_nobody_after_it(told: bytes) -> None:
    async with rough_worker(lambda _: in_chunks(whole()), slots=lambda number: told if number == 1 else GIVEN) as rough:
        backend = WorkerBackend("w", rough.url)
        with pytest.raises(TierFault) as caught:
            await run(backend)
        assert caught.value.fault_class is FaultClass.UNREACHABLE
        assert (await run(backend))[1] == b"abc"
        await backend.close()


async def test_a_name_that_takes_long_to_be_found_is_unreachable_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(1.5))
    began = time.monotonic()
    assert (await fault_of(WorkerBackend("w", "https://worker.example"))).fault_class is FaultClass.UNREACHABLE
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://[2001:db8::1]", "2001:db8::1", 443),
        ("https://[2001:db8::1]:8101", "2001:db8::1", 8101),
        ("http://127.0.0.1", "127.0.0.1", 80),
        ("https://worker.example:8101/", "worker.example", 8101),
    ],
)
def test_a_connection_goes_to_the_host_and_port_of_its_url(url: str, host: str, port: int) -> None:
    connection = WorkerConnection(url, client_tls())
    assert (connection._http.host, connection._http.port) == (host, port)


async def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        fault = await fault_of(WorkerBackend("w", f"http://127.0.0.1:{bound.getsockname()[1]}"))
    assert fault.fault_class is FaultClass.UNREACHABLE


async def test_what_a_worker_with_the_key_says_of_a_song_is_believed() -> None:
    signer = Signer("router", SECRET)
    with running_worker(f"{FAKE}:refuse", signer=signer, keys=KEYS) as worker:
        fault = await fault_of(WorkerBackend("w", str(worker.client.base_url), signer=signer))
    assert (fault.fault_class, fault.code) == (FaultClass.USER, FaultCode.SILENT)


async def test_a_sealed_refusal_is_believed() -> None:
    body = json.dumps({"title": "too_large", "code": "too_large"}).encode()

    def refuse(asked: RenderCall) -> bytes:
        url = f"http://{asked.headers['host']}/v1/renders"
        key = SignatureVerifier({"router": SECRET}).verify("POST", url, asked.headers, 0.0).response
        assert key is not None
        return answer(413, body, mastering_seal=problem_seal(key, 413, body))

    assert SEAL_HEADER == "mastering-seal"
    async with meeting(refuse, signer=Signer("router", SECRET)) as backend:
        fault = await fault_of(backend)
    assert (fault.fault_class, fault.code) == (FaultClass.USER, FaultCode.TOO_LARGE)


async def test_a_refusal_in_mid_upload_is_heard() -> None:
    """Whoever refuses early need not read the rest, and hangs up on it."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        writer.write(answer(413, json.dumps({"title": "too_large", "code": "too_large"}).encode()))
        await writer.drain()
        writer.write_eof()
        while await reader.read(65_536):
            pass

    async with meeting(takes=refuse) as backend:
        fault = await fault_of(backend, work(bytes(20_000_000)))
    assert (fault.fault_class, fault.code) == (FaultClass.USER, FaultCode.TOO_LARGE)


DAMAGED = in_chunks(encode_event(Seal().close(FaultEvent(code=FaultCode.UNDECODABLE, message="Damaged."))))
_REFUSED = json.dumps({"title": "undecodable", "code": "undecodable"}).encode()
FORGED = {
    "a frame": (FaultClass.BAD_OUTPUT, DAMAGED),
    **{
        f"status {status}": (FaultClass.BUG, answer(status, _REFUSED, mastering_seal="\xe9"))
        for status in (400, 413, 422)
    },
}


@pytest.mark.parametrize(("with_a_key", "forged"), FORGED.values(), ids=FORGED)
async def test_who_has_no_key_cannot_say_that_the_song_is_to_blame(forged: bytes, with_a_key: FaultClass) -> None:
    found = []
    for signer in (None, Signer("router", SECRET)):
        async with meeting(lambda _: forged, signer=signer) as backend:
            found.append((await fault_of(backend)).fault_class)
    assert found == [FaultClass.USER, with_a_key]


LONG = os.urandom(3_000_000)


@pytest.mark.parametrize("chunk", [1, 7, 65_536, 4_000_000])
async def test_a_master_comes_whole_however_it_is_cut(chunk: int) -> None:
    """Frames of a mebibyte, and signs of life between them."""
    master, seal = LONG if chunk > 7 else LONG[:5000], Seal()
    told = sealed(seal, ACCEPTED, ReportEvent(report=report()), PartEvent(name="output/flac", size=len(master)))
    for at in range(0, len(master), 1024 * 1024):
        alive = (HeartbeatEvent(), ProgressEvent(stage=Stage.RENDER, fraction=0.9))
        told += sealed(seal, *alive, master[at : at + 1024 * 1024])
    told += encode_event(seal.close(EndEvent()))
    async with meeting(lambda _: in_chunks(told, size=chunk)) as backend:
        events, kept = await run(backend)
    assert kept == master
    assert [type(event) for event in events] == [Accepted, OutputStarted, Finished]


_BEGINS = (ACCEPTED, ReportEvent(report=report()), PartEvent(name="output/flac", size=3))
_NO_REPORT = [ACCEPTED, PartEvent(name="output/flac", size=3), b"abc"]
BAD = {
    "changed on its way": (FaultClass.BAD_OUTPUT, in_chunks(whole().replace(b"abc", b"abd"))),
    "without its report": (
        FaultClass.BAD_OUTPUT,
        in_chunks(sealed(seal := Seal(), *_NO_REPORT) + encode_event(seal.close(EndEvent()))),
    ),
    "longer than announced": (FaultClass.BAD_OUTPUT, in_chunks(sealed(Seal(), *_BEGINS, b"abcd"))),
    "announced and followed by more": (FaultClass.BAD_OUTPUT, in_chunks(sealed(Seal(), *_BEGINS, b"abc", b"d"))),
    "shorter than announced": (
        FaultClass.BAD_OUTPUT,
        in_chunks(sealed(seal := Seal(), *_BEGINS, b"ab") + encode_event(seal.close(EndEvent()))),
    ),
    "given up half-way": (
        FaultClass.BUG,
        in_chunks(
            sealed(seal := Seal(), *_BEGINS, b"ab")
            + encode_event(seal.close(FaultEvent(code=FaultCode.INTERNAL, message="Broken.")))
        ),
    ),
    "followed by a second end": (FaultClass.BUG, in_chunks(whole() + whole()[-50:])),
    "a second song's settings": (FaultClass.BUG, in_chunks(sealed(Seal(), PartEvent(name="output/mp0", size=3)))),
    "no frame": (FaultClass.BUG, in_chunks(b"\x09\x00\x00\x00\x01x")),
    "a frame without end": (FaultClass.BUG, in_chunks(b"\x02\xff\xff\xff\xff")),
    "an event that is none": (FaultClass.BUG, in_chunks(b"\x01\x00\x00\x00\x02{}")),
    "cut off in a master": (FaultClass.CRASH, in_chunks(sealed(Seal(), *_BEGINS, b"ab"))),
    "cut off in a frame": (FaultClass.CRASH, in_chunks(whole()[:-3])),
    "cut off in a chunk": (FaultClass.CRASH, in_chunks(whole())[:-40]),
    "no HTTP": (FaultClass.CRASH, b"Good evening.\r\n\r\n"),
    "a chunk of less than nothing": (
        FaultClass.CRASH,
        in_chunks(b"").replace(b"0\r\n\r\n", b"-1\r\n") + bytes(200_000),
    ),
    "packed": (FaultClass.BUG, answer(200, whole(), content_encoding="gzip")),
    "a long refusal": (FaultClass.BUG, answer(500, bytes(1_000_000))),
}


@pytest.mark.parametrize(("expected", "told"), BAD.values(), ids=BAD)
async def test_an_answer_that_is_none_of_ours_is_no_master(expected: FaultClass, told: bytes) -> None:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not (await reader.readuntil(b"\r\n")).startswith(b"0"):
            pass
        writer.write(told)
        writer.write_eof()
        await reader.read()

    async with meeting(takes=tell) as backend:
        assert (await fault_of(backend, work(bytes(1000)))).fault_class is expected


async def _silent_in_the_upload(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.readexactly(1000)
    await asyncio.sleep(60)


async def _silent_before_its_answer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1 << 20):  # its end is not looked for: nobody answers
        pass


async def _silent_in_the_master(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    begun = sealed(Seal(), *_BEGINS) + data_header(3) + b"ab"
    writer.write(b"HTTP/1.1 200 Said\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(begun), begun))
    await _silent_before_its_answer(reader, writer)


SILENT = [_silent_in_the_upload, _silent_before_its_answer, _silent_in_the_master]


@pytest.mark.parametrize("silent", SILENT)
async def test_a_worker_that_falls_silent_has_crashed(silent: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerBackend, "silence_s", 0.3)
    async with meeting(takes=silent) as backend:
        fault = await fault_of(backend, work(bytes(20_000_000)))
    assert fault.fault_class is FaultClass.CRASH
    assert "fell silent" in str(fault)


@pytest.mark.parametrize("silent", SILENT[1:])
async def test_a_render_that_is_given_up_hangs_up_at_once(silent: Taken) -> None:
    async with rough_worker(takes=silent) as rough:
        backend = WorkerBackend("w", rough.url)
        rendering = asyncio.create_task(run(backend, work(bytes(100_000))))
        await asyncio.sleep(0.3)
        assert not rendering.done()
        rendering.cancel()
        async with asyncio.timeout(1):
            await rough.closed.wait()
            await asyncio.wait([rendering])
        assert rendering.cancelled()
        await backend.close()


async def test_an_upload_that_is_given_up_hangs_up_at_once() -> None:
    hung_up = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        while await reader.read(1 << 20):
            pass
        hung_up.set()

    async with meeting(takes=wait) as backend:
        rendering = asyncio.create_task(run(backend, work(bytes(50_000_000))))
        await asyncio.sleep(0.2)
        rendering.cancel()
        async with asyncio.timeout(1):
            await asyncio.wait([rendering])
            await hung_up.wait()
        assert rendering.cancelled()


async def test_a_song_that_is_gone_is_not_the_workers_fault() -> None:
    class Going:
        pieces = 0

        def next_piece(self) -> memoryview:
            self.pieces += 1
            if self.pieces == 3:
                raise LookupError
            return memoryview(bytes(100_000))

        def check_available(self) -> None:
            """It is there until it is not."""

    async with rough_worker(lambda _: in_chunks(whole())) as rough:
        backend = WorkerBackend("w", rough.url)
        with pytest.raises(LookupError):
            await run(
                backend,
                work()._replace(audio=audio_source_of(AUDIO)._replace(open_reader=lambda: nullcontext(Going()))),
            )
        async with asyncio.timeout(1):
            await rough.closed.wait()
        await backend.close()


async def test_a_store_that_is_full_is_not_the_workers_fault() -> None:
    class Full(Kept):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "no room")

    async with (
        meeting(lambda _: in_chunks(whole(master=LONG[:1_000_000]))) as backend,
        aclosing(backend.run(work())) as said,
    ):
        async for event in said:
            if isinstance(event, OutputStarted):
                assert event.body is not None
                with pytest.raises(OSError, match="no room"):
                    await event.body.fill(Full())
                break
        else:
            raise AssertionError("no master began")


@pytest.mark.parametrize("signer", [None, Signer("router", SECRET[::-1])], ids=["no key", "another key"])
async def test_a_router_without_the_workers_key_is_told_so_and_sends_no_audio(
    worker: WorkerProcess, signer: Signer | None
) -> None:
    backend = WorkerBackend("w", str(worker.client.base_url), signer=signer)
    assert not (await backend.probe()).up
    assert (await fault_of(backend)).fault_class is FaultClass.CONFIGURATION


@pytest.mark.parametrize("url", ["http://worker.example:8101", "http://10.1.2.3:8101"])
def test_no_audio_leaves_this_machine_in_the_clear(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        WorkerBackend("w", url)


def test_a_short_key_is_a_complaint_and_not_a_traceback() -> None:
    entry = CatalogueEntry(name="gpu-1", tier="managed", url="https://worker.example")
    with pytest.raises(CommandError, match="32 bytes"):
        connect(RouterSettings(worker_secret=SecretStr("short")), entry)


async def test_the_settings_key_is_the_one_that_signs(worker: WorkerProcess) -> None:
    entry = CatalogueEntry(name="gpu-1", tier="managed", url=str(worker.client.base_url))
    backend = connect(RouterSettings(worker_secret=SecretStr(SECRET.decode())), entry)
    try:
        assert (await backend.probe()).up
    finally:
        await backend.close()
