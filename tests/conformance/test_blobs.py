"""One suite for every implementation of the blobs' port; what holds on a disk alone is in tests/router/spool.

Each runs twice: as it is, and with every call waiting, as in a store beyond a network.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from router.core import clock
from router.spool import records
from router.spool.disk import Spool
from router.spool.port import BlobGone, Blobs, Extent, SpoolFull, WrongOffset
from router.spool.testing.memory import MemoryBlobs
from tests import waiting
from tests.blobs import Mixed, audio, begun, read, stored
from tests.services import pieces, ram_folder

RECORD = records.RECORD_BYTES
"""What a disk keeps together; pieces of no store are larger."""
FAR_S = 1e9
SIZES = [0, 1, 60_000, RECORD - 1, RECORD, RECORD + 1, 2 * RECORD, 3 * RECORD + 17]
Open = Callable[[int], Blobs]
"""Opens a store with a quota in bytes."""


@pytest.fixture(params=["disk", "disk, waits", "memory", "memory, waits"])
def open_blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    kind, _, waits = request.param.partition(", ")
    with ram_folder() as folder:

        def make(quota_bytes: int) -> Blobs:
            on_disk = kind == "disk"
            opened: Blobs = (
                Spool(tmp_path / "spool", Path(folder) / "keys", quota_bytes) if on_disk else MemoryBlobs(quota_bytes)
            )
            return waiting.slowed(opened) if waits else opened

        yield make


@pytest.fixture
def spool(open_blobs: Open) -> Blobs:
    return open_blobs(1 << 30)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunk", [1013, RECORD, 5 * RECORD])
async def test_what_was_stored_is_read_back(spool: Blobs, size: int, chunk: int) -> None:
    data = audio(size)
    ref = await spool.reserve(size, FAR_S)
    assert await spool.append(ref, 0, pieces(data, chunk), size) == Extent(size, complete=True)
    assert await read(spool, ref) == data
    assert await spool.extent(ref) == Extent(size, complete=True)


@pytest.mark.parametrize("size", SIZES)
async def test_a_listener_hears_all_of_a_blob_in_its_order(spool: Blobs, size: int) -> None:
    data, heard = audio(size), bytearray()
    ref = await spool.reserve(size, FAR_S)
    await spool.append(ref, 0, pieces(data, 60_000), size, heard.extend)
    assert heard == data


async def test_any_stretch_can_be_read(spool: Blobs) -> None:
    data = audio(3 * RECORD + 100)
    ref = await stored(spool, data)
    edges = [0, 1, RECORD - 1, RECORD, RECORD + 1, 2 * RECORD, len(data) - 1, len(data)]
    for start in edges:
        for end in edges:
            assert await read(spool, ref, start, end) == data[start:end], (start, end)
            with spool.open_reader(ref, start, end) as stretch:
                assert b"".join(map(bytes, iter(stretch.next_piece, b""))) == data[start:end], (start, end)


@pytest.mark.parametrize("at", [0, 1, RECORD - 1, RECORD, RECORD + 1, 2 * RECORD, 2 * RECORD + 5])
async def test_an_upload_continues_where_it_broke_off(spool: Blobs, at: int) -> None:
    data = audio(3 * RECORD)
    ref = await begun(spool, data, at, len(data))
    assert await spool.extent(ref) == Extent(at, complete=False)
    assert (await spool.append(ref, at, pieces(data[at:]), len(data))).complete
    assert await read(spool, ref) == data


async def test_an_append_anywhere_but_at_the_end_is_refused_and_changes_nothing(spool: Blobs) -> None:
    data = audio(RECORD + 100)
    ref = await begun(spool, data, RECORD, len(data))
    for wrong in (0, RECORD - 1, RECORD + 1):
        with pytest.raises(WrongOffset) as caught:
            await spool.append(ref, wrong, pieces(b"x"), len(data))
        assert caught.value.offset_bytes == RECORD
    assert await spool.extent(ref) == Extent(RECORD, complete=False)


async def test_who_never_heard_that_all_had_arrived_is_told_so_when_it_continues(spool: Blobs) -> None:
    data = audio(1000)
    ref = await stored(spool, data)
    assert await spool.append(ref, 1000, pieces(b""), 1000) == Extent(1000, complete=True)
    with pytest.raises(WrongOffset):
        await spool.append(ref, 1000, pieces(b"more"), 1000)
    assert await read(spool, ref) == data


async def test_more_than_was_announced_is_refused(spool: Blobs) -> None:
    ref = await spool.reserve(100, FAR_S)
    with pytest.raises(SpoolFull):
        await spool.append(ref, 0, pieces(audio(101)), 100)


async def test_expiry_is_checked_at_every_door(spool: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    data = audio(3 * RECORD)
    ref = await stored(spool, data, now + 60)
    monkeypatch.setattr(clock, "now", lambda: now + 59.999)
    assert await read(spool, ref) == data
    assert spool.expired() == []
    monkeypatch.setattr(clock, "now", lambda: now + 60)
    with pytest.raises(BlobGone):
        await read(spool, ref)
    with pytest.raises(BlobGone):
        await spool.extent(ref)
    with pytest.raises(BlobGone):
        await spool.append(ref, 0, pieces(data), len(data))
    assert spool.expired() == [ref]


async def test_what_is_lent_ends_at_the_next_record_when_its_blob_is_dropped(spool: Blobs) -> None:
    ref = await stored(spool, audio(3 * RECORD))
    with spool.open_reader(ref, 0, 3 * RECORD) as stretch:
        stretch.next_piece()
        await spool.drop(ref)
        for ask in (stretch.check_available, stretch.next_piece):
            with pytest.raises(BlobGone):
                ask()


async def test_a_read_stops_at_the_next_record_when_time_runs_out(
    spool: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.now()
    ref = await stored(spool, audio(3 * RECORD), now + 60)
    reading = spool.read(ref)
    assert len(await anext(reading)) == RECORD
    monkeypatch.setattr(clock, "now", lambda: now + 61)
    with pytest.raises(BlobGone):
        await anext(reading)


async def test_a_read_stops_at_the_next_record_when_the_blob_is_dropped(spool: Blobs) -> None:
    ref = await stored(spool, audio(3 * RECORD))
    reading = spool.read(ref)
    await anext(reading)
    await spool.drop(ref)
    with pytest.raises(BlobGone):
        await anext(reading)


async def test_an_upload_is_cut_off_when_its_blob_is_dropped(spool: Blobs) -> None:
    ref = await spool.reserve(10 * RECORD, FAR_S)
    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        for n in range(10):
            if n == 2:
                await spool.drop(ref)
            taken += 1
            yield bytes(RECORD)

    with pytest.raises(BlobGone):
        await spool.append(ref, 0, body(), 10 * RECORD)
    assert taken == 3


async def test_a_cancelled_append_keeps_all_that_came(spool: Blobs) -> None:
    data = audio(2 * RECORD)
    ref = await spool.reserve(len(data), FAR_S)
    came = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield data[: RECORD + 77]
        came.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(spool.append(ref, 0, body(), len(data)))
    await came.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    offset = (await spool.extent(ref)).size_bytes
    assert offset == RECORD + 77
    await spool.append(ref, offset, pieces(data[offset:]), len(data))
    assert await read(spool, ref) == data


async def test_references_are_random_and_nothing_else_is_taken_for_one(spool: Blobs) -> None:
    refs = {await spool.reserve(1, FAR_S) for _ in range(50)}
    assert len({ref.split("/")[0] for ref in refs}) == 50
    for wrong in ("../../etc/passwd", "a/b", "", "0" * 32):
        with pytest.raises(BlobGone):
            await spool.extent(wrong)


@pytest.mark.parametrize("size", [5 * RECORD, 8 * RECORD - 1])
async def test_a_body_that_comes_by_loop_and_thread_in_turn_is_kept_in_its_order(spool: Blobs, size: int) -> None:
    data, heard = audio(size), bytearray()
    ref = await spool.reserve(size, FAR_S)
    assert await spool.append(ref, 0, Mixed(data), size, heard.extend) == Extent(size, complete=True)
    assert await read(spool, ref) == data
    assert heard == data


async def test_an_upload_of_unknown_size_is_complete_when_it_ends_and_takes_what_it_has(spool: Blobs) -> None:
    data = audio(RECORD + 9)
    ref = await spool.reserve(4 * RECORD, FAR_S)
    before = spool.reserved_bytes_of(ref)
    assert await spool.append(ref, 0, pieces(data), None) == Extent(len(data), complete=True)
    assert await read(spool, ref) == data
    assert spool.reserved_bytes_of(ref) < before / 2
    assert spool.usage().reserved_bytes == spool.reserved_bytes_of(ref)


async def test_a_quota_that_is_taken_refuses_and_leaves_nothing(open_blobs: Open) -> None:
    spool = open_blobs(3 * RECORD)
    ref = await spool.reserve(2 * RECORD, FAR_S)
    before = spool.usage()
    assert spool.bytes_to_free(RECORD // 2) == 0
    assert spool.bytes_to_free(2 * RECORD) >= RECORD
    with pytest.raises(SpoolFull):
        await spool.reserve(2 * RECORD, FAR_S)
    assert spool.usage()[:3] == before[:3]
    await spool.drop(ref)
    await spool.reserve(2 * RECORD, FAR_S)


async def test_an_upload_that_turns_out_larger_takes_its_room_or_is_refused(open_blobs: Open) -> None:
    spool = open_blobs(1_000_000)
    ref = await spool.reserve(2, FAR_S)
    await spool.append(ref, 0, pieces(b"x"), 2)
    with pytest.raises(SpoolFull):
        await spool.append(ref, 1, pieces(bytes(2_500_000)), 2_500_001)
    assert (await spool.extent(ref)).size_bytes == 1
    assert (await spool.append(ref, 1, pieces(bytes(500_000)), 500_001)).complete
    assert 500_001 <= spool.usage().reserved_bytes < 501_000


async def test_dropping_leaves_nothing_and_may_be_repeated(spool: Blobs) -> None:
    first = await stored(spool, audio(100))
    beside = await spool.reserve(10, FAR_S, beside=first)
    assert first.split("/")[0] == beside.split("/")[0]
    await spool.drop(first)
    assert await spool.extent(beside) == Extent(0, complete=False)
    await spool.drop(beside)
    await spool.drop(beside)
    assert spool.usage()[:3:2] == (0, 0)
    assert spool.reserved_bytes_of(first) == 0
    for gone in (spool.extent(first), read(spool, first), spool.append(first, 0, pieces(b"x"), 1)):
        with pytest.raises(BlobGone):
            await gone


async def test_reconcile_drops_what_nobody_owns(spool: Blobs) -> None:
    owned, *_ = [await stored(spool, audio(100)) for _ in range(3)]
    assert await spool.reconcile({owned}) == 2
    assert spool.usage().blobs == 1
    assert await read(spool, owned) == audio(100)


async def test_who_is_receiving_is_known_though_no_byte_has_come(spool: Blobs) -> None:
    ref = await spool.reserve(10, FAR_S)
    began, may_come = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        began.set()
        await may_come.wait()
        yield bytes(10)

    assert not spool.is_receiving(ref)
    upload = asyncio.create_task(spool.append(ref, 0, body(), 10))
    await began.wait()
    assert spool.is_receiving(ref)
    may_come.set()
    assert (await upload).complete
    assert not spool.is_receiving(ref)


async def test_the_age_of_the_oldest_blob_is_known(spool: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert spool.usage().oldest_s is None
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    await spool.reserve(1, FAR_S)
    monkeypatch.setattr(clock, "now", lambda: now + 5)
    await spool.reserve(1, FAR_S)
    assert spool.usage().oldest_s == pytest.approx(5, abs=0.01)
