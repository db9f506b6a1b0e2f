"""The router's probe against its real, sandboxed process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from mastering.contract import Facts, Fault, FaultCode
from mastering.contract.kinds import ExpectedAudio, ExpectedJson
from mastering.protocol.probe import VerifiedAudio
from mastering.runtime import child_process
from router.probe import answers as probe_answers
from router.probe import client
from router.probe.client import Probe
from router.probe.process import ProbeLost
from tests.crowded_tags import mp3_with_text_frames, opus_with_comments
from tests.hostile_audio import all_hostile, encoded, noise, written
from tests.probes import (
    decoding_children,
    feed,
    fork_server_of,
    header_child,
    running_fork_server,
    until,
    waiting_children,
)
from tests.processes import children, is_alive

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("warm_probes")]

SAME = ExpectedAudio(frames=len(noise()), rate_hz=44_100, channels=2)
"""What `noise` is, written as it is."""


async def fault_of(probe: Probe, data: bytes) -> Fault:
    with pytest.raises(Fault) as caught:
        await probe.probe(feed(data))
    return caught.value


@pytest.mark.parametrize(
    ("data", "container", "codec", "rate_hz", "lossy"),
    [
        (written(noise()), "wav", "pcm_16", 44_100, False),
        (written(noise(), subtype="FLOAT"), "wav", "float_32", 44_100, False),
        (written(noise(), kind="RF64", subtype="PCM_24"), "wav", "pcm_24", 44_100, False),
        (written(noise(), kind="AIFF"), "aiff", "pcm_16", 44_100, False),
        (written(noise(), kind="FLAC"), "flac", "flac", 44_100, False),
        (written(noise(), kind="OGG", subtype="VORBIS"), "ogg", "vorbis", 44_100, True),
        (encoded("ogg", "libopus"), "ogg", "opus", 48_000, True),
        (encoded("mp3", "libmp3lame"), "mp3", "mp3", 48_000, True),
        (encoded("mp4", "aac"), "mp4", "aac", 48_000, True),
        (encoded("mp4", "alac"), "mp4", "alac", 48_000, False),
        (encoded("webm", "libopus"), "webm", "opus", 48_000, True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_says_what_an_honest_file_is(
    probe: Probe, data: bytes, container: str, codec: str, rate_hz: int, lossy: bool
) -> None:
    facts = await probe.probe(feed(data))
    assert (facts.container, facts.codec, facts.rate_hz, facts.channels, facts.lossy) == (
        (container, codec, rate_hz, 2, lossy)
    )
    # Coded audio comes in packets: up to a few of them longer than what was encoded.
    assert 0 <= facts.frames - 1.5 * rate_hz <= (2048 if lossy else 0)


async def test_length_is_counted_where_the_header_leaves_it_out(probe: Probe) -> None:
    flac = bytearray(written(noise(), kind="FLAC"))
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    assert (await probe.probe(feed(bytes(flac)))).frames == len(noise())


async def test_there_are_at_least_fifty_hostile_files() -> None:
    assert len(all_hostile()) >= 50


async def test_every_hostile_file_ends_in_a_clear_fault(probe: Probe) -> None:
    answers = {name: (await fault_of(probe, data)).code for name, (data, _) in all_hostile().items()}
    assert {name: code for name, code in answers.items() if code not in all_hostile()[name][1]} == {}


async def test_a_fault_names_the_number_that_was_exceeded_and_the_one_allowed(probe: Probe) -> None:
    fault = await fault_of(probe, written(noise(1.5, 6)))
    assert (fault.code, fault.numbers) == (FaultCode.TOO_MANY_CHANNELS, {"channels": 6, "allowed": 2})
    assert "6 channels" in fault.message


async def test_no_fault_quotes_a_library_or_a_path(probe: Probe) -> None:
    for data, _ in list(all_hostile().values())[::7]:
        message = (await fault_of(probe, data)).message
        assert not any(word in message.lower() for word in ("libsndfile", "ffmpeg", "errno", "/", "fd ", "0x"))


async def test_a_file_over_the_size_limit_is_refused_however_it_is_fed() -> None:
    probe = Probe(max_bytes=100_000)
    await probe.start()
    try:
        fault = await fault_of(probe, written(noise(3.0)))
        assert (fault.code, fault.numbers) == (FaultCode.TOO_LARGE, {"allowed_bytes": 100_000})
        assert isinstance(await probe.probe(feed(written(noise(1.1, 1, 8000), 8000))), Facts)
    finally:
        await probe.close()


async def test_a_feed_that_stands_still_is_no_fault_of_the_file() -> None:
    probe = Probe(timeout_s=0.3)
    await probe.start()
    never = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield written(noise())[:1000]
        await never.wait()

    try:
        with pytest.raises(Fault) as caught:
            await asyncio.wait_for(probe.probe(endless()), 20)
        assert caught.value.code is FaultCode.INTERNAL
    finally:
        await probe.close()


async def test_a_file_that_takes_longer_than_it_may_is_stopped() -> None:
    probe = Probe(timeout_s=1.0)
    await probe.start()

    async def freezing() -> AsyncIterator[bytes]:
        yield written(noise())
        for child in children(fork_server_of(probe)):
            os.kill(child, signal.SIGSTOP)

    try:
        with pytest.raises(Fault) as caught:
            await probe.probe(freezing())
        assert caught.value.code is FaultCode.RESOURCE_LIMIT
    finally:
        await probe.close()


async def test_a_feed_that_fails_hands_its_own_error_on(probe: Probe) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"RIFF"
        raise LookupError("the spool is gone")

    with pytest.raises(LookupError, match="the spool is gone"):
        await probe.probe(failing())
    assert (await probe.probe(feed(written(noise())))).frames == len(noise())


async def test_every_fence_stands_on_this_machine(probe: Probe) -> None:
    layers = await probe.selfcheck()
    assert len(layers) >= 10
    assert [layer for layer in layers if not layer.holds] == []


@pytest.mark.parametrize("allowed", [False, True])
async def test_no_file_is_read_where_the_sandbox_lacks_something_and_nobody_has_allowed_that(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P73, the probe: on a machine without seccomp."""
    python = child_process.python
    monkeypatch.setattr(
        child_process,
        "python",
        lambda *command: (sys.executable, "-m", "tests.refuse_calls", "seccomp", *python(*command)),
    )
    probe = Probe(allows_incomplete_sandbox=allowed)
    await probe.start()
    try:
        assert probe.sandbox_gaps is not None
        assert "share memory" in probe.sandbox_gaps
        song = written(noise())
        tap = probe.tap_song(len(song))
        assert (tap is not None) == allowed
        if tap is not None:
            tap.close()
            assert (await probe.probe(feed(song))).frames == len(noise())
        else:
            with pytest.raises(Fault) as refused:
                await probe.probe(feed(song))
            assert refused.value.code is FaultCode.INTERNAL
    finally:
        await probe.close()


