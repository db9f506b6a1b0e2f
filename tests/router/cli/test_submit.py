"""`router submit` with a scripted backend: the master is fetched, or the command ends in one line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from mastering.contract import OutputFormat
from router.cli import submit as submit_module
from router.cli.submit import submit, wanted
from router.core.command_error import CommandError
from router.spool.records import RECORD_BYTES
from router.store.state import JobState
from router.tiers.fake import FakeBackend, Hang
from router.tiers.port import Accepted
from tests.served import Served, served
from tests.services import FACTS, MASTER, SONG, eventually, mastering, probe_of, until

OPTIONS = wanted("master", {"target": "streaming", "style": "neutral"}, ["amount_percent=60"], ["wav24"])


async def send(
    router: Served, song: Path, output: Path | None = None, *, as_json: bool = False, keep: bool = False
) -> None:
    url = f"http://127.0.0.1:{router.port}"
    await asyncio.to_thread(submit, url, song, output, OPTIONS, as_json=as_json, keep=keep)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(SONG)
    return path


async def test_the_master_lies_beside_the_song_and_nothing_stays_on_the_router(
    tmp_path: Path, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        await send(router, song)
        assert (tmp_path / "song (master).wav").read_bytes() == MASTER
        assert router.services.spool.usage().blobs == 0
        said = capsys.readouterr()
        assert "-14.0 LUFS" in said.err


async def test_each_of_several_formats_has_a_file_of_its_own(tmp_path: Path, song: Path) -> None:
    formats = (OutputFormat.WAV24, OutputFormat.FLAC, OutputFormat.WAV16)
    async with served(tmp_path, [FakeBackend("a", [mastering(MASTER, *formats)])]) as router:
        url = f"http://127.0.0.1:{router.port}"
        asked = wanted("master", {}, None, [form.value for form in formats])
        await asyncio.to_thread(submit, url, song, tmp_path / "out.wav", asked, as_json=False, keep=False)
        for name in ("out wav24.wav", "out.flac", "out wav16.wav"):
            assert (tmp_path / name).read_bytes() == MASTER
        assert router.services.spool.usage().blobs == 0


def test_an_option_is_json_or_else_text_and_wants_a_name() -> None:
    asked = wanted("levels", {}, ["window_s=0.5", "mode=loud", 'names=["a"]'], ["json"])
    assert asked == {
        "kind": "levels",
        "options": {"window_s": 0.5, "mode": "loud", "names": ["a"]},
        "outputs": ["json"],
    }
    with pytest.raises(CommandError, match="NAME=VALUE") as command_error:
        wanted("levels", {}, ["window_s"], None)
    assert command_error.value.exit_code == 2


async def test_an_option_that_the_kind_does_not_take_is_said_by_the_router(tmp_path: Path, song: Path) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        asked = wanted("master", {}, ["windows=1"], None)
        url = f"http://127.0.0.1:{router.port}"
        with pytest.raises(CommandError, match="windows: Extra inputs") as command_error:
            await asyncio.to_thread(submit, url, song, None, asked, as_json=False, keep=False)
        assert command_error.value.exit_code == 3


async def test_the_finished_job_can_be_had_as_json_and_left_on_the_router(
    tmp_path: Path, song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        capsys.readouterr()
        await send(router, song, tmp_path / "out.wav", as_json=True, keep=True)
        said = capsys.readouterr().out
        job = json.loads(said[said.index("{\n") :])
        assert (job["state"], job["report"]["after"]["integrated_lufs"]) == ("mastered", -14.0)
        assert router.services.spool.usage().blobs == 1


async def test_a_song_that_is_refused_is_a_complaint_and_leaves_no_file(tmp_path: Path, song: Path) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        probe_of(router.services).facts = FACTS.model_copy(update={"duration_s": 1e6})
        with pytest.raises(CommandError, match="Split it") as command_error:
            await send(router, song)
        assert command_error.value.exit_code == 3
        assert not (tmp_path / "song (master).wav").exists()


async def test_a_job_that_the_router_forgot_ends_the_wait(tmp_path: Path, song: Path) -> None:
    async with served(tmp_path, [FakeBackend("a", [[Accepted("scripted"), Hang()]])]) as router:
        sending = asyncio.create_task(send(router, song))
        found: list[str] = []

        async def made() -> bool:
            found.extend([job.id async for job, _ in router.services.jobs.scan()])
            return bool(found)

        await eventually(made)
        await until(router.services, found[0], JobState.RUNNING)
        await router.services.jobs.forget(found[0])
        await router.services.events.publish(found[0])
        with pytest.raises(CommandError, match="no such job"):
            async with asyncio.timeout(20):
                await sending


@pytest.mark.parametrize("how", ["the same path", "another path", "a symlink", "a hard link"])
async def test_an_output_that_is_the_song_itself_is_refused_before_a_byte_is_sent(
    tmp_path: Path, song: Path, how: str
) -> None:
    output = tmp_path / "out.wav"
    match how:
        case "the same path":
            output = song
        case "another path":
            output = tmp_path / "." / "x" / ".." / song.name
            (tmp_path / "x").mkdir()
        case "a symlink":
            output.symlink_to(song)
        case "a hard link":
            output.hardlink_to(song)
    backend = FakeBackend("a", [mastering()])
    async with served(tmp_path, [backend]) as router:
        with pytest.raises(CommandError, match="is the song itself") as command_error:
            await send(router, song, output)
        assert command_error.value.exit_code == 2
        assert await asyncio.to_thread(song.read_bytes) == SONG
        assert backend.runs == []
        assert router.services.spool.usage().blobs == 0


PATHS_THAT_CAN_NOT_BE = {
    "no such folder": ("no such folder/out.wav", "there is no folder"),
    "a folder": ("", "is a folder"),
    "an extension of no format": ("out.xyz", "says no format"),
    "a name for another format": ("out.flac", "is no name for wav24"),
    "a pipe": ("pipe", "pipe is no file: what breaks off on the way goes on from a file"),
    "a link to a pipe": ("link.wav", "link.wav is no file"),
    "too long a name": ("n" * 252 + ".wav", "[Ff]ile name too long"),
}


@pytest.mark.parametrize("name", PATHS_THAT_CAN_NOT_BE)
async def test_a_place_where_no_output_can_be_is_said_before_a_byte_is_sent(
    tmp_path: Path, song: Path, name: str
) -> None:
    where, says = PATHS_THAT_CAN_NOT_BE[name]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.wav").symlink_to("pipe")
    formats = ["wav24"] if name == "a name for another format" else None
    backend = FakeBackend("a", [mastering()])
    async with served(tmp_path, [backend]) as router:
        asked = wanted("master", {}, None, formats)
        url = f"http://127.0.0.1:{router.port}"
        with pytest.raises(CommandError, match=says) as command_error:
            await asyncio.to_thread(submit, url, song, tmp_path / where, asked, as_json=False, keep=False)
        assert command_error.value.exit_code == 2
        assert backend.runs == []
        assert router.services.spool.usage().blobs == 0


async def test_standard_streams_pipes_and_missing_songs_are_refused_each_for_its_reason(
    tmp_path: Path, song: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    said = {
        "-": "name one in place of a pipe",
        "pipe": "name one in place of a pipe",
        "absent": "no such file or directory",
        ".": "not a file that can be read.$",
    }
    for name, cause in said.items():
        given = Path(name) if name == "-" else tmp_path / name
        with pytest.raises(CommandError, match=cause):
            submit("http://127.0.0.1:9", given, None, OPTIONS, as_json=False, keep=False)
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        with pytest.raises(CommandError, match="- is no file: "):
            await send(router, song, Path("-"))


async def test_the_longest_names_are_written_links_are_followed_and_nobody_s_part_is_taken(
    tmp_path: Path, song: Path
) -> None:
    longest = tmp_path / ("n" * 251 + ".wav")
    link = tmp_path / "link.wav"
    link.symlink_to(longest.name)
    mine = tmp_path / "link.wav.part"
    await asyncio.to_thread(mine.write_bytes, b"mine")
    async with served(tmp_path, [FakeBackend("a", [mastering(), mastering()])]) as router:
        await send(router, song, link)
        assert link.is_symlink()
        assert await asyncio.to_thread(longest.read_bytes) == MASTER
        assert await asyncio.to_thread(mine.read_bytes) == b"mine"
        await send(router, song, longest)
    assert [name for name in os.listdir(tmp_path) if name.endswith(".part")] == [mine.name]  # noqa: PTH208


@pytest.mark.parametrize(("name", "form"), [("out.mp3", OutputFormat.MP3), ("OUT.FLAC", OutputFormat.FLAC)])
async def test_the_format_follows_the_name_of_the_file(
    tmp_path: Path, song: Path, name: str, form: OutputFormat
) -> None:
    async with served(tmp_path, [FakeBackend("a", [mastering(MASTER, form)])]) as router:
        url = f"http://127.0.0.1:{router.port}"
        asked = wanted("master", {}, None, None)
        await asyncio.to_thread(submit, url, song, tmp_path / name, asked, as_json=False, keep=False)
        assert (tmp_path / name).read_bytes() == MASTER


@pytest.mark.parametrize("broken", ["PUT", "GET", "download"])
async def test_a_connection_that_stays_broken_leaves_the_job_and_says_how_to_go_on(
    tmp_path: Path, song: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit_module, "_TRIES", 2)
    await asyncio.to_thread(song.write_bytes, bytes(20 * RECORD_BYTES))
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        with breaking_proxy(f"http://127.0.0.1:{router.port}") as (url, proxy):
            proxy.breaks = [broken] * 50
            with pytest.raises(CommandError, match="Nothing is lost for") as command_error:
                await asyncio.to_thread(submit, url, song, None, OPTIONS, as_json=False, keep=False)
            assert command_error.value.exit_code == 4
            proxy.breaks = []
            (job_id,) = [job.id async for job, _ in router.services.jobs.scan()]
            assert f"--resume {job_id}" in str(command_error.value)
            await asyncio.to_thread(submit, url, song, None, OPTIONS, as_json=False, keep=False, resume=job_id)
        assert (tmp_path / "song (master).wav").read_bytes() == MASTER
        assert router.services.spool.usage().blobs == 0
        assert len([job async for job in router.services.jobs.scan()]) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal_that_ends_the_command_destroys_its_job(
    tmp_path: Path, song: Path, number: signal.Signals
) -> None:
    async with served(tmp_path, [FakeBackend("a", [[Accepted("scripted"), Hang()]])]) as router:
        command = [sys.executable, "-m", "router", "submit", str(song), "--url", f"http://127.0.0.1:{router.port}"]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)

        async def runs() -> bool:
            return any([job.state is JobState.RUNNING async for job, _ in router.services.jobs.scan()])

        await eventually(runs)
        process.send_signal(number)
        _, said = await process.communicate()
        assert process.returncode == (130 if number is signal.SIGINT else 128 + number)
        assert b"Traceback" not in said
        (job,) = [job async for job, _ in router.services.jobs.scan()]
        assert (job.state, job.ended_as) == (JobState.WIPED, JobState.CANCELLED)


class BreakingProxy:
    """Forwards requests to a router and breaks some of the connections, with half of a song or of a master through."""

    def __init__(self, upstream: str) -> None:
        self.http = httpx.Client(base_url=upstream, timeout=30, trust_env=False)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.breaks: list[str] = []
        """Kinds of request whose next one is cut: PUT and `download` halfway, other methods before their answer."""


@contextmanager
def breaking_proxy(upstream: str) -> Iterator[tuple[str, BreakingProxy]]:
    proxy = BreakingProxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {k.lower(): v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            proxy.seen.append((self.command, headers))
            kind = "download" if "/outputs/" in self.path else self.command
            kind = "options" if self.path == "/v1/options" else kind
            cut = kind in proxy.breaks
            if cut:
                proxy.breaks.remove(kind)
            if cut and self.command == "PUT":
                self.send_half(body, headers)
                self.close_connection = True
                return
            response = proxy.http.request(self.command, self.path, content=body, headers=headers)
            sent = response.content
            if cut and kind != "download":
                self.close_connection = True
                return
            self.send_response_only(response.status_code)
            for name, value in response.headers.items():
                if name not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("content-length", response.headers.get("content-length", str(len(sent))))
            self.end_headers()
            self.wfile.write(sent[: len(sent) // 2] if cut else sent)
            self.close_connection = self.close_connection or cut

        def send_half(self, body: bytes, headers: dict[str, str]) -> None:
            """As a connection that breaks in the middle: the router gets the first half, the client no answer."""
            half = len(body) // 2

            def pieces() -> Iterator[bytes]:
                yield body[:half]
                raise ConnectionError

            with pytest.raises(ConnectionError):
                proxy.http.put(self.path, content=pieces(), headers=headers)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        proxy.http.close()


@pytest.mark.parametrize("broken", ["options", "POST", "PUT", "GET", "download", "DELETE"])
async def test_a_connection_that_breaks_is_made_anew_and_what_has_arrived_is_kept(
    tmp_path: Path, song: Path, broken: str
) -> None:
    await asyncio.to_thread(song.write_bytes, bytes(20 * RECORD_BYTES))
    async with served(tmp_path, [FakeBackend("a", [mastering()])]) as router:
        with breaking_proxy(f"http://127.0.0.1:{router.port}") as (url, proxy):
            proxy.breaks = [broken]
            await asyncio.to_thread(submit, url, song, None, OPTIONS, as_json=False, keep=False)
        assert proxy.breaks == []
        assert (tmp_path / "song (master).wav").read_bytes() == MASTER
        assert router.services.spool.usage().blobs == 0
        assert len({headers["idempotency-key"] for method, headers in proxy.seen if method == "POST"}) == 1
        assert len([job async for job in router.services.jobs.scan()]) == 1
        offsets = [int(headers["upload-offset"]) for method, headers in proxy.seen if method == "PUT"]
        assert offsets[0] == 0
        assert all(offset >= 9 * RECORD_BYTES for offset in offsets[1:]), (
            "what whole records had come is not sent again"
        )
        assert len(offsets) == (2 if broken == "PUT" else 1)
        ranges = [headers["range"] for _, headers in proxy.seen if "range" in headers]
        assert ranges == ([f"bytes={len(MASTER) // 2}-"] if broken == "download" else [])


async def test_a_router_that_was_never_there_is_said_at_once(song: Path) -> None:
    with pytest.raises(CommandError, match="Is the router running") as command_error:
        submit("http://127.0.0.1:9", song, None, OPTIONS, as_json=False, keep=False)
    assert command_error.value.exit_code == 4


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written anew"])
async def test_a_song_that_changes_while_it_is_sent_is_said_so_and_never_mastered(
    change: str, tmp_path: Path, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, changes = (
        submit_module._chunks,
        {
            "grows": lambda: song.write_bytes(SONG + b"more"),
            "shrinks": lambda: os.truncate(song, len(SONG) // 2),
            "is written anew": lambda: song.write_bytes(bytes(len(SONG))),
        },
    )

    def after_the_first(*arguments: Any) -> Iterator[bytes]:
        for number, chunk in enumerate(sent(*arguments)):
            if number == 0:
                changes[change]()
            yield chunk

    monkeypatch.setattr(submit_module, "_CHUNK_BYTES", len(SONG) // 8)
    monkeypatch.setattr(submit_module, "_TRIES", 3)
    monkeypatch.setattr(submit_module, "_chunks", after_the_first)
    backend = FakeBackend("a", [mastering()])
    async with served(tmp_path, [backend]) as router:
        with pytest.raises(CommandError, match="the song changed while it was sent") as told:
            await send(router, song)
        assert told.value.exit_code == 2
        assert router.services.spool.usage().blobs == 0
    assert [name for name in os.listdir(tmp_path) if name.startswith("song")] == ["song.wav"]  # noqa: PTH208
