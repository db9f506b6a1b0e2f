"""The managed worker over real HTTP, in real processes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import soundfile
import torch

import mastering
from mastering import fit
from mastering.contract import ENGINE_VERSION, Effort, FaultCode, OutputFormat, Settings
from mastering.protocol.frames import (
    PROTOCOL_VERSION,
    SLOT_HEADER,
    EndEvent,
    JobEvent,
    PartEvent,
    ProgressEvent,
    Seal,
    data_header,
    encode_event,
)
from mastering.worker import fork_server, served_kinds
from mastering.worker.child import RenderProgram
from tests.hostile_audio import noise, written
from tests.mastering import worker_engines
from tests.mastering.worker_engines import GATE
from tests.mastering.worker_process import FAKE, WorkerProcess, request_body, running_worker, until
from tests.processes import children, is_alive

TWO = Settings(outputs=(OutputFormat.WAV24, OutputFormat.FLAC))


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with running_worker() as worker:
        yield worker


@pytest.fixture
def hanging() -> Iterator[WorkerProcess]:
    with running_worker(f"{FAKE}:hang") as worker:
        yield worker


def begin_render(worker: WorkerProcess, body: bytes, length: int | None = None) -> socket.socket:
    """Send a request by hand, of `length` bytes by its header, and return its connection, the answer unread."""
    slot, url = worker.slot(), worker.client.base_url
    connection = socket.create_connection((url.host, url.port or 0), timeout=30)
    length = len(body) if length is None else length
    head = f"POST /v1/renders HTTP/1.1\r\nHost: w\r\n{SLOT_HEADER}: {slot}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    got = bytearray()
    while wanted not in got:
        piece = connection.recv(65_536)
        assert piece, f"closed before {wanted!r}"
        got += piece
    return bytes(got)


def test_a_plan_is_refined_inside_the_sandbox() -> None:
    # torch is imported only now, in a process that may write nothing and has no network.
    settings = Settings(style="punchy", effort=Effort.FIT)
    with running_worker("mastering.engine.pipeline:master") as worker:
        answer = worker.render(request_body(written(noise(6.0)), settings))
    assert "fit" in {event.stage for event in answer.events if isinstance(event, ProgressEvent)}
    (remark,) = (flag for flag in answer.report.report["flags"] if "refined" in flag.lower())
    assert f"iterations on {fit.torch_device_name()}" in remark or "comes within" in remark


def test_a_process_that_has_torch_loaded_still_finds_the_files_of_its_programs() -> None:
    # As on a GPU, where torch is loaded before the sandbox. `torch.classes` answers to every name, `__path__` too.
    assert "torch.classes" in sys.modules
    assert Path(torch.__file__).parent in fork_server.program_files()


def test_a_song_comes_back_mastered() -> None:
    with running_worker("mastering.engine.pipeline:master") as worker:
        answer = worker.render(request_body(written(noise(6.0)), TWO))
    assert answer.types[0] == "accepted"
    assert answer.types[-4:] == ["report", "part", "part", "end"]
    assert isinstance(answer.events[-1], EndEvent)
    assert abs((answer.report.report["after"]["integrated_lufs"] or 0) + 14) <= 0.2
    frames = {name: soundfile.info(io.BytesIO(data)).frames for name, data in answer.outputs.items()}
    assert frames == {"output/wav24": 6 * 44_100, "output/flac": 6 * 44_100}


def test_every_format_is_made_and_read_twice_within_the_sandbox_and_its_memory() -> None:
    with running_worker("mastering.engine.pipeline:master") as worker:
        answer = worker.render(request_body(written(noise(6.0)), Settings(outputs=tuple(OutputFormat))))
    assert isinstance(answer.events[-1], EndEvent)
    assert set(answer.outputs) == {f"output/{form}" for form in OutputFormat}
    checks = answer.report.report["checks"]
    assert {check["output"] for check in checks} == {form.value for form in OutputFormat}
    assert all(check["second"] for check in checks)


def test_what_forks_the_rendering_processes_has_one_thread() -> None:
    """A lock that another thread held at the fork would never be released in the child."""
    with running_worker("mastering.engine.pipeline:master") as worker:
        (forking,) = worker.family() - worker.renderers()
        assert len(list(Path(f"/proc/{forking}/task").iterdir())) == 1
        assert worker.renderers()


def test_progress_never_goes_back(worker: WorkerProcess) -> None:
    answer = worker.render(request_body(b"abc", TWO))
    fractions = [event.fraction for event in answer.events if isinstance(event, ProgressEvent)]
    assert fractions == sorted(fractions)
    assert fractions


def test_a_render_that_says_nothing_keeps_beating() -> None:
    with running_worker(f"{FAKE}:hang", heartbeat_s=0.02) as worker:
        with begin_render(worker, request_body(b"abc")) as connection:
            read_until(connection, b'"progress"')
            for _ in range(3):
                read_until(connection, b'"heartbeat"')
        until(lambda: worker.free_slots() == 1)


def test_every_byte_goes_in_and_comes_back_in_its_part(worker: WorkerProcess) -> None:
    audio, references = os.urandom(700_001), (os.urandom(300_000), b"", b"x")
    answer = worker.render(request_body(audio, TWO, references))
    expected = audio + b"".join(references)
    assert {name: bytes(data) for name, data in answer.outputs.items()} == {
        "output/wav24": expected,
        "output/flac": expected,
    }
    assert isinstance(answer.events[-1], EndEvent)


def test_the_answer_is_fit_for_a_proxy_that_must_not_buffer_or_keep_it(worker: WorkerProcess) -> None:
    response = worker.client.post("/v1/renders", content=request_body(b"abc"), headers={SLOT_HEADER: worker.slot()})
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-store"
    assert "server" not in response.headers


def test_health_says_what_a_router_needs(worker: WorkerProcess) -> None:
    until(lambda: worker.health()["state"] == "ready")
    health = worker.health()
    assert (health["state"], health["protocol"], health["engine_version"]) == (
        "ready", PROTOCOL_VERSION, ENGINE_VERSION,
    )  # fmt: skip
    assert health["slots"] == {"total": 1, "running": 0, "reserved": 0, "free": 1}
    assert health["device"]
    assert health["memory"]["total_bytes"] > health["memory"]["free_bytes"] > 0


def test_a_busy_worker_refuses_before_any_upload(hanging: WorkerProcess) -> None:
    with begin_render(hanging, request_body(b"abc")) as connection:
        read_until(connection, b'"progress"')
        refusal = hanging.client.post("/v1/slots")
    assert (refusal.status_code, refusal.json()["code"]) == (503, "busy")
    assert int(refusal.headers["retry-after"]) >= 1
    assert refusal.headers["content-type"] == "application/problem+json"


def test_a_reserved_slot_is_taken_until_it_lapses() -> None:
    with running_worker(slot_s=0.3) as worker:
        worker.slot()
        assert worker.client.post("/v1/slots").status_code == 503
        until(lambda: worker.free_slots() == 1)
        assert worker.client.post("/v1/slots").status_code == 201


def test_a_refusal_is_seen_before_twenty_megabytes_are_sent(worker: WorkerProcess) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(320):
            sent += 65_536
            yield bytes(65_536)

    length = {"content-length": str(320 * 65_536)}
    response = worker.client.post("/v1/renders", content=body(), headers={SLOT_HEADER: "stale", **length})
    assert (response.status_code, response.json()["code"]) == (409, "busy")
    # The kernel's buffers take some; the worker takes none.
    assert sent < 320 * 65_536


def test_a_slot_serves_once(worker: WorkerProcess) -> None:
    slot = worker.slot()
    worker.render(request_body(b"abc"), slot)
    again = worker.client.post("/v1/renders", content=request_body(b"abc"), headers={SLOT_HEADER: slot})
    assert again.status_code == 409


def test_hanging_up_in_the_upload_frees_the_slot(worker: WorkerProcess) -> None:
    body = request_body(os.urandom(2_000_000))
    with begin_render(worker, body[:1_000_000], len(body)):
        until(lambda: worker.health()["slots"]["running"] == 1)
    until(lambda: worker.free_slots() == 1, tries=100)
    worker.render(request_body(b"the next one"))


def test_hanging_up_in_the_render_frees_the_slot_and_ends_the_process(hanging: WorkerProcess) -> None:
    with begin_render(hanging, request_body(b"abc")) as connection:
        read_until(connection, b'"progress"')
        before = hanging.renderers()
    until(lambda: hanging.free_slots() == 1, tries=100)
    until(lambda: len(before - hanging.renderers()) == 1)


def test_the_next_render_finds_a_warm_process_after_a_cancelled_one(hanging: WorkerProcess) -> None:
    for _ in range(3):
        until(lambda: hanging.health()["state"] == "ready")
        with begin_render(hanging, request_body(b"abc")) as connection:
            read_until(connection, b'"progress"')
        until(lambda: hanging.free_slots() == 1, tries=100)


@pytest.mark.parametrize(
    ("engine", "code"),
    [
        ("die", FaultCode.INTERNAL),
        ("be_killed", FaultCode.OUT_OF_MEMORY),
        ("fail", FaultCode.INTERNAL),
        ("run_out_of_memory", FaultCode.RESOURCE_LIMIT),
        ("use_up_processor_time", FaultCode.RESOURCE_LIMIT),
        ("refuse", FaultCode.SILENT),
    ],
)
def test_a_render_that_goes_wrong_ends_in_a_fault_and_the_worker_lives_on(engine: str, code: FaultCode) -> None:
    with running_worker(f"{FAKE}:{engine}") as worker:
        answer = worker.render(request_body(b"abc"))
        assert (answer.types[-1], answer.fault.code) == ("fault", code)
        assert "secret" not in answer.fault.model_dump_json()
        until(lambda: worker.free_slots() == 1)
        until(lambda: worker.health()["state"] == "ready")
        assert worker.render(request_body(b"abc")).fault.code is code


def test_a_killed_process_is_a_fault_while_it_renders(hanging: WorkerProcess) -> None:
    with begin_render(hanging, request_body(b"abc")) as connection:
        read_until(connection, b'"progress"')
        for child in hanging.renderers():
            os.kill(child, signal.SIGKILL)
        assert b'"fault"' in read_until(connection, b'"out_of_memory"')


def test_a_fork_server_that_is_killed_takes_its_renders_along_and_is_started_again(hanging: WorkerProcess) -> None:
    with begin_render(hanging, request_body(b"abc")) as connection:
        read_until(connection, b'"progress"')
        renderers = hanging.renderers()
        (server,) = children(hanging.process.pid)
        os.kill(server, signal.SIGKILL)
        assert b'"fault"' in read_until(connection, b'"internal"')
        until(lambda: not any(is_alive(renderer) for renderer in renderers))
    until(lambda: hanging.health()["state"] == "ready")
    with begin_render(hanging, request_body(b"abc")) as connection:
        read_until(connection, b'"progress"')


def test_a_process_that_cannot_be_forked_ends_neither_the_fork_server_nor_its_other_renders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_process(run: object) -> tuple[int, int]:
        raise BlockingIOError

    monkeypatch.setattr(fork_server, "fork_child", no_process)
    worker, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link, its_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with worker, theirs, link:
        serving = fork_server.ForkServer(theirs, RenderProgram(worker_engines.copy))
        with its_link:
            socket.send_fds(worker, [b"+"], [its_link.fileno()])
        assert serving._accept()
        assert link.recv(1) == b"", "the worker is told"
        worker.send(b"+")  # its descriptor was lost: this process may open no more
        assert serving._accept()
        worker.shutdown(socket.SHUT_WR)
        assert not serving._accept()


def test_nothing_of_a_render_stays_open_however_it_ends() -> None:
    """Memory files live as long as a descriptor does: a worker that keeps one keeps a song."""
    with running_worker() as worker:
        assert worker.render(request_body(os.urandom(300_000), TWO)).types[-1] == "end"
        body = request_body(os.urandom(3_000_000), TWO)
        with begin_render(worker, body[:-1000], len(body)):
            until(lambda: len(_memory_files(worker)) >= 1)
        with begin_render(worker, body) as connection:
            read_until(connection, b'"report"')
        until(lambda: worker.free_slots() == 1)
        until(lambda: _memory_files(worker) == [])


def _memory_files(worker: WorkerProcess) -> list[str]:
    open_now = []
    for entry in Path(f"/proc/{worker.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while we looked
            open_now.append(str(entry.readlink()))
    return [name for name in open_now if name.startswith("/memfd:")]


def test_a_deadline_ends_the_render(hanging: WorkerProcess) -> None:
    head = encode_event(JobEvent(options=Settings().model_dump(mode="json"), deadline_s=0.3))
    answer = hanging.render(_ended(head, _part(3), _data(b"abc")))
    assert answer.fault.code is FaultCode.DEADLINE
    until(lambda: hanging.free_slots() == 1)


def _part(size: int, name: str = "audio") -> bytes:
    return encode_event(PartEvent(name=name, size=size))


def _data(data: bytes) -> bytes:
    return data_header(len(data)) + data


SETTINGS = encode_event(JobEvent(options=Settings().model_dump(mode="json")))


def _ended(*frames: bytes) -> bytes:
    """With the end frame that holds for them."""
    seal = Seal()
    return b"".join(map(seal.pass_on, frames)) + encode_event(seal.close(EndEvent()))


BAD_BODIES = {
    "nothing": b"",
    "no frames": b"RIFF and so on",
    "a data frame without a size": b"\x02\x00\x00\x00\x00",
    "a data frame of 4 GB": b"\x02\xff\xff\xff\xff",
    "an event that is no JSON": b"\x01\x00\x00\x00\x03{{{",
    "an event of an unknown type": b'\x01\x00\x00\x00\x0e{"type":"rob"}',
    "no settings": _ended(_part(3), _data(b"abc")),
    "settings twice": SETTINGS + SETTINGS,
    "another protocol": encode_event(
        JobEvent(options=Settings().model_dump(mode="json"), protocol=PROTOCOL_VERSION + 1)
    ),
    "no audio": _ended(SETTINGS),
    "a reference before the audio": SETTINGS + _part(3, "reference/0"),
    "audio twice": SETTINGS + _part(0) + _part(0),
    "references out of order": SETTINGS + _part(0) + _part(0, "reference/1"),
    "an output in a request": SETTINGS + _part(0) + _part(0, "output/wav24"),
    "more bytes than announced": SETTINGS + _part(2) + _data(b"abc"),
    "data before a part": SETTINGS + _data(b"abc"),
    "fewer bytes than announced": _ended(SETTINGS, _part(4), _data(b"abc")),
    "a wrong byte": _ended(SETTINGS, _part(3), _data(b"abc")).replace(b"abc", b"abd"),
    "no end": SETTINGS + _part(3) + _data(b"abc"),
    "half an end": _ended(SETTINGS, _part(3), _data(b"abc"))[:-5],
    "no seal": SETTINGS + _part(3) + _data(b"abc") + encode_event(EndEvent()),
    "something after the end": _ended(SETTINGS, _part(3), _data(b"abc")) + SETTINGS,
}


def test_a_router_of_the_version_before_is_told_to_be_upgraded(worker: WorkerProcess) -> None:
    first = json.dumps({"type": "settings", "protocol": 2, "settings": {}, "deadline_s": None}).encode()
    body = b"\x01" + len(first).to_bytes(4, "big") + first
    response = worker.client.post("/v1/renders", content=body, headers={SLOT_HEADER: worker.slot()})
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
    assert "protocol 2 is not spoken here, only 3: upgrade the older" in response.json()["detail"]
    until(lambda: worker.free_slots() == 1)


KINDS_NOT_DONE = {
    "an unknown kind": (JobEvent(kind="karaoke", options={}), 422, "unknown_kind", "are not done here, only: master"),
    "an unknown option": (JobEvent(options={"stile": "warm"}), 400, "bad_settings", "stile: "),
    "an unknown output": (JobEvent(options={"outputs": ["wav25"]}), 400, "bad_settings", "outputs.0: "),
}


@pytest.mark.parametrize("name", KINDS_NOT_DONE)
def test_a_job_that_can_not_be_done_here_is_refused_before_its_song_is_read(worker: WorkerProcess, name: str) -> None:
    event, status, code, says = KINDS_NOT_DONE[name]
    response = worker.client.post("/v1/renders", content=encode_event(event), headers={SLOT_HEADER: worker.slot()})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert says in response.json()["detail"]
    until(lambda: worker.free_slots() == 1)


def test_the_health_says_which_kinds_are_done_here_and_with_which_models(worker: WorkerProcess) -> None:
    assert worker.health()["kinds"] == {"master": {}}


def test_the_health_says_which_paces_can_be_done_here(worker: WorkerProcess) -> None:
    """A refined master wants torch."""
    assert worker.health()["paces"] == {"master": ["quick", *(["fit"] if find_spec("torch") else [])]}


def test_a_pace_whose_module_is_missing_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_kinds, "find_spec", lambda name: None if name == "torch" else object())
    assert served_kinds.served_paces.__wrapped__() == {"master": ["quick"]}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_request_that_is_not_in_the_protocol_is_a_bad_request(worker: WorkerProcess, body: bytes) -> None:
    response = worker.client.post("/v1/renders", content=body, headers={SLOT_HEADER: worker.slot()})
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
    assert response.headers["content-type"] == "application/problem+json"
    until(lambda: worker.free_slots() == 1)


def test_a_part_that_is_announced_too_large_is_refused_before_its_bytes() -> None:
    with running_worker(max_input_bytes=1000) as worker:
        response = worker.client.post(
            "/v1/renders", content=SETTINGS + _part(1001), headers={SLOT_HEADER: worker.slot()}
        )
        assert (response.status_code, response.json()["code"]) == (413, "too_large")
        assert response.json()["numbers"] == {"size_bytes": 1001, "allowed_bytes": 1000}
        assert worker.render(request_body(bytes(1000))).types[-1] == "end"


def test_an_upload_that_stands_still_is_given_up() -> None:
    with running_worker(upload_stall_s=0.3) as worker:
        with begin_render(worker, SETTINGS[:9], 99) as still:
            assert b" 408 " in read_until(still, b"\r\n")
        until(lambda: worker.free_slots() == 1)


def test_the_rendering_process_can_keep_nothing() -> None:
    with running_worker(f"{FAKE}:write_files") as worker:
        assert worker.render(request_body(b"a song")).outputs["output/wav16"] == b"[]"


def test_the_rendering_process_can_read_nothing_but_programs(tmp_path: Path) -> None:
    """Where a router lives beside it under the same user, who takes it over finds none of the router's files."""
    ours = Path(mastering.__file__)
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as key:
        (tmp_path / "blob").write_bytes(b"sealed")
        private = [key.name, str(tmp_path / "blob"), "/etc/passwd", str(ours.parent.parent / "pyproject.toml")]
        assert all(Path(name).is_file() for name in private)
        with running_worker(f"{FAKE}:read_files") as worker:
            answer = worker.render(request_body("\n".join([str(ours), *private]).encode()))
    assert answer.outputs["output/wav16"].decode().splitlines() == [str(ours)]


