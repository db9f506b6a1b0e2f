"""Files heard while they arrive: the same verdict as afterwards, whatever comes late, and nobody kept waiting."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from mastering.contract import Facts, Fault, FaultCode
from router import hearing, probing
from router.hearing import Ear
from router.probing import Probe
from tests.hostile_audio import all_hostile, encoded, noise, written
from tests.probes import feed, running_zygote, until, waiting_children, zygote_of
from tests.processes import children, is_alive

HOSTILE = all_hostile()
pytestmark = pytest.mark.asyncio(loop_scope="module")


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
    "m4a": encoded("mp4", "aac"),
    "webm": encoded("webm", "libopus"),
}


async def hears(ear: Ear[Any], body: AsyncIterator[bytes]) -> None:
    async for piece in body:
        await asyncio.to_thread(ear.take, memoryview(piece))


async def heard(probe: Probe, data: bytes, chunk: int = 65_536) -> Facts | Fault | None:
    """What an ear says of the file: its facts, its fault, or nothing."""
    ear = probe.hear_song(len(data))
    assert ear is not None
    try:
        await hears(ear, feed(data, chunk))
        return await ear.verdict()
    except Fault as fault:
        return fault
    finally:
        ear.close()


@pytest.mark.parametrize("name", HONEST)
async def test_a_file_heard_on_its_way_is_what_it_is_when_heard_afterwards(probe: Probe, name: str) -> None:
    afterwards = await probe.probe(feed(HONEST[name]))
    assert [await heard(probe, HONEST[name], chunk) for chunk in (999, 65_536, 1 << 20)] == [afterwards] * 3


async def test_a_bad_file_heard_on_its_way_is_as_bad_as_when_heard_afterwards(probe: Probe) -> None:
    for name, (data, codes) in HOSTILE.items():
        if not data:
            continue  # nothing arrives: there is no ear for it
        found = await heard(probe, data)
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
async def test_a_file_is_heard_while_it_arrives(probe: Probe, song: Callable[[], bytes]) -> None:
    """The last byte never comes, and yet the child has taken more than any socket holds."""
    data = song()
    waiting = await waiting_children(probe)
    ear = probe.hear_song(len(data))
    assert ear is not None
    try:
        await hears(ear, feed(data[:-1000]))
        assert ear._heard == len(data) - 1000 > 2_000_000
        assert await ear.verdict() is None
        assert children(zygote_of(probe)) == waiting
    finally:
        ear.close()
    await until(lambda: len(children(zygote_of(probe))) == 1)


def _chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content


def _format(rate: int = 48_000, channels: int = 2) -> bytes:
    return _chunk(b"fmt ", struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels, 2 * channels, 16))


def _riff(body: bytes) -> bytes:
    return _chunk(b"RIFF", b"WAVE" + body)


async def test_whole_numbers_are_heard_until_one_is_no_silence(probe: Probe) -> None:
    """Nothing that follows can change what the file is, if it has its announced size."""
    data = whole_numbers()
    for missing in (0, 1000):
        ear = probe.hear_song(len(data))
        assert ear is not None
        try:
            await hears(ear, feed(data[:100_000]))
            await until(ear._listening.done)
            await hears(ear, feed(data[100_000 : len(data) - missing]))
            assert ear._heard == 100_000
            found = await ear.verdict()
        finally:
            ear.close()
        assert found == (None if missing else await probe.probe(feed(data)))


def _two_faced() -> dict[str, bytes]:
    """Files that say one thing of themselves at their beginning, and another to whoever knows their end."""
    sound = (noise(5.0) * 32767).astype("<i2").tobytes()
    files = {}
    for name, behind in {
        "rate": _format(rate=8000),
        "channels": _format(channels=9),
        "audio": _chunk(b"data", 3 * sound),
        "list": _chunk(b"LIST", b"INFO" + bytes(4000)),
    }.items():
        rest = behind + bytes(60_000)
        long = struct.pack("<QQQI", 4 + 36 + len(sound) + len(rest), len(sound), len(sound) // 4, 0)
        body = _format() + _chunk(b"data", sound + rest)
        files[f"RF64, another {name}"] = b"RF64\xff\xff\xff\xffWAVE" + _chunk(b"ds64", long) + body
        files[f"RIFF, another {name}"] = _riff(_format() + _chunk(b"data", sound) + rest)
        inner, tag = _riff(_format() + _chunk(b"data", sound) + rest), bytearray(2000)
        tag[2:10] = _chunk(b"data", b"", 2010 + len(inner) - 20)
        files[f"behind a tag, another {name}"] = b"ID3\3\0\0\0\0\x0f\x50" + bytes(tag) + inner
    files["an empty chunk at the end"] = _riff(_format() + _chunk(b"data", sound) + b"data\0\0\0\0")
    files["an odd number of bytes"] = _riff(_format() + _chunk(b"data", sound[:-1]) + b"\0")
    files["data of another size than its frames"] = _riff(_format() + _chunk(b"data", sound + b"\1\2\3"))
    return files


@pytest.mark.parametrize("name", _two_faced())
async def test_what_comes_late_changes_no_verdict(probe: Probe, name: str) -> None:
    data = _two_faced()[name]

    async def in_two_halves() -> AsyncIterator[bytes]:
        yield data[:600_000]
        await asyncio.sleep(0.1)
        yield data[600_000:]

    try:
        expected: Facts | FaultCode = await probe.probe(feed(data))
    except Fault as fault:
        expected = fault.code
    ear = probe.hear_song(len(data))
    assert ear is not None
    try:
        await hears(ear, in_two_halves())
        found: Facts | FaultCode | None = await ear.verdict()
    except Fault as fault:
        found = fault.code
    finally:
        ear.close()
    assert found == expected


async def test_what_must_be_kept_and_is_too_large_is_not_heard_on_its_way(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "_MOST_KEPT_BYTES", 1_000_000)
    assert await heard(probe, written(noise(8.0), subtype="FLOAT")) is None
    assert await heard(probe, written(noise(8.0))) == await probe.probe(feed(written(noise(8.0))))


async def test_an_ear_that_takes_nothing_is_given_up(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "_PATIENCE_S", 0.2)
    data = written(noise(60.0))  # more than fits between them
    waiting = await waiting_children(probe)
    for pid in waiting:
        os.kill(int(pid), signal.SIGSTOP)
    ear = probe.hear_song(len(data))
    assert ear is not None
    async with asyncio.timeout(5):
        await hears(ear, feed(data))
        assert await ear.verdict() is None
    await until(lambda: ear._listening.cancelled())
    for pid in waiting:  # the one that has a file was killed as it was; the other one is still to be had
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGCONT)
    assert (await probe.probe(feed(data))).frames == len(noise(60.0))


async def test_there_are_only_so_many_ears_and_each_is_given_back() -> None:
    probe, data = Probe(concurrency=1), written(noise())
    await probe.start()
    try:
        first = probe.hear_song(len(data))
        assert first is not None
        assert probe.hear_song(len(data)) is None
        first.close()
        await until(lambda: probe._ears_left["probe"] == 1)
        assert await heard(probe, data) == await probe.probe(feed(data))
        assert probe.hear_song(None) is None
    finally:
        await probe.close()


async def test_a_file_that_dawdles_loses_its_ear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "EARLY_S", 0.05)
    probe, data = Probe(concurrency=1), written(noise())
    await probe.start()
    try:
        ear = probe.hear_song(len(data))
        assert ear is not None

        async def slowly() -> AsyncIterator[bytes]:
            yield data[:1000]
            await until(lambda: probe._ears_left["probe"] == 1)
            yield data[1000:]

        await hears(ear, slowly())
        assert await ear.verdict() is None
    finally:
        await probe.close()


async def test_an_ear_whose_zygote_dies_says_nothing(probe: Probe) -> None:
    data = written(noise(8.0))
    await running_zygote(probe)
    ear = probe.hear_song(len(data))
    assert ear is not None

    async def deadly() -> AsyncIterator[bytes]:
        yield data[:50_000]
        await until(ear._begun.is_set)
        zygote = zygote_of(probe)
        seen = children(zygote)
        os.kill(zygote, signal.SIGKILL)
        await until(lambda: not any(is_alive(child) for child in seen))
        yield data[50_000:]

    await hears(ear, deadly())
    assert await ear.verdict() is None
    ear.close()
    assert (await probe.probe(feed(data))).frames == len(noise(8.0))


@pytest.mark.parametrize(
    ("wrong", "code"), [({}, None), ({"frames": 1}, FaultCode.BAD_MASTER), ({"channels": 1}, FaultCode.BAD_MASTER)]
)
async def test_a_master_heard_on_its_way_must_be_the_one_announced(
    probe: Probe, wrong: dict[str, int], code: FaultCode | None
) -> None:
    master = written(noise(), subtype="PCM_24")
    announced = {"frames": len(noise()), "rate_hz": 44_100, "channels": 2, "size": len(master), **wrong}
    ear = probe.hear_master(**announced)  # type: ignore[arg-type]
    assert ear is not None
    found: FaultCode | None = None
    try:
        await hears(ear, feed(master))
        verified = await ear.verdict()
        assert verified is not None
        assert verified.size == len(master)
    except Fault as fault:
        found = fault.code
    finally:
        ear.close()
    assert found == code