async def test_a_fault_leaves_the_next_file_alone(probe: Probe) -> None:
    for data in (b"", written(noise())[:5000], b"text" * 100):
        await fault_of(probe, data)
        assert (await probe.probe(feed(written(noise())))).frames == len(noise())


async def test_several_files_are_probed_at_once() -> None:
    probe = Probe(concurrency=4)
    await probe.start()
    try:
        lengths = [1.0 + 0.1 * index for index in range(8)]
        facts = await asyncio.gather(*(probe.probe(feed(written(noise(length)))) for length in lengths))
        assert [one.frames for one in facts] == [len(noise(length)) for length in lengths]
    finally:
        await probe.close()


@pytest.mark.parametrize("crowded", [mp3_with_text_frames, opus_with_comments])
async def test_slow_files_of_one_account_keep_no_other_account_waiting(crowded: Callable[[], bytes]) -> None:
    """Four of 5 MB at once from one account, and an MP3 of another one just behind them."""
    probe, slow_file, honest = Probe(concurrency=2), crowded(), encoded("mp3", "libmp3lame")
    await probe.start()
    slow = [asyncio.create_task(probe.probe(feed(slow_file), size=len(slow_file), account="a")) for _ in range(4)]
    try:
        await asyncio.sleep(0.3)
        async with asyncio.timeout(10):  # a second at most on a machine that has a core to spare
            facts = await probe.probe(feed(honest), size=len(honest), account="b")
        assert facts.codec == "mp3"
    finally:
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        await probe.close()


