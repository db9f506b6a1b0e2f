"""P21 to P28, P22 to P24 above all: a line holds what its schema names and nothing else, whatever is said to it."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mastering.audio.codecs import DEMUXERS, LIBAV_CODECS, SNDFILE_CODECS
from mastering.audio.container import container_of
from mastering.contract import FaultCode
from mastering.runtime.event_log import DayFiles, EventLog, capture_process_output
from mastering.worker import event_log as worker_event_log
from router.app import local_workers, server
from router.core import errors, event_log
from router.core.event_log import EVENTS, LogPseudonyms
from router.tiers.fake import FakeBackend
from router.tiers.policy.backend_state import BackendState
from router.tiers.policy.faults import FaultClass
from router.tiers.policy.tier import TIER_ORDER
from tests.served import served
from tests.services import SONG, mastering

DAY_S = 86_400
CANARY = "canary-7f3a"

Lines = list[dict[str, Any]]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
fields_of_some_event = st.sampled_from(sorted({name for fields in EVENTS.values() for name in fields} | {"self"}))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """The lines that are logged from now on."""
    lines: Lines = []
    monkeypatch.setattr(event_log.book, "write", lambda line: lines.append(json.loads(line)))
    return lines


def checked(line: dict[str, Any]) -> dict[str, Any]:
    """The line, if its event is on the list and so is every field of it, with what it may hold."""
    kinds = event_log.book.events[line["event"]]
    assert set(line) - {"minute", "event"} <= set(kinds)
    assert all(kinds[name].admits(value) for name, value in line.items() if name in kinds)
    return line


@given(event=st.sampled_from(sorted(EVENTS)) | st.text(), fields=st.dictionaries(fields_of_some_event, anything))
def test_p24_whatever_is_said_a_line_is_a_subset_of_its_schema(event: str, fields: dict[str, Any]) -> None:
    lines: list[str] = []
    EventLog(EVENTS, lines.append).log(event, **fields)
    for line in lines:
        assert "\n" not in line
        read = checked(json.loads(line))
        assert {name: read[name] for name in read if name in fields} == {
            name: list(value) if isinstance(value, tuple) else value for name, value in fields.items() if name in read
        }


@given(fields=st.dictionaries(st.text(), st.text(min_size=1), min_size=1))
def test_p24_no_free_text_of_any_field_of_a_render_record_is_written(fields: dict[str, str]) -> None:
    lines: list[str] = []
    book = EventLog(EVENTS, lines.append)
    wild = {name: f"{CANARY} {value}" for name, value in fields.items()} | dict.fromkeys(EVENTS["render"], CANARY)
    book.log("render", **wild)
    assert lines == [lines[0]]
    assert CANARY not in lines[0]
    assert book.dropped == len(wild)


def test_p23_an_unknown_event_and_an_unknown_field_are_dropped_and_counted() -> None:
    lines: list[str] = []
    book = EventLog(EVENTS, lines.append)
    book.log("visit", who="somebody")
    book.log("stopped", why="somebody")
    assert [json.loads(line)["event"] for line in lines] == ["stopped"]
    assert book.dropped == 2


def test_p24_the_words_of_the_log_are_those_of_the_tables() -> None:
    assert set(TIER_ORDER) == event_log.TIERS.words
    assert {fault.value for fault in FaultClass} == event_log.FAULTS.words
    assert {state.value for state in BackendState} == event_log.STATES.words
    assert {"mastered", "expired", "cancelled", *errors.TABLE} == event_log.OUTCOMES.words
    assert set(SNDFILE_CODECS.values()) | set(LIBAV_CODECS.values()) <= event_log.CODECS.words
    assert set(DEMUXERS) == event_log.CONTAINERS.words
    assert container_of(b"RIFF\0\0\0\0WAVE") in event_log.CONTAINERS.words
    assert {"done", *FaultCode} <= worker_event_log.EVENTS["render_ended"]["outcome"].words  # type: ignore[attr-defined]


async def test_p23_a_request_leaves_template_method_status_time_and_a_rough_size(tmp_path: Path, said: Lines) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        job = await router.send()
        await router.over(job["id"])
        await router.http.get(f"/v1/jobs/{job['id']}/outputs/wav24?{CANARY}=1", headers={"user-agent": CANARY})
        await router.http.get(f"/{CANARY}")
        await router.http.request("PROPFIND", "/")
        await router.http.post("/v1/jobs", headers={"origin": f"https://{CANARY}.example"})
    requests = [checked(line) for line in said if line["event"] == "http"]
    assert {line["route"] for line in requests} >= {"/v1/jobs", "/v1/jobs/{job_id}/audio", "none"}
    assert {(line["route"], line["status"]) for line in requests} >= {("none", 404), ("none", 403)}
    assert {line["method"] for line in requests} == {"GET", "POST", "PUT", "other"}
    for line in requests:
        assert set(line) == {"minute", "event", "route", "method", "status", "ms", "size"}
        assert len(line["minute"]) == len("2026-01-01T00:00Z")
    assert not [word for word in (CANARY, job["id"], "127.0.0.1") if word in json.dumps(said)]


async def test_p23_the_rough_size_counts_all_of_a_song(tmp_path: Path, said: Lines) -> None:
    """Most of it never passes the access log: it goes from the connection into the spool."""
    async with served(tmp_path) as router:
        await router.send(SONG * 150)
    assert [line["size"] for line in said if line["event"] == "http" and line["method"] == "PUT"] == ["<=4MiB"]


async def test_p24_each_job_that_ends_leaves_one_render_record(tmp_path: Path, said: Lines) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering(), mastering()])]) as router:
        mastered = await router.send(target="cd", loudness_lufs=-12.5, outputs=["wav24"])
        await router.over(mastered["id"])
        await router.http.delete(f"/v1/jobs/{mastered['id']}")
        bad = await router.create()
        await router.http.put(f"/v1/jobs/{bad['id']}/audio", content=b"fault:undecodable")
        dropped = await router.create()
        await router.http.delete(f"/v1/jobs/{dropped['id']}")
    records = [checked(line) for line in said if line["event"] == "render"]
    assert [line["outcome"] for line in records] == ["mastered", "undecodable", "cancelled"]
    assert len({line["account"] for line in records}) == 1
    wanted = {
        "kind": "master", "container": "wav", "codec": "pcm_16", "duration_s": 10, "rate_hz": 44_100, "channels": 2,
        "size": "<=1MiB",
        "target": "cd", "style": "neutral", "amount_percent": 60.0, "loudness_lufs": -12.5, "outputs": ["wav24"],
        "keep_tags": True, "effort": "quick", "references": 0, "managed_only": False, "tier": "managed", "attempts": 1,
    }  # fmt: skip
    assert {name: records[0][name] for name in wanted} == wanted
    assert set(records[0]) == {*wanted, "minute", "event", "account", "queue_s", "render_s", "outcome"}


def test_p27_a_line_is_gone_after_seven_days_and_an_hour(tmp_path: Path) -> None:
    now = 20_000 * DAY_S + 13 * 3600.0

    def clock() -> float:
        return now

    files = DayFiles(tmp_path / "log", "router", event_log.DAYS_KEPT, clock)
    EventLog(EVENTS, files, clock).log("stopped")
    (written,) = (tmp_path / "log").iterdir()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert stat.S_IMODE(written.parent.stat().st_mode) == 0o700
    now += 6 * DAY_S
    assert files.sweep() == 0
    now += DAY_S + 3600
    EventLog(EVENTS, files, clock).log("stopped")
    assert files.sweep() == 1
    assert not written.exists()
    assert len(list((tmp_path / "log").iterdir())) == 1


async def test_p27_what_is_too_old_goes_at_the_start_and_again_every_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_REMOVE_LOGS_EVERY_S", 0.01)
    old = tmp_path / "router-2020-01-01.jsonl"
    old.write_text("{}\n")
    monkeypatch.setattr(event_log, "capture_process_output", lambda book: None)
    monkeypatch.setattr(event_log.book, "write", None)
    sweep = event_log.configure(tmp_path)
    assert not old.exists()
    old.write_text("{}\n")
    sweeping = asyncio.create_task(server._remove_logs_for_ever(sweep))
    async with asyncio.timeout(20):
        while old.exists():  # noqa: ASYNC110 — bounded
            await asyncio.sleep(0.01)
    sweeping.cancel()


def test_p27_an_account_is_called_otherwise_every_day_after_every_start_and_after_an_erasure() -> None:
    now = 20_000.0 * DAY_S
    names = LogPseudonyms(lambda: now)
    first = names.of("account")
    now += DAY_S - 1
    assert names.of("account") == first
    assert names.of("another") != first
    names.forget()
    second = names.of("account")
    now += 1
    assert len({first, second, names.of("account"), LogPseudonyms(lambda: now).of("account")}) == 4
    assert EVENTS["render"]["account"].admits(first)


@pytest.fixture
def contained() -> Iterator[tuple[EventLog, list[str]]]:
    lines: list[str] = []
    book = EventLog(EVENTS, lines.append)
    undo = capture_process_output(book)
    yield book, lines
    undo()


def _by_a_handler_of_its_own() -> None:
    logger = logging.getLogger("httpx.own")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.warning("GET %s", CANARY)
    logger.info(CANARY)


def _with_an_exception() -> None:
    try:
        int(CANARY)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in %s", CANARY)


@pytest.mark.parametrize("say", [_by_a_handler_of_its_own, _with_an_exception])
def test_p22_records_of_libraries_are_never_formatted(
    contained: tuple[EventLog, list[str]], capfd: pytest.CaptureFixture[str], say: Callable[[], None]
) -> None:
    say()
    _, lines = contained
    assert capfd.readouterr() == ("", "")
    assert lines
    assert CANARY not in "".join(lines)


def test_p25_an_exception_is_its_type_and_its_place_in_the_code(contained: tuple[EventLog, list[str]]) -> None:
    _with_an_exception()
    _, lines = contained
    library, broken = map(json.loads, lines)
    assert (library["logger"], library["level"]) == ("uvicorn", "ERROR")
    assert broken["type"] == "ValueError"
    assert broken["at"].startswith(f"{__name__.rpartition('.')[2]}:") or broken["at"].startswith(f"{__name__}:")


@pytest.mark.parametrize(
    "trouble",
    [
        "raise ValueError('canary-7f3a')",
        "import threading; t = threading.Thread(target=lambda: int('canary-7f3a')); t.start(); t.join()",
        "import warnings; warnings.warn('canary-7f3a')",
        "x = type('X', (), {'__del__': lambda s: int('canary-7f3a')})(); del x",
        "import asyncio; asyncio.run(test_loop())",
        "import logging; logging.getLogger('x').warning('%d', 'canary-7f3a')",
    ],
    ids=["uncaught", "in a thread", "a warning", "in a finaliser", "in a task nobody awaited", "an ill-formed record"],
)
def test_p22_trouble_leaves_a_process_as_json_lines_and_no_other_way(trouble: str) -> None:
    script = f"""
