"""The spool: whole and exact while a song is owed, unreadable the moment it is not."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import stat
import struct
import subprocess
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from router.core import clock
from router.core.command_error import CommandError
from router.spool import boot_id, records
from router.spool.disk import Spool
from router.spool.port import BlobGone, Extent, SpoolFull
from tests.blobs import ConnectionBroke, Mixed, audio, begun, breaking_off, read, stored
from tests.services import pieces, ram_folder

RECORD = records.RECORD_BYTES
HEADER_BYTES, TAG_BYTES = 17, 16
FAR_S = 1e9


@pytest.fixture
def keys() -> Iterator[Path]:
    with ram_folder() as folder:
        yield Path(folder) / "keys"


@pytest.fixture
def spool(tmp_path: Path, keys: Path) -> Spool:
    return Spool(tmp_path / "spool", keys, 1 << 30)


def path_of(tmp_path: Path, ref: str) -> Path:
    return tmp_path / "spool" / ref


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


SIZES = [0, 1, 60_000, RECORD - 1, RECORD, RECORD + 1, 2 * RECORD, 3 * RECORD + 17]


@pytest.mark.parametrize("size", SIZES)
async def test_what_only_a_disk_has_is_read_back_all_the_same(
    spool: Spool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = audio(size)
    ref = await stored(spool, data)
    monkeypatch.setattr(records, "read_if_cached", lambda *_: None)
    assert await read(spool, ref) == data


async def test_a_quick_reader_leaves_others_their_turn(spool: Spool) -> None:
    ref, turns = await stored(spool, audio(9 * RECORD)), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await read(spool, ref)
    task.cancel()
    assert turns >= 2


@pytest.mark.parametrize("size", [5 * RECORD, 8 * RECORD - 1, 8 * RECORD + 1])
async def test_a_body_that_comes_by_loop_and_thread_in_turn_is_kept_in_its_order(
    spool: Spool, tmp_path: Path, size: int
) -> None:
    """In full records, however slowly those are stored that the loop handed over."""

    def slowly(_: memoryview) -> None:
        time.sleep(0.01)

    data = audio(size)
    ref = await spool.reserve(size, FAR_S)
    assert await spool.append(ref, 0, Mixed(data), size, slowly) == Extent(size, complete=True)
    assert await read(spool, ref) == data
    assert path_of(tmp_path, ref).stat().st_size == records.sealed_size(size)


async def test_nothing_is_stored_in_a_thread_once_the_blob_is_gone(spool: Spool) -> None:
    ref = await spool.reserve(8 * RECORD, FAR_S)
    heard: list[int] = []

    def dropped() -> None:
        time.sleep(0.05)  # what was handed over before is stored by then
        spool._reserved.pop(ref)
        heard.clear()

    with pytest.raises(BlobGone):
        await spool.append(ref, 0, Mixed(audio(8 * RECORD), dropped), 8 * RECORD, lambda stretch: heard.append(1))
    assert not heard


async def test_an_upload_of_unknown_size_is_complete_when_it_ends(spool: Spool) -> None:
    data = audio(RECORD + 9)
    ref = await spool.reserve(4 * RECORD, FAR_S)
    assert await spool.append(ref, 0, pieces(data), None) == Extent(len(data), complete=True)
    assert await read(spool, ref) == data
    assert spool.usage().reserved_bytes == records.sealed_size(len(data))


@pytest.mark.parametrize("torn", [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 100, RECORD])
async def test_a_torn_tail_that_a_crash_left_is_cut_off_and_written_anew(
    spool: Spool, tmp_path: Path, torn: int
) -> None:
    data = audio(3 * RECORD)
    ref = await begun(spool, data, 2 * RECORD, len(data))
    path = path_of(tmp_path, ref)
    os.truncate(path, path.stat().st_size - torn)
    offset = (await spool.extent(ref)).size_bytes
    assert offset == RECORD
    assert (await spool.append(ref, offset, pieces(data[offset:]), len(data))).complete
    assert await read(spool, ref) == data


async def test_no_plain_byte_lies_on_the_disk(spool: Spool, tmp_path: Path) -> None:
    data = b"a canary in the samples; " * 20_000
    ref = await stored(spool, data)
    assert b"canary" not in path_of(tmp_path, ref).read_bytes()


# --- Tampering


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("position", [0, 1, 4, 5, 16, HEADER_BYTES, HEADER_BYTES + RECORD, -1])
async def test_any_bit_that_changed_is_noticed(spool: Spool, tmp_path: Path, position: int) -> None:
    ref = await stored(spool, audio(2 * RECORD))
    path = path_of(tmp_path, ref)
    flip(path, position % path.stat().st_size)
    with pytest.raises(records.CorruptRecord):
        await read(spool, ref)


async def test_records_in_another_order_are_noticed(spool: Spool, tmp_path: Path) -> None:
    ref = await stored(spool, audio(3 * RECORD))
    path = path_of(tmp_path, ref)
    whole, size = path.read_bytes(), HEADER_BYTES + RECORD + TAG_BYTES
    path.write_bytes(whole[size : 2 * size] + whole[:size] + whole[2 * size :])
    with pytest.raises(records.CorruptRecord):
        await read(spool, ref)


async def test_a_record_of_another_blob_is_noticed(spool: Spool, tmp_path: Path) -> None:
    first, second = await stored(spool, audio(RECORD)), await stored(spool, audio(RECORD))
    path_of(tmp_path, first).write_bytes(path_of(tmp_path, second).read_bytes())
    with pytest.raises(records.CorruptRecord):
        await read(spool, first)


async def test_a_blob_whose_last_records_were_cut_away_is_never_taken_for_a_shorter_one(
    spool: Spool, tmp_path: Path
) -> None:
    ref = await stored(spool, audio(3 * RECORD))
    path = path_of(tmp_path, ref)
    for whole_records in (2, 1, 0):
        os.truncate(path, whole_records * (HEADER_BYTES + RECORD + TAG_BYTES))
        assert not (await spool.extent(ref)).complete
        with pytest.raises(records.CorruptRecord):
            await read(spool, ref)


async def test_no_nonce_is_used_twice_however_often_an_upload_breaks_off(spool: Spool, tmp_path: Path) -> None:
    data = audio(RECORD)
    ref = await spool.reserve(len(data), FAR_S)
    nonces: list[bytes] = []
    for _ in range(200):
        offset = (await spool.extent(ref)).size_bytes
        with pytest.raises(ConnectionBroke):
            await spool.append(ref, offset, breaking_off(data[offset:], 100), len(data))
        # The client goes back and the same stretch is encrypted once more: the record is cut off again.
        written = path_of(tmp_path, ref).read_bytes()
        nonces.append(written[-(TAG_BYTES + 100 + 12) : -(TAG_BYTES + 100)])
        os.truncate(path_of(tmp_path, ref), len(written) - 1)
    assert len(set(nonces)) == 200


async def test_many_small_appends_make_few_records(spool: Spool, tmp_path: Path) -> None:
    data = audio(300_000)
    ref = await spool.reserve(len(data), FAR_S)
    for at in range(0, len(data), 1000):
        await spool.append(ref, at, pieces(data[at : at + 1000]), len(data))
    with path_of(tmp_path, ref).open("rb") as file:
        places = list(records.record_positions(file.fileno()))
    assert all(place.plain_size >= 64 * 1024 for place in places[:-1])
    assert len(places) <= 5
    assert await read(spool, ref) == data


async def test_a_small_record_stays_until_the_one_that_replaces_it_is_written(spool: Spool) -> None:
    """A kill while the next append gathers its bytes costs none that were acknowledged."""
    data = audio(2000)
    ref = await spool.reserve(len(data), FAR_S)
    await spool.append(ref, 0, pieces(data[:1000]), len(data))
    began, may_end = asyncio.Event(), asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield data[1000:1500]
        began.set()
        await may_end.wait()
        yield data[1500:]

    appending = asyncio.create_task(spool.append(ref, 1000, waiting(), len(data)))
    await began.wait()
    assert await spool.extent(ref) == Extent(1000, complete=False)
    assert await read(spool, ref, 0, 1000) == data[:1000]
    may_end.set()
    assert await appending == Extent(2000, complete=True)
    assert await read(spool, ref) == data


async def test_an_append_of_nothing_writes_nothing(spool: Spool, tmp_path: Path) -> None:
    ref = await begun(spool, audio(1000), 1000, 2000)
    before = path_of(tmp_path, ref).read_bytes()
    assert await spool.append(ref, 1000, pieces(b""), 2000) == Extent(1000, complete=False)
    assert path_of(tmp_path, ref).read_bytes() == before


# --- Room


async def test_a_quota_that_is_taken_refuses_and_leaves_nothing(tmp_path: Path, keys: Path) -> None:
    spool = Spool(tmp_path / "spool", keys, 3 * RECORD)
    ref = await spool.reserve(2 * RECORD, FAR_S)
    before = spool.usage()
    with pytest.raises(SpoolFull):
        await spool.reserve(RECORD, FAR_S)
    assert spool.usage()[:3] == before[:3]
    assert names(keys) == [ref.replace("/", ".")]
    await spool.drop(ref)
    await spool.reserve(RECORD, FAR_S)


async def test_reserved_room_is_known_again_after_a_restart(tmp_path: Path, keys: Path) -> None:
    first = Spool(tmp_path / "spool", keys, 1 << 30)
    await first.reserve(5 * RECORD, FAR_S)
    await stored(first, audio(100))
    again = Spool(tmp_path / "spool", keys, 1 << 30)
    assert again.usage().reserved_bytes == first.usage().reserved_bytes


@pytest.fixture
def tiny_disk() -> Iterator[Path]:
    """A file system of 2 MiB; needs the right to mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