async def test_a_file_whose_tags_take_too_long_is_refused_though_its_end_was_never_read() -> None:
    probe, data = Probe(), opus_with_comments() + bytes(20_000_000)
    await probe.start()
    try:
        with pytest.raises(Fault) as caught:
            await probe.probe(feed(data), size=len(data))
        assert caught.value.code is FaultCode.RESOURCE_LIMIT
    finally:
        await probe.close()


async def test_masters_are_verified_while_strangers_files_take_their_time() -> None:
    probe, never = Probe(concurrency=1), asyncio.Event()
    began = asyncio.Event()
    await probe.start()

    async def stuck() -> AsyncIterator[bytes]:
        began.set()
        yield b"RIFF"
        await never.wait()

    slow = asyncio.create_task(probe.probe(stuck()))
    try:
        await asyncio.wait_for(began.wait(), 20)
        master = probe.verify(feed(written(noise())), SAME)
        assert (await asyncio.wait_for(master, 20)).frames == len(noise())
        assert not slow.done()
    finally:
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        await probe.close()


async def test_a_dead_fork_server_is_replaced(probe: Probe) -> None:
    first = await running_fork_server(probe)
    os.kill(first, signal.SIGKILL)
    assert (await probe.probe(feed(written(noise())))).frames == len(noise())
    assert fork_server_of(probe) != first


async def test_a_fork_server_killed_in_mid_request_is_an_internal_fault_and_not_a_hang(probe: Probe) -> None:
    async def deadly() -> AsyncIterator[bytes]:
        data = written(noise())
        yield data[:50_000]
        fork_server = fork_server_of(probe)
        os.kill(fork_server, signal.SIGKILL)
        await until(lambda: not is_alive(fork_server))
        yield data[50_000:]

    with pytest.raises(Fault) as caught:
        await asyncio.wait_for(probe.probe(deadly()), 30)
    assert caught.value.code is FaultCode.INTERNAL


async def test_a_closed_probe_starts_nothing_any_more() -> None:
    probe = Probe()
    await probe.close()
    with pytest.raises(Fault) as caught:
        await probe.probe(feed(written(noise())))
    assert caught.value.code is FaultCode.INTERNAL