def test_a_render_opens_no_file_for_writing(tmp_path: Path) -> None:
    """Every process of the worker under strace, from its start to the end of a render."""
    trace = tmp_path / "trace"
    calls = "trace=open,openat,openat2,creat,mkdir,mkdirat,rename,renameat2,unlink,unlinkat,link,symlink,truncate"
    with running_worker() as worker:
        tracer = subprocess.Popen(
            ["strace", "-f", "-q", "-e", calls, "-o", str(trace), "-p", str(worker.process.pid)]
            + [argument for child in worker.family() for argument in ("-p", str(child))],
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: all(_is_traced(pid) for pid in [worker.process.pid, *worker.family()]))
            answer = worker.render(request_body(os.urandom(3_000_000)))
            assert len(answer.outputs["output/wav16"]) == 3_000_000
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(20)
    lines = trace.read_text().splitlines()
    assert any("open" in line for line in lines), "the trace saw nothing"
    writes = [
        line
        for line in lines
        if any(word in line for word in ("O_WRONLY", "O_RDWR", "O_CREAT", "mkdir", "rename", "link(", "linkat("))
    ]
    assert [line for line in writes if "/dev/null" not in line and "readlink" not in line and " = -1 " not in line] == [
        line for line in writes if "/oom_score_adj" in line
    ]


