"""Files probed while they arrive: the same result as afterwards, whatever comes late, and no upload kept waiting."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from mastering.contract import Facts, Fault, FaultCode
from mastering.contract.kinds import ExpectedAudio
from mastering.protocol.probe import ProbeRequest
from router.probe import client, stream_tap, wav_header
from router.probe.client import Probe
from router.probe.process import ProbeProcess
from router.probe.stream_tap import StreamTap, TapState
from router.probe.wav_header import WavHeaderReader
from tests.hostile_audio import RATE_HZ, all_hostile, encoded, noise, two_faced, written
from tests.probes import (
    decoding_children,
    feed,
    fork_server_of,
    header_child,
    running_fork_server,
    until,
    waiting_children,
)  # fmt: skip
from tests.processes import children, is_alive

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("warm_probes")]

ASKED = ProbeRequest(op="probe")


HONEST = {
    "wav": written(noise()),
    "wav, 24 bit": written(noise(), subtype="PCM_24"),
    "wav, float": written(noise(), subtype="FLOAT"),
    "wav with a chunk behind its audio": written(noise()) + b"LIST" + (4000).to_bytes(4, "little") + bytes(4000),
    "rf64": written(noise(), kind="RF64", subtype="PCM_24"),
    "aiff": written(noise(), kind="AIFF"),
    "flac": written(noise(), kind="FLAC"),
    "ogg": written(noise(), kind="OGG", subtype="VORBIS"),
    "opus": encoded("ogg", "libopus"),
    "mp3": encoded("mp3", "libmp3lame"),
    "mp3 behind two tags": 2 * (b"ID3\4\0\0" + bytes([0, 2, 0, 0]) + bytes(2 << 14)) + encoded("mp3", "libmp3lame"),
    "m4a": encoded("mp4", "aac"),
    "webm": encoded("webm", "libopus"),
}


async def write_all(tap: StreamTap[Any], body: AsyncIterator[bytes]) -> None:
    async for piece in body:
        await asyncio.to_thread(tap.write, memoryview(piece))


async def probed_by_tap(probe: Probe, data: bytes, chunk: int = 65_536) -> Facts | Fault | None:
    """What a tap that gets all of the file says of it: its facts, its fault, or nothing."""
    tap = probe.tap_song(len(data))
    assert tap is not None
    try:
        await write_all(tap, feed(data, chunk))
        return await tap.result()
    except Fault as fault:
        return fault
    finally:
        tap.close()


@pytest.mark.parametrize("name", HONEST)
async def test_a_file_probed_while_it_arrives_is_what_it_is_when_probed_afterwards(probe: Probe, name: str) -> None:
    afterwards = await probe.probe(feed(HONEST[name]))
    assert [await probed_by_tap(probe, HONEST[name], chunk) for chunk in (999, 65_536, 1 << 20)] == [afterwards] * 3


async def test_a_bad_file_probed_while_it_arrives_is_as_bad_as_when_probed_afterwards(probe: Probe) -> None:
    for name, (data, codes) in all_hostile().items():
        if not data:
            continue  # nothing arrives, so there is no tap
        found = await probed_by_tap(probe, data)
        assert isinstance(found, Fault), name
        assert found.code in codes, name


def whole_numbers() -> bytes:
    return written(noise(16.0))


def fractions() -> bytes:
    return written(noise(16.0), subtype="FLOAT")


def silence_to_its_end() -> bytes:
    """Three hundredths of a second of sound in the end, which decide."""
    samples = noise(16.0)
    samples[:-1323] = 0
    return written(samples)


@pytest.mark.parametrize("song", [fractions, silence_to_its_end])
async def test_a_file_is_decoded_while_it_arrives(probe: Probe, song: Callable[[], bytes]) -> None:
    """Its end never comes, nor any of the sound there, and yet the child has taken more than any socket holds."""
    data = song()
    start = data[:-8000]
    waiting, header_pid = await waiting_children(probe), await header_child(probe)
    tap = probe.tap_song(len(data))
    assert tap is not None
    try:
        await write_all(tap, feed(start))
        assert tap._fed_bytes == len(start) > 2_000_000
        assert await tap.result() is None
        assert decoding_children(probe, header_pid) == waiting
    finally:
        tap.close()
    await until(lambda: len(decoding_children(probe, header_pid)) == 1)


def late_whole_numbers() -> bytes:
    """They begin with a silent second, so that their header does not tell everything."""
    samples = noise(16.0)
    samples[:RATE_HZ] = 0
    return written(samples)


async def test_whole_numbers_are_fed_until_one_is_no_silence(probe: Probe) -> None:
    """Nothing that follows can change what the file is, if it has its announced size."""
    data = late_whole_numbers()
    for missing in (0, 1000):
        tap = probe.tap_song(len(data))
        assert tap is not None
        try:
            await write_all(tap, feed(data[:300_000]))
            await until(lambda tap=tap: tap._state is TapState.ANSWERED)
            fed_so_far = tap._fed_bytes
            await write_all(tap, feed(data[300_000 : len(data) - missing]))
            assert tap._fed_bytes == fed_so_far > RATE_HZ * 4
            found = await tap.result()
        finally:
            tap.close()
        assert found == (None if missing else await probe.probe(feed(data)))


async def test_its_header_is_enough_for_a_wav_that_begins_with_sound(probe: Probe) -> None:
    """No child is needed, if the file has its announced size."""
    data = whole_numbers()
    waiting, header_pid = await waiting_children(probe), await header_child(probe)
    for missing in (0, 1000):
        tap = probe.tap_song(len(data))
        assert tap is not None
        try:
            await write_all(tap, feed(data[: len(data) - missing]))
            found = await tap.result()
            assert tap._probing is None
        finally:
            tap.close()
        assert found == (None if missing else await probe.probe(feed(data), size=len(data)))
        if missing == 0:
            waiting = await waiting_children(probe)
    assert decoding_children(probe, header_pid) == waiting


async def test_a_child_for_headers_that_dies_costs_no_result_and_is_replaced(probe: Probe) -> None:
    data = whole_numbers()
    await running_fork_server(probe)
    expected = await probe.probe(feed(data))
    for _ in range(2):
        dead = await header_child(probe)
        os.kill(dead, signal.SIGKILL)
        await until(lambda dead=dead: not is_alive(dead))
        assert await probed_by_tap(probe, data) == expected
        assert await probed_by_tap(probe, data) == expected  # the next song has one opened, if that one could not yet
        await until(probe._wav_headers._is_open)
        assert await header_child(probe) != dead


async def test_a_child_for_headers_that_says_nothing_is_given_up_and_keeps_nobody_waiting(probe: Probe) -> None:
    data = memoryview(whole_numbers())
    await running_fork_server(probe)
    frozen = await header_child(probe)
    os.kill(frozen, signal.SIGSTOP)
    taps = [tap for _ in range(4) if (tap := probe.tap_song(len(data))) is not None]
    async with asyncio.timeout(1.5):  # were each to wait for its own turn it would be two seconds
        await asyncio.gather(*(asyncio.to_thread(tap._read_header, data) for tap in taps))
    assert not probe._wav_headers._is_open()
    await until(lambda: not is_alive(frozen))
    for tap in taps:
        tap.close()
    assert await probed_by_tap(probe, bytes(data)) == await probe.probe(feed(bytes(data)))


@pytest.mark.parametrize(
    "line",
    [b"", b"{\n", b"[]\n", b"7\n", b'{"fault":{"code":"silent"}}\n', 5000 * b"[", b"null\nnull\n"],
)
async def test_an_answer_about_a_header_that_is_none_of_ours_is_no_answer_and_the_last(line: bytes) -> None:
    wav_headers = WavHeaderReader(ProbeProcess())
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        wav_headers._conversation = ours
        theirs.sendall(line)
        theirs.shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(wav_headers.read, Facts, ASKED, memoryview(whole_numbers()[:1000])) is None
        assert wav_headers._conversation is None
        assert ours.fileno() == -1


async def test_facts_that_no_recording_can_have_are_not_believed() -> None:
    probe, data = Probe(), whole_numbers()
    await probe.start()
    try:
        facts = (await probe.probe(feed(data))).model_dump()
        for said in ({"container": "wav"}, {**facts, "frames": 0}):
            await probe._wav_headers.open()
            line, asked = json.dumps({"ok": said}).encode() + b"\n", []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(wav_header, "_read_line", lambda _, line=line, asked=asked: asked.append(1) or line)
                assert await probed_by_tap(probe, data) == await probe.probe(feed(data))
            assert asked == [1]
    finally:
        await probe.close()


async def test_nobody_is_asked_any_more_whose_answer_may_be_that_to_another_question(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running_fork_server(probe)

    def fails(_: object) -> bytes:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(wav_header, "_read_line", fails)
        with pytest.raises(MemoryError):
            await asyncio.to_thread(probe._wav_headers.read, Facts, ASKED, memoryview(whole_numbers()))
    assert probe._wav_headers._conversation is None


async def test_there_is_one_child_for_headers_however_many_open_it(probe: Probe) -> None:
    await running_fork_server(probe)
    before = await header_child(probe)
    probe._wav_headers.close()
    await until(lambda: not is_alive(before))
    await asyncio.gather(*(probe._wav_headers.open() for _ in range(5)))
    waiting = await waiting_children(probe)
    assert len(children(fork_server_of(probe)) - waiting) == 1


@pytest.mark.parametrize("name", two_faced())
async def test_what_comes_late_changes_no_result(probe: Probe, name: str) -> None:
    data = two_faced()[name]

    async def in_two_halves() -> AsyncIterator[bytes]:
        yield data[:600_000]
        await asyncio.sleep(0.1)
        yield data[600_000:]

    try:
        expected: Facts | FaultCode = await probe.probe(feed(data))
    except Fault as fault:
        expected = fault.code
    tap = probe.tap_song(len(data))
    assert tap is not None
    try:
        await write_all(tap, in_two_halves())
        found: Facts | FaultCode | None = await tap.result()
    except Fault as fault:
        found = fault.code
    finally:
        tap.close()
    assert found == expected


async def test_what_must_be_kept_and_is_too_large_is_not_probed_while_it_arrives(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_MOST_KEPT_BYTES", 1_000_000)
    assert await probed_by_tap(probe, written(noise(8.0), subtype="DOUBLE")) is None
    for subtype in ("PCM_16", "FLOAT"):  # of which each sample is read once
        data = written(noise(8.0), subtype=subtype)
        assert await probed_by_tap(probe, data) == await probe.probe(feed(data))


async def test_a_tap_whose_child_takes_nothing_gives_up(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_tap, "_MAX_WAIT_S", 0.2)
    data = written(noise(60.0), subtype="FLOAT")  # more than fits between them
    waiting = await waiting_children(probe)
    for pid in waiting:
        os.kill(int(pid), signal.SIGSTOP)
    tap = probe.tap_song(len(data))
    assert tap is not None
    async with asyncio.timeout(5):
        await write_all(tap, feed(data))
        assert await tap.result() is None
    await until(lambda: tap._probing is not None and tap._probing.cancelled())
    for pid in waiting:  # the one that has a file was killed as it was; the other one is still to be had
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGCONT)
    assert (await probe.probe(feed(data))).frames == len(noise(60.0))


async def test_there_are_only_so_many_taps_at_once_and_each_is_given_back() -> None:
    probe, data = Probe(concurrency=1), written(noise(), kind="FLAC")
    await probe.start()
    try:
        first, second = probe.tap_song(len(data)), probe.tap_song(len(data))
        assert first is not None
        assert second is not None
        await write_all(first, feed(data[:1000]))
        await write_all(second, feed(data))
        assert await second.result() is None
        first.close()
        await until(lambda: probe._taps["probe"]._free == 1)
        assert await probed_by_tap(probe, data) == await probe.probe(feed(data))
        assert probe.tap_song(None) is None
    finally:
        await probe.close()


async def test_an_account_never_has_all_taps() -> None:
    """A file of the account's that gets none is probed from the spool."""
    probe, data = Probe(concurrency=2), written(noise(), kind="FLAC")
    await probe.start()
    taps = [tap for account in "aab" if (tap := probe.tap_song(len(data), account=account)) is not None]
    try:
        await write_all(taps[0], feed(data[:1000]))
        for tap in taps[1:]:
            await write_all(tap, feed(data))
        assert [await tap.result() for tap in taps[1:]] == [None, await probe.probe(feed(data))]
    finally:
        for tap in taps:
            tap.close()
        await probe.close()