async def test_a_frozen_fork_server_is_replaced(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await running_fork_server(probe)
    monkeypatch.setattr(client, "_GRACE_S", 0.2)
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(Fault) as caught:
        await probe.probe(feed(written(noise())), timeout_s=0.2)
    assert caught.value.code is FaultCode.INTERNAL
    assert not is_alive(first)
    monkeypatch.undo()
    assert (await probe.probe(feed(written(noise())))).frames == len(noise())


async def test_a_caller_that_gives_up_ends_its_child(probe: Probe) -> None:
    started, never = asyncio.Event(), asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"RIFF"
        started.set()
        await never.wait()

    waiting, header_pid = await waiting_children(probe), await header_child(probe)
    task = asyncio.create_task(probe.probe(stuck()))
    await asyncio.wait_for(started.wait(), 20)
    assert decoding_children(probe, header_pid) == waiting
    task.cancel()
    await until(lambda: len(decoding_children(probe, header_pid)) == 1)


@pytest.mark.parametrize(
    "line",
    [
        b'{"ok":' + 30_000 * b"[",
        b'{"fault":{"code":"silent","message":"x","numbers":{"code":1}}}',
        b'{"fault":{"code":"silent","message":"x","numbers":[]}}',
        b'{"fault":{"code":"of its own","message":"x","numbers":{}}}',
        b'{"fault":{"code":"silent","message":"\\ud800","numbers":{}}}',
        b'{"fault":{"code":"silent","message":"x","numbers":{"a":[1]}}}',
        b'{"fault":{"code":"silent","message":"x","numbers":{"a":NaN}}}',
        b'{"fault":{"code":"silent","message":"%s","numbers":{}}}' % (501 * b"x"),
        b'{"ok":null,"fault":null}',
        b'{"ok":{"container":"wav","codec":"pcm_16","rate_hz":0,"channels":2,"frames":1,"duration_s":1,"lossy":false}}',
    ],
)
async def test_an_answer_that_is_none_of_ours_is_a_broken_probe(line: bytes) -> None:
    with pytest.raises(ProbeLost):
        probe_answers.parse_answer(Facts, line + b"\n")


async def test_an_honest_fault_is_raised_as_it_was_told() -> None:
    with pytest.raises(Fault) as caught:
        probe_answers.parse_answer(Facts, b'{"fault":{"code":"silent","message":"x","numbers":{"a":1,"b":2.5}}}\n')
    assert (caught.value.code, caught.value.message) == (FaultCode.SILENT, "x")
    assert caught.value.numbers == {"a": 1, "b": 2.5}


async def test_a_whole_master_is_verified(probe: Probe) -> None:
    master = written(noise(), subtype="PCM_24")
    found = await probe.verify(feed(master), SAME, size_bytes=len(master))
    assert isinstance(found, VerifiedAudio)
    assert (found.size, found.frames) == (len(master), len(noise()))


@pytest.mark.parametrize("wrong", [{"frames": 1}, {"rate_hz": 48_000}, {"channels": 1}, {"size": 7}], ids=str)
async def test_a_master_that_is_another_one_is_refused(probe: Probe, wrong: dict[str, int]) -> None:
    size_bytes = wrong.pop("size", None)
    with pytest.raises(Fault) as caught:
        await probe.verify(feed(written(noise())), SAME.model_copy(update=wrong), size_bytes=size_bytes)
    assert caught.value.code is FaultCode.BAD_MASTER


async def test_a_lossy_master_may_be_padded_by_what_the_caller_allows(probe: Probe) -> None:
    mp3 = encoded("mp3", "libmp3lame")
    expected = ExpectedAudio(frames=72_000 + 500, rate_hz=48_000, channels=2, tolerance_frames=4608)
    found = await probe.verify(feed(mp3), expected)
    assert isinstance(found, VerifiedAudio)
    assert abs(found.frames - 72_500) <= 4608


JSON_OUTPUTS = {
    "as expected": (b'{"notes": [], "more": 1}', None),
    "without the key": (b'{"more": 1}', FaultCode.BAD_MASTER),
    "no object": (b'["notes"]', FaultCode.BAD_MASTER),
    "no JSON": (b"notes", FaultCode.BAD_MASTER),
    "cut short": (b'{"notes": [', FaultCode.BAD_MASTER),
    "two objects": (b'{"notes": []}{}', FaultCode.BAD_MASTER),
    "no UTF-8": (b'{"notes": "\xff"}', FaultCode.BAD_MASTER),
    "no number": (b'{"notes": NaN}', FaultCode.BAD_MASTER),
    "a thousand deep": (b'{"notes": ' + b"[" * 1000 + b"]" * 1000 + b"}", FaultCode.BAD_MASTER),
}


@pytest.mark.parametrize("name", JSON_OUTPUTS)
async def test_an_output_of_json_is_verified_in_the_sandbox(probe: Probe, name: str) -> None:
    data, code = JSON_OUTPUTS[name]
    found: FaultCode | None = None
    try:
        verified = await probe.verify(feed(data), ExpectedJson(keys=("notes",)), size_bytes=len(data))
        assert verified.size == len(data)
    except Fault as fault:
        found = fault.code
    assert found is code


async def test_an_output_of_json_has_the_announced_size(probe: Probe) -> None:
    with pytest.raises(Fault) as caught:
        await probe.verify(feed(b"{}"), ExpectedJson(), size_bytes=3)
    assert caught.value.code is FaultCode.BAD_MASTER


async def test_a_damaged_master_is_refused(probe: Probe) -> None:
    with pytest.raises(Fault) as caught:
        await probe.verify(feed(written(noise())[:-5000]), SAME)
    assert caught.value.code is FaultCode.TRUNCATED


ROUTER = """
import asyncio, sys
from router.probe.client import Probe

async def main():
    probe = Probe()
    await probe.start()
    print(probe._process.process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_fork_server_dies_with_a_router_that_is_killed() -> None:
    router = subprocess.Popen([sys.executable, "-c", ROUTER], stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert router.stdout is not None
    fork_server = int(await asyncio.to_thread(router.stdout.readline))
    assert is_alive(fork_server)
    router.kill()
    router.wait()
    router.stdout.close()
    await until(lambda: not is_alive(fork_server))


async def test_the_router_side_is_light() -> None:
    script = "import sys, router.probe.client; print([m for m in ('numpy', 'soundfile', 'av') if m in sys.modules])"
    loaded = await asyncio.to_thread(subprocess.check_output, [sys.executable, "-c", script])
    assert loaded.strip() == b"[]"