async def test_a_disk_without_room_for_twice_the_song_refuses_it_before_a_byte(tiny_disk: Path, keys: Path) -> None:
    spool = Spool(tiny_disk / "spool", keys, 1 << 30)
    with pytest.raises(SpoolFull):
        await spool.reserve(1_200_000, FAR_S)
    assert spool.usage().blobs == 0
    assert names(keys) == []


async def test_a_disk_that_fills_up_meanwhile_keeps_whole_records_and_can_be_continued(
    tiny_disk: Path, keys: Path
) -> None:
    spool = Spool(tiny_disk / "spool", keys, 1 << 30)
    data = audio(RECORD + 100_000)
    ref = await spool.reserve(len(data), FAR_S)
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(2 * 1024 * 1024 - RECORD - 64 * 1024))
    with pytest.raises(SpoolFull):
        await spool.append(ref, 0, pieces(data, 90_000), len(data))
    ballast.unlink()
    offset, complete = await spool.extent(ref)
    assert not complete
    assert (await spool.append(ref, offset, pieces(data[offset:]), len(data))).complete
    assert await read(spool, ref) == data


async def test_room_that_comes_back_between_two_writes_leaves_no_gap(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = audio(3 * RECORD)
    ref = await spool.reserve(len(data), FAR_S)
    writes = iter([True, False, True, True])
    pwritev = os.pwritev

    def sometimes_full(fd: int, parts: Sequence[bytes], position: int) -> int:
        if next(writes, True):
            return pwritev(fd, parts, position)
        raise OSError(28, "full")

    monkeypatch.setattr(os, "pwritev", sometimes_full)
    with pytest.raises(SpoolFull):
        await spool.append(ref, 0, pieces(data, 3 * RECORD), len(data))
    offset = (await spool.extent(ref)).size_bytes
    assert (await spool.append(ref, offset, pieces(data[offset:]), len(data))).complete
    assert await read(spool, ref) == data


# --- Time and the end


async def test_nothing_of_a_blob_outlives_who_was_lent_it(spool: Spool) -> None:
    """Not even until the garbage collector comes: it holds plain audio, and the key."""
    ref = await stored(spool, audio(3 * RECORD))
    gc.disable()
    try:
        with spool.open_reader(ref, 0, 3 * RECORD) as stretch:
            assert len(stretch.next_piece()) == RECORD
            lent = weakref.ref(stretch)
        del stretch
        assert lent() is None
    finally:
        gc.enable()


async def test_what_is_lent_of_a_damaged_blob_is_refused(spool: Spool, tmp_path: Path) -> None:
    ref = await stored(spool, audio(2 * RECORD))
    whole = bytearray(path_of(tmp_path, ref).read_bytes())
    whole[-1] ^= 1
    path_of(tmp_path, ref).write_bytes(whole)
    with spool.open_reader(ref, 0, 2 * RECORD) as stretch:
        stretch.next_piece()
        with pytest.raises(records.CorruptRecord):
            stretch.next_piece()


async def test_dropping_leaves_neither_key_nor_file_nor_folder_and_may_be_repeated(
    spool: Spool, tmp_path: Path, keys: Path
) -> None:
    first = await stored(spool, audio(100))
    beside = await spool.reserve(10, FAR_S, beside=first)
    assert first.split("/")[0] == beside.split("/")[0]
    await spool.drop(first)
    assert await spool.extent(beside) == Extent(0, complete=False)
    await spool.drop(beside)
    await spool.drop(beside)
    assert names(keys) == []
    assert names(tmp_path / "spool") == ["CACHEDIR.TAG"]
    assert spool.usage().reserved_bytes == 0


async def test_reconcile_drops_what_nobody_owns_and_what_nobody_can_read(
    spool: Spool, tmp_path: Path, keys: Path
) -> None:
    owned, orphan, keyless, fileless = [await stored(spool, audio(100)) for _ in range(4)]
    (keys / keyless.replace("/", ".")).unlink()
    path_of(tmp_path, fileless).unlink()
    again = Spool(tmp_path / "spool", keys, 1 << 30)
    assert await again.reconcile({owned, keyless}) == 3
    assert [path.parent.name for path in (tmp_path / "spool").glob("*/*")] == [owned.split("/")[0]]
    assert names(keys) == [owned.replace("/", ".")]
    assert await read(again, owned) == audio(100)
    assert orphan != owned


@pytest.mark.parametrize("size", [0, 10])
async def test_a_key_that_a_kill_left_half_written_does_not_stop_the_next_start(
    tmp_path: Path, keys: Path, size: int
) -> None:
    Spool(tmp_path / "spool", keys, 1 << 30)
    torn = keys / f"{'0' * 32}.{'1' * 16}"
    torn.write_bytes(bytes(size))
    assert Spool(tmp_path / "spool", keys, 1 << 30).usage().blobs == 0
    assert not torn.exists()


async def test_a_key_that_a_kill_left_zeroed_reads_nothing_and_is_due(tmp_path: Path, keys: Path, spool: Spool) -> None:
    ref = await stored(spool, audio(100))
    key = keys / ref.replace("/", ".")
    key.write_bytes(bytes(key.stat().st_size))
    again = Spool(tmp_path / "spool", keys, 1 << 30)
    with pytest.raises(BlobGone):
        await read(again, ref)
    assert again.expired() == [ref]


async def test_only_the_owner_may_look(tmp_path: Path, keys: Path, spool: Spool) -> None:
    ref = await stored(spool, audio(100))
    file = path_of(tmp_path, ref)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent, tmp_path / "spool", keys)}
    assert modes == {file: 0o600, file.parent: 0o700, tmp_path / "spool": 0o700, keys: 0o700}
    assert stat.S_IMODE((keys / ref.replace("/", ".")).stat().st_mode) == 0o600