async def test_a_file_that_arrives_slowly_loses_its_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_tap, "MAX_ARRIVAL_S", 0.05)
    probe, data = Probe(concurrency=1), written(noise(), kind="FLAC")
    await probe.start()
    try:
        tap = probe.tap_song(len(data))
        assert tap is not None

        async def slowly() -> AsyncIterator[bytes]:
            yield data[:1000]
            await until(lambda: probe._taps["probe"]._free == 1)
            yield data[1000:]

        await write_all(tap, slowly())
        assert await tap.result() is None
    finally:
        await probe.close()


async def test_a_tap_whose_fork_server_dies_says_nothing(probe: Probe) -> None:
    data = written(noise(8.0), subtype="FLOAT")
    await running_fork_server(probe)
    tap = probe.tap_song(len(data))
    assert tap is not None

    async def deadly() -> AsyncIterator[bytes]:
        yield data[:50_000]
        await until(tap._is_attached.is_set)
        fork_server = fork_server_of(probe)
        seen = children(fork_server)
        os.kill(fork_server, signal.SIGKILL)
        await until(lambda: not any(is_alive(child) for child in seen))
        yield data[50_000:]

    await write_all(tap, deadly())
    assert await tap.result() is None
    tap.close()
    assert (await probe.probe(feed(data))).frames == len(noise(8.0))


@pytest.mark.parametrize(
    ("wrong", "code"), [({}, None), ({"frames": 1}, FaultCode.BAD_MASTER), ({"channels": 1}, FaultCode.BAD_MASTER)]
)
async def test_a_master_probed_while_it_arrives_must_be_the_one_announced(
    probe: Probe, wrong: dict[str, int], code: FaultCode | None
) -> None:
    master = written(noise(), subtype="PCM_24")
    expected = {"frames": len(noise()), "rate_hz": 44_100, "channels": 2, **wrong}
    tap = probe.tap_output(ExpectedAudio(**expected), len(master))
    assert tap is not None
    found: FaultCode | None = None
    try:
        await write_all(tap, feed(master))
        verified = await tap.result()
        assert verified is not None
        assert verified.size == len(master)
    except Fault as fault:
        found = fault.code
    finally:
        tap.close()
    assert found == code