import asyncio, gc, sys
from router.core import event_log
event_log.configure()
async def fails(): int('canary-7f3a')
async def test_loop():
    asyncio.get_running_loop().create_task(fails(), name='canary-7f3a')
    await asyncio.sleep(0); await asyncio.sleep(0)
    gc.collect()
{trouble}
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.stdout == ""
    lines = [checked(json.loads(line)) for line in ended.stderr.splitlines()]
    assert {line["event"] for line in lines} & {"broken", "warned", "library"}
    assert CANARY not in ended.stderr


def test_p22_the_same_trouble_again_and_again_fills_no_disk(contained: tuple[EventLog, list[str]]) -> None:
    book, lines = contained
    for _ in range(5000):
        _with_an_exception()
    assert len(lines) <= 100
    assert book.dropped >= 9900


def test_p26_a_full_disk_costs_lines_and_fails_nobody(tmp_path: Path) -> None:
    def full(_: str) -> None:
        raise OSError(28, "no space")

    book = EventLog(EVENTS, full)
    book.log("stopped")
    assert book.dropped == 1


async def test_p25_what_a_worker_of_ours_says_beside_its_events_is_dropped_and_counted(said: Lines) -> None:
    noise = (
        "import os, json; os.write(2, b'canary-7f3a in C\\n');"
        "print(json.dumps({'event': 'broken', 'type': 'OSError', 'at': 'soundfile:9', 'path': 'canary-7f3a'}));"
        "print(json.dumps({'event': 'canary-7f3a'})); print(json.dumps(['canary-7f3a']), end='')"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", noise, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    before = event_log.book.dropped
    await local_workers.relay_log(process)
    assert await process.wait() == 0
    assert [(line["event"], line.get("said"), line.get("type")) for line in said] == [
        ("own_worker", "broken", "OSError")
    ]
    assert CANARY not in json.dumps(said)
    assert event_log.book.dropped - before == 3