# --- Another life of the machine


async def test_in_another_life_nothing_of_the_last_one_is_left(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ram, disk = keys.parent, tmp_path / "spool"
    assert not boot_id.wipe_if_new(ram, disk)
    spool = Spool(disk, keys, 1 << 30)
    ref = await stored(spool, audio(100))
    kept = path_of(tmp_path, ref).read_bytes()
    assert not boot_id.wipe_if_new(ram, disk)
    assert await read(spool, ref) == audio(100)

    monkeypatch.setattr(boot_id, "current", lambda: "another life")
    assert boot_id.wipe_if_new(ram, disk)
    assert names(ram) == ["incarnation"]
    assert names(disk) == []
    # Even who kept a copy of the ciphertext can do nothing with it.
    again = Spool(disk, keys, 1 << 30)
    path_of(tmp_path, ref).parent.mkdir()
    path_of(tmp_path, ref).write_bytes(kept)
    with pytest.raises(BlobGone):
        await read(again, ref)


@pytest.mark.parametrize("whose", ["ram", "disk"])
def test_a_folder_of_somebody_else_is_never_emptied(tmp_path: Path, whose: str) -> None:
    folders = {"ram": tmp_path / "ram", "disk": tmp_path / "disk"}
    treasure = folders[whose] / "thesis.txt"
    treasure.parent.mkdir()
    treasure.write_text("years of work")
    with pytest.raises(CommandError, match="not a router's"):
        boot_id.wipe_if_new(folders["ram"], folders["disk"])
    assert treasure.read_text() == "years of work"


@pytest.mark.parametrize("whose", ["ram", "disk"])
def test_folders_are_made_ours_alone_and_another_users_are_refused(
    tmp_path: Path, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {"ram": tmp_path / "ram", "disk": tmp_path / "disk"}
    folders[whose].mkdir(mode=0o777)
    folders[whose].chmod(0o777)
    boot_id.wipe_if_new(folders["ram"], folders["disk"])
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders.values()] == [0o700, 0o700]
    monkeypatch.setattr(os, "geteuid", lambda: folders[whose].stat().st_uid + 1)
    with pytest.raises(CommandError, match="another user"):
        boot_id.wipe_if_new(folders["ram"], folders["disk"])


def test_this_life_has_a_name_that_stays(tmp_path: Path) -> None:
    assert boot_id.current() == boot_id.current() != ""


def test_header_is_as_documented() -> None:
    room = bytearray(100)
    taken = records.seal(records.new_key(), "ref", 0, b"12345", memoryview(room), last=True)
    last, size, _ = struct.unpack_from("!BI12s", room)
    assert (last, size, taken) == (1, 5, HEADER_BYTES + 5 + TAG_BYTES)
    assert not any(room[taken:])


async def test_an_upload_that_turns_out_larger_takes_its_room_or_is_refused(tmp_path: Path, keys: Path) -> None:
    spool = Spool(tmp_path / "s", keys, 1_000_000)
    ref = await spool.reserve(2, clock.now() + 60)
    await spool.append(ref, 0, pieces(b"x"), 2)
    with pytest.raises(SpoolFull):
        await spool.append(ref, 1, pieces(bytes(2_500_000)), 2_500_001)
    assert (await spool.extent(ref)).size_bytes == 1
    assert (await spool.append(ref, 1, pieces(bytes(500_000)), 500_001)).complete
    assert spool.usage().reserved_bytes == records.sealed_size(500_001)


async def test_room_that_is_promised_counts_as_taken_on_the_disk(tiny_disk: Path, keys: Path) -> None:
    spool = Spool(tiny_disk / "s", keys, 1 << 30)
    free = shutil.disk_usage(tiny_disk).free
    await spool.reserve(free // 4, clock.now() + 60)
    await spool.reserve(free // 4, clock.now() + 60)
    with pytest.raises(SpoolFull):
        await spool.reserve(free // 4 + 1000, clock.now() + 60)


def test_a_tag_that_is_not_ours_makes_no_folder_ours(tmp_path: Path) -> None:
    ram_dir, foreign = tmp_path / "ram", tmp_path / "target"
    foreign.mkdir()
    (foreign / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# made by a build tool\n")
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(CommandError):
        boot_id.wipe_if_new(ram_dir, foreign)
    assert (foreign / "thesis.txt").read_text() == "years of work"
