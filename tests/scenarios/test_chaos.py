"""Chaos: thirty jobs while everything breaks; that the schedule follows its seed, and that the counts can be above 0.

`make soak-chaos` sends a thousand.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.chaos import faults, songs
from ops.chaos.client import JobHistory
from ops.chaos.proxy import MARKER, FaultProxy, Record, Strike, Transfer, strike_next
from ops.chaos.schedule import (
    BACKENDS,
    HOSTILE_JOBS,
    QUIET_JOBS,
    ROUND_JOBS,
    SPACES,
    WORKERS,
    FaultKind,
    PlannedFault,
    PlannedJob,
    PlannedSong,
    planned_round,
)
from ops.chaos.verdict import AT_ONCE_S, RETURN_S, VICTIM_FACTOR, VICTIM_S, Outage, Verdict, failovers_ms, percentile

SEED = 9
ZEROS = {"lost": 0, "delivered_twice": 0, "avoidable_errors": 0, "victims": 0}
SONG = PlannedSong(0, 3.0, 2.5, "wav16")
ACCEPTED_S, ENDED_S = 100.0, 103.0


@pytest.mark.timeout(600)
def test_30_jobs_of_chaos_lose_nothing_and_harm_nobody() -> None:
    command = [sys.executable, "-m", "ops.chaos", "--jobs", "30", "--seed", str(SEED), "--json"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=590)
    found = json.loads(ended.stdout or "{}")
    assert {name: found.get(name) for name in ZEROS} == ZEROS, ended.stderr[-4000:]
    assert (ended.returncode, found["jobs"]) == (0, 30)
    # What shows that there was something to survive: most kinds struck, and songs were struck and sent again.
    assert len(found["faults"]) >= 8
    assert found["failover_ms_p99"] is not None


@pytest.mark.parametrize(
    "options",
    [["--jobs", "0"], ["--jobs", "3", "--first", "7"], ["--jobs", "1", "--minutes", "61"], ["--jobs", "many"]],
)
def test_wrong_usage_ends_with_2_and_a_line(options: list[str]) -> None:
    command = [sys.executable, "-m", "ops.chaos", "--seed", "1", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "error: " in ended.stderr.splitlines()[-1]


def test_the_same_seed_gives_the_same_schedule_and_another_one_another() -> None:
    kinds = songs.hostile_kinds()
    assert planned_round(7, 3, kinds) == planned_round(7, 3, kinds)
    assert planned_round(7, 3, kinds) != planned_round(8, 3, kinds)
    assert planned_round(7, 3, kinds) != planned_round(7, 4, kinds)


@pytest.mark.parametrize("number", range(40))
def test_a_round_has_every_kind_of_fault_and_hostile_songs_where_nothing_breaks(number: int) -> None:
    plan = planned_round(SEED, number, songs.hostile_kinds())
    jobs = (*plan.quiet, *plan.storm)
    assert [job.number for job in jobs] == list(range(number * ROUND_JOBS, (number + 1) * ROUND_JOBS))
    assert len(plan.quiet) == QUIET_JOBS
    assert sum(job.song is None for job in plan.quiet) == HOSTILE_JOBS
    assert all(job.song is not None for job in plan.storm)
    assert {fault.kind for fault in plan.faults} == set(FaultKind)
    assert {fault.after_job for fault in plan.faults} <= {job.number for job in plan.storm}
    assert {fault.target for fault in plan.faults} <= {*BACKENDS, "machine"}
    assert sum(fault.target in SPACES for fault in plan.faults) == 1


def test_many_rounds_send_every_hostile_kind() -> None:
    kinds = songs.hostile_kinds()
    sent = {job.hostile for number in range(34) for job in planned_round(SEED, number, kinds).quiet if job.hostile}
    assert sent == set(kinds)


@pytest.mark.parametrize("file_format", ["wav16", "wav24", "flac", "mp3", "ogg"])
def test_a_song_carries_its_number_early_and_only_its_own_master_passes_for_one(file_format: str) -> None:
    plan = PlannedSong(41, 12.3, 3.2, file_format)
    song = songs.honest_song(plan)
    assert 0 <= song.find(MARKER % 41) < 1024
    assert songs.why_not_its_master(plan, song) is None
    assert songs.why_not_its_master(plan._replace(start_s=19.0), song) is not None
    assert songs.why_not_its_master(plan._replace(seconds=3.5), song) is not None
    assert songs.why_not_its_master(plan, song[:60]) is not None


def test_the_inflating_frame_is_small_and_says_what_it_inflates_to() -> None:
    for kind in ("id3_inflates", "wav_id3_inflates"):
        assert len(songs.HOSTILE[kind]()) < 3_000_000


def history(**changes: Any) -> JobHistory:
    """A job that was mastered as it should be, with these changes."""
    plan = changes.pop("plan", PlannedJob(0, changes.pop("song", SONG)))
    found = JobHistory(plan, 99.0, ACCEPTED_S, ENDED_S, state="delivered", ids={"a"}, master="sound")
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def counted(*histories: JobHistory, record: Record | None = None, outages: tuple[Outage, ...] = ()) -> Verdict:
    verdict = Verdict()
    verdict.add(histories, record or Record(), outages)
    return verdict


def zeros_of(verdict: Verdict) -> dict[str, int]:
    return {name: getattr(verdict, name) for name in ZEROS}


def test_a_job_that_was_mastered_counts_as_nothing_but_a_job() -> None:
    verdict = counted(history())
    assert zeros_of(verdict) == ZEROS
    assert verdict.jobs == 1
    assert verdict.is_clean


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "running"},
        {"state": "gone"},
        {"state": "mastered", "master": "it could not be fetched"},
        {"state": "mastered", "master": "it is another song's: a correlation of 0.02"},
    ],
)
def test_an_accepted_job_without_an_end_or_a_sound_master_is_lost(changes: dict[str, Any]) -> None:
    assert zeros_of(counted(history(**changes))) == {**ZEROS, "lost": 1}


def test_a_job_that_was_never_accepted_is_not_lost_but_an_error() -> None:
    refused = history(state="refused", accepted_s=None, master="")
    assert zeros_of(counted(refused)) == {**ZEROS, "avoidable_errors": 1}


def sent(backend: str, began_s: float, ended_s: float | None) -> Transfer:
    return Transfer(SONG.number, backend, began_s, ended_s, ended_s)


@pytest.mark.parametrize(
    ("changes", "transfers"),
    [
        ({"ids": {"a", "b"}}, []),
        ({"has_two_masters": True}, []),
        ({}, [sent("worker-1", 100.0, 102.0), sent("worker-2", 101.0, 102.5)]),
        ({}, [sent("worker-1", 100.0, None), sent("gpu-space", 101.0, 102.5)]),
    ],
)
def test_two_jobs_two_masters_or_two_tiers_at_once_are_delivered_twice(
    changes: dict[str, Any], transfers: list[Transfer]
) -> None:
    found = counted(history(**changes), record=Record(transfers))
    assert zeros_of(found) == {**ZEROS, "delivered_twice": 1}


def test_one_attempt_after_another_is_no_second_delivery_nor_is_a_song_of_two_jobs() -> None:
    after = [sent("worker-1", 100.0, 101.0), sent("worker-2", 101.0 - AT_ONCE_S / 2, 102.5)]
    assert counted(history(), record=Record(after)).is_clean
    at_once = [sent("worker-1", 100.0, 102.0), sent("worker-2", 100.5, 102.5)]
    assert counted(history(), history(plan=PlannedJob(1, SONG)), record=Record(at_once)).is_clean


FAILED = {"state": "failed", "code": "attempts_exhausted", "master": ""}


def down(*backends: str, to_s: float = ENDED_S + 1, from_s: float = ACCEPTED_S) -> Outage:
    return Outage(FaultKind.SIGKILL, frozenset(backends), from_s, to_s)


@pytest.mark.parametrize(
    ("managed_only", "outages", "is_avoidable"),
    [
        (False, (), True),
        (False, (down(*WORKERS),), True),
        (False, (down(*BACKENDS),), False),
        (False, (down(*WORKERS), down(*SPACES, to_s=ENDED_S - RETURN_S + 1)), False),
        (False, (down(*WORKERS), down(*SPACES, to_s=ENDED_S - RETURN_S - 1, from_s=0.0)), True),
        (True, (down(*WORKERS),), False),
        (True, (down(*WORKERS[:2]),), True),
        (False, (Outage(FaultKind.FULL_DISK, frozenset(), 0.0, 200.0),), True),
    ],
)
def test_an_error_is_avoidable_where_a_backend_was_untouched(
    managed_only: bool, outages: tuple[Outage, ...], is_avoidable: bool
) -> None:
    failed = history(plan=PlannedJob(0, SONG, managed_only=managed_only), **FAILED)
    assert zeros_of(counted(failed, outages=outages)) == {**ZEROS, "avoidable_errors": int(is_avoidable)}


def test_a_job_that_chaos_struck_twice_is_no_avoidable_error_and_one_struck_once_is() -> None:
    both = [sent("worker-1", 100.0, 101.0), sent("worker-2", 101.0, 102.0)]
    strikes = [Strike(0, "worker-1", 100.5, FaultKind.RESET), Strike(0, "worker-2", 101.5, FaultKind.SIGKILL)]
    twice = counted(history(**FAILED), record=Record(both, strikes))
    assert (twice.avoidable_errors, twice.struck_twice, twice.failed) == (0, 1, 1)
    once = counted(
        history(**FAILED), record=Record(both, [strikes[0], Strike(0, "worker-1", 100.6, FaultKind.SIGKILL)])
    )
    assert (once.avoidable_errors, once.struck_twice) == (1, 0)
    assert "1.50 reset at worker-1" in once.evidence[0]
    by_router = counted(
        history(**FAILED), record=Record(both, [strikes[0], Strike(0, "worker-2", 101.5, FaultKind.ROUTER_KILL)])
    )
    assert by_router.avoidable_errors == 1


@pytest.mark.parametrize(
    "changes", [FAILED, {"ended_s": 99.0 + VICTIM_S + VICTIM_FACTOR * SONG.seconds + 1}], ids=["failed", "slow"]
)
def test_an_honest_job_beside_a_hostile_one_is_a_victim_where_nothing_else_explains_it(changes: dict[str, Any]) -> None:
    hostile = history(plan=PlannedJob(1, None, "id3_inflates"), state="failed")
    assert zeros_of(counted(history(**changes), hostile)) == {**ZEROS, "victims": 1}
    touched = counted(history(**changes), hostile, outages=(down("cpu-space"),))
    assert touched.victims == 0
    elsewhen = history(plan=PlannedJob(1, None, "id3_inflates"), state="failed", began_s=10.0, ended_s=20.0)
    assert counted(history(**changes), elsewhen).victims == 0


def test_a_hostile_job_may_fail() -> None:
    assert counted(history(plan=PlannedJob(0, None, "random_bytes"), **FAILED)).is_clean


def test_a_failover_lasts_from_the_fault_to_the_next_marker() -> None:
    record = Record(
        [sent("worker-1", 100.0, 101.0), sent("worker-2", 101.25, 102.0)],
        [Strike(0, "worker-1", 101.0, FaultKind.RESET), Strike(0, "worker-2", 101.9, FaultKind.RESET)],
    )
    assert failovers_ms(record) == [(FaultKind.RESET, 250.0)]
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([], 0.99) is None


def test_of_killed_processes_nothing_of_their_clocks_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "SHM", tmp_path)
    ended = subprocess.Popen(["true"])
    ended.wait()
    clocks = faults.Clocks(tmp_path)
    names = [f"{start}_{pid}" for start in ("faketime_shm", "sem.faketime_sem") for pid in (ended.pid, os.getpid())]
    for name in (*names, "another"):
        (tmp_path / name).touch()
    os.utime(tmp_path / names[0], (0, 0))  # of somebody else's run
    clocks.remove_remains()
    assert {path.name for path in tmp_path.iterdir()} == {names[0], names[1], names[3], "another"}


REQUEST = b"POST /v1/renders HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + MARKER % 5 + bytes(5000) + b"0\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"m" * 5000 + b"0\r\n\r\n"


@asynccontextmanager
async def proxied(record: Record) -> AsyncIterator[tuple[FaultProxy, Callable[[], Any]]]:
    """A proxy before a backend that reads the request and sends RESPONSE; and what asks it once."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = b""
        while not received.endswith(b"0\r\n\r\n") and (data := await reader.read(65_536)):
            received += data
        writer.write(RESPONSE if received else b"")
        await writer.drain()
        writer.close()

    backend = await asyncio.start_server(respond, "127.0.0.1", 0)
    proxy = FaultProxy("worker-1", f"http://127.0.0.1:{backend.sockets[0].getsockname()[1]}", record)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(REQUEST)
            return await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.close()

    async with proxy.listening(listening):
        yield proxy, ask
    backend.close()