def _is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in status


def test_the_rendering_processes_die_with_a_worker_that_is_killed(hanging: WorkerProcess) -> None:
    with begin_render(hanging, request_body(b"abc")) as connection:
        read_until(connection, b'"progress"')
        family = hanging.family()
        assert len(family) >= 3
        hanging.process.kill()
        until(lambda: not any(is_alive(child) for child in family))


def test_a_stopping_worker_finishes_its_render_and_takes_no_other() -> None:
    with running_worker(f"{FAKE}:wait_at_gate") as worker:
        with begin_render(worker, request_body(b"a song")) as connection:
            read_until(connection, b'"progress"')
            worker.process.terminate()
            until(lambda: _refuses(worker))
            for child in worker.renderers():
                os.kill(child, GATE)
            assert b'"end"' in read_until(connection, b'"end"')
        assert worker.process.wait(30) == 0


def _refuses(worker: WorkerProcess) -> bool:
    try:
        return worker.client.post("/v1/slots").status_code == 503
    except httpx.TransportError:
        return True


def test_a_worker_that_is_stopped_does_not_wait_for_ever_for_its_render() -> None:
    with (
        running_worker(f"{FAKE}:hang", drain_s=1) as worker,
        begin_render(worker, request_body(b"abc")) as connection,
    ):
        read_until(connection, b'"progress"')
        worker.process.terminate()
        assert worker.process.wait(30) == 0


def test_the_log_holds_known_events_and_nothing_of_the_request() -> None:
    with running_worker() as worker:
        canary = "canary-in-the-user-agent"
        slot = worker.slot()
        worker.client.post(
            "/v1/renders?canary=query",
            content=request_body(b"canary in the audio"),
            headers={SLOT_HEADER: slot, "user-agent": canary, "referer": "http://canary"},
        )
        worker.process.terminate()
        assert worker.process.stdout is not None
        log = worker.process.stdout.read().decode()
    assert '"render_ended"' in log
    assert '"outcome": "done"' in log
    assert not [word for word in ("canary", "127.0.0.1", "/v1/", slot) if word in log]


def test_help_names_the_options() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "mastering.worker", "--help"], capture_output=True, text=True, check=True
    )
    assert "--port" in shown.stdout
    assert "MASTERING_WORKER" in shown.stdout