def fault(kind: FaultKind, **changes: Any) -> PlannedFault:
    return PlannedFault(kind, "worker-1", 0, 0.0, 0.3, **{"at_byte": 100, **changes})


async def test_the_proxy_passes_everything_on_and_records_the_song() -> None:
    async with proxied(record := Record()) as (_, ask):
        assert await ask() == RESPONSE
    [transfer] = record.transfers
    assert (transfer.song, transfer.backend) == (5, "worker-1")
    assert transfer.began_s <= (transfer.ended_s or 0) == transfer.released_s
    assert record.songs_at("worker-1") == set()


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        (fault(FaultKind.TRUNCATED), RESPONSE[:100]),
        (fault(FaultKind.SLOW_DRIP), RESPONSE),
        (fault(FaultKind.HTML_200), b"HTTP/1.1 200 OK\r\ncontent-type: text/html"),
        (fault(FaultKind.RESET), None),
        (fault(FaultKind.RESET, on_upload=True), None),
    ],
)
async def test_the_proxy_breaks_the_next_song_as_planned_and_only_that(
    planned: PlannedFault, expected: bytes | None
) -> None:
    async with proxied(record := Record()) as (proxy, ask):
        striking = asyncio.create_task(strike_next([proxy], planned, 5))
        await asyncio.sleep(0)
        if expected is None:
            with pytest.raises(ConnectionResetError):
                await ask()
        else:
            assert (await ask())[: len(expected)] == expected
        assert record.strikes == [await striking]
        assert (record.strikes[0].song, record.strikes[0].kind) == (5, planned.kind)
        assert await strike_next([proxy], planned, 0.05) is None
        assert await ask() == RESPONSE  # not struck: disarmed


async def test_a_song_that_was_struck_is_spared() -> None:
    record = Record(strikes=[Strike(5, "worker-2", 0.0, FaultKind.SIGKILL)])
    async with proxied(record) as (proxy, ask):
        striking = asyncio.create_task(strike_next([proxy], fault(FaultKind.RESET), 0.5))
        await asyncio.sleep(0)
        assert await ask() == RESPONSE
        assert await striking is None


async def test_a_black_hole_says_nothing_and_breaks_what_it_held_in_the_end() -> None:
    async with proxied(record := Record()) as (proxy, ask):
        hole = asyncio.create_task(proxy.black_hole(0.4))
        await asyncio.sleep(0)
        asked = asyncio.create_task(ask())
        await asyncio.sleep(0.2)
        assert not asked.done()
        with pytest.raises(ConnectionResetError):
            await asked
        assert [(strike.song, strike.kind) for strike in record.strikes] == [(5, FaultKind.BLACK_HOLE)]
        await hole
        assert await ask() == RESPONSE
